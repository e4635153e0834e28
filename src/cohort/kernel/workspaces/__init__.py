"""Where agents' files are."""
