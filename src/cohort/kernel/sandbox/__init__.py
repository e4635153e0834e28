"""Containing commands."""
