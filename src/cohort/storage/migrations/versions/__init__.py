"""One migration per file, oldest first."""
