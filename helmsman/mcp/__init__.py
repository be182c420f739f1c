"""Helmsman as a server of the Model Context Protocol: its tools for other people's agents. See helmsman/README.md."""
