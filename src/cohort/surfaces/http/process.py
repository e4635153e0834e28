"""The control process: its configuration, its log, its life."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from pathlib import Path

import orjson

from cohort.base.errors import CohortError
from cohort.compose.control import Control, build_control
from cohort.surfaces.http.app import create_app
from cohort.surfaces.http.ports import ControlFace, Ingest, Part
from cohort.surfaces.http.serve import bind, hosts_for, server_for


class _Lines(logging.Formatter):
    """One JSON object a line, as the gateway logs."""

    def format(self, record: logging.LogRecord) -> str:
        body = {"at": record.created, "level": record.levelname.lower(), "from": record.name, "message": record.getMessage()}
        if record.exc_info:
            body["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(body).decode()


def face_of(control: Control) -> ControlFace:
    def parts() -> list[Part]:
        return [Part(part.name, part.ok, part.detail) for part in control.health()]

    def ingest() -> Ingest:
        newest_us = control.controller.newest_us
        lag_s = (control.clock.now_us() - newest_us) / 1e6 if newest_us is not None else None
        return Ingest(control.controller.records_taken, lag_s, control.controller.damages, control.controller.behind_bytes)

    rooms = (control.registry, control.rollouts, control.access, control.clock)
    late = (control.clients, control.accounts, control.routing, control.caches)
    return ControlFace(*rooms, parts, ingest, control.kernel.face, control.flags, *late)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cohort.surfaces.http", description="The control process of Cohort; `cohort up` starts it."
    )
    parser.add_argument("--config", required=True, type=Path, help="the JSON file that `cohort up` writes")
    config = orjson.loads(parser.parse_args().config.read_bytes())
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        return _serve(config)
    except CohortError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)  # noqa: T201
        return error.exit_code


def _serve(config: dict[str, object]) -> int:
    host, port = str(config["host"]), int(str(config["port"]))
    listener = bind(host, port)
    control = build_control(config, os.environ)
    control.start()
    try:
        public_url = str(config["public_url"]) if config["public_url"] else None
        server = server_for(create_app(face_of(control), hosts=hosts_for(host, public_url), public_url=public_url))
        _settle()
        server.run(sockets=[listener])
    finally:
        control.stop()
    return 0


def _settle() -> None:
    """What was loaded stays for good: the collector, off until now (`__main__`), need never look at it."""
    gc.freeze()
    gc.enable()
