"""Keeping the house: processes, preflight."""
