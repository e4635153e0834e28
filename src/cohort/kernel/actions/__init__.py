"""The action gate: the only road to the machine."""
