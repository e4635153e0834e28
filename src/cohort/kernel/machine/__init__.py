"""Processes, the monitor and resource limits."""
