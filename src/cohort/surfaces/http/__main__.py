"""The control process: `python -m cohort.surfaces.http --config FILE`. `cohort up` starts it."""

from __future__ import annotations

import gc
import sys

if __name__ == "__main__":
    gc.disable()  # a thousand modules are loaded, and none of what they make is garbage; `process` enables it before it serves
    from cohort.surfaces.http.process import main

    sys.exit(main())
