"""The conversation in a browser: a second renderer of the event stream, served on loopback only."""
