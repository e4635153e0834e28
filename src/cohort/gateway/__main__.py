"""`python -m cohort.gateway --config FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

import uvloop

from cohort.base.errors import CohortError, Exit
from cohort.gateway.process import serve
from cohort.gateway.settings import load_settings

USAGE = "usage: python -m cohort.gateway --config FILE\n"


def main(arguments: list[str]) -> int:
    """Exit code 0 after a clean stop, 1 with one line on stderr when it cannot serve, 2 for a wrong command line."""
    if len(arguments) != 2 or arguments[0] != "--config":
        sys.stderr.write(USAGE)
        return Exit.USAGE
    try:
        uvloop.run(serve(load_settings(Path(arguments[1]))))
    except CohortError as error:
        sys.stderr.write(f"{error.code}: {error.message}. {error.hint}\n")
        return Exit.FAILED
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
