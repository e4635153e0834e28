"""Numbers in, numbers out: e-processes, intervals, sketches. No input or output, no clock."""
