"""The one place that chooses concrete classes and reads the environment.

Nothing is imported here: a command that needs one small part of it need not load the rest.
"""
