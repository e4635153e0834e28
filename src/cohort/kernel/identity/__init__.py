"""Agents, their sessions and tokens."""
