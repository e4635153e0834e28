"""The kernel's operations as tools of the Model Context Protocol. Decides nothing: every call goes through the action gate."""
