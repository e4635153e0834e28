"""What carries out cleared actions, one module per part of the machine. Each takes a `Cleared`, which only a recorded intent gives."""
