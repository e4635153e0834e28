"""The parts of the stand-in model vendor; `standin_model.py` is its program."""
