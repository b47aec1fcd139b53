"""The verbs of the command line, each in a file of its own: its options, and what it does."""
