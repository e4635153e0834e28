"""Cohort: the operating system for AI agents in production."""

__version__ = "0.1.0"
