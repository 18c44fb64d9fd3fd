"""The command line. Each command has a file; main.py has the argument tree and the exit codes."""
