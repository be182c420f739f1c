"""Hard to kill: a real server and agents under load, while something kills them with SIGKILL; nothing may go wrong."""
