"""`python -m cohort.gateway.embeddings --config FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson
import uvloop

from cohort.base.errors import CohortError, Exit
from cohort.base.settings_embeddings import EmbeddingsSettings
from cohort.gateway.embeddings.model import OnnxModel
from cohort.gateway.embeddings.process import serve

USAGE = "usage: python -m cohort.gateway.embeddings --config FILE\n"
CONFIG_BYTES_MAX = 1 << 20


def main(arguments: list[str]) -> int:
    """Exit code 0 after a clean stop, 1 with one line on stderr when it cannot serve, 2 for a wrong command line."""
    if len(arguments) != 2 or arguments[0] != "--config":
        sys.stderr.write(USAGE)
        return Exit.USAGE
    try:
        settings = _settings(Path(arguments[1]))
        uvloop.run(serve(settings, OnnxModel(settings), lambda _port: None))
    except CohortError as error:
        sys.stderr.write(f"{error.code}: {error.message}. {error.hint}\n")
        return Exit.FAILED
    return Exit.DONE


def _settings(path: Path) -> EmbeddingsSettings:
    try:
        body = orjson.loads(path.read_bytes()) if path.stat().st_size <= CONFIG_BYTES_MAX else None
    except (OSError, orjson.JSONDecodeError) as error:
        raise CohortError("CONFIG_INVALID", f"{path} cannot be read: {error}", hint="Give --config FILE.") from error
    if not isinstance(body, dict):
        raise CohortError("CONFIG_INVALID", f"{path} is not a JSON object", hint=f"Mend {path}.")
    return EmbeddingsSettings.of(body, path.parent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
