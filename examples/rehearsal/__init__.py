"""The parts of the demo; `examples/demo.py` is its program."""
