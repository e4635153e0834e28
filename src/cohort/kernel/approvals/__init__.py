"""A person's answer to one exact action."""
