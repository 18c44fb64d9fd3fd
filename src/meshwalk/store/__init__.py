"""What outlives a process, in one SQLite file per node."""
