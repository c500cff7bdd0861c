"""The bodies of the tasks: each parses, delegates and prints."""
