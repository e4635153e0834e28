"""A stand-in for a model vendor: speaks the OpenAI HTTP protocol, answers from the prompt, and is no model at all.

    python examples/upstreams/standin_model.py --port 9101 --name vendor-a --model standin-large:failure_rate=0.01,latency_ms=60

It says what it is in its name, in `/v1/models` and in every answer. Latency and failures are drawn, and may be changed while it runs:

    curl -X POST localhost:9101/control -d '{"incident_failure_rate": 0.2}'                        # every model of this process
    curl -X POST localhost:9101/control -d '{"model": "standin-large", "slow_share": 0.1}'         # one of them
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import socket
import sys

import uvloop
from standin.behaviour import Behaviour, parse_model
from standin.connection import Connection
from standin.vendor import Vendor

MODELS_MAX = 50
NAME_PREFIX = "standin-"
SETTINGS = {
    "latency-ms": "median",
    "latency-sigma": "standard deviation of the latency's logarithm",
    "slow-share": "share of the calls that are slow",
    "slow-factor": "how many times as long a slow call takes",
    "failure-rate": "share of the calls that fail",
    "rate-limit-share": "share of the failures that are answered with 429, the rest with 500",
    "first-share": "share of the latency before the first streamed token",
}


async def serve(vendor: Vendor, host: str, port: int) -> None:
    """Listen until SIGTERM or SIGINT; says so on stdout when ready, as one line of JSON."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    open_connections: set[Connection] = set()
    server = await loop.create_server(lambda: Connection(vendor, loop, open_connections), host, port, backlog=1024)
    bound: socket.socket = server.sockets[0]
    ready = {"ready": True, "name": vendor.name, "stand_in": True, "port": bound.getsockname()[1], "models": list(vendor.models)}
    print(json.dumps(ready | {"pid": os.getpid()}), flush=True)
    await stop.wait()
    server.close()
    for connection in list(open_connections):
        connection.close()


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="standin_model.py", description=(__doc__ or "").partition("\n")[0])
    base = Behaviour()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: the system chooses; the ready line says which")
    parser.add_argument("--name", required=True, help="shown as standin-NAME")
    parser.add_argument("--model", action="append", default=[], metavar="standin-NAME[:setting=number,...]", help="repeatable")
    for name, text in SETTINGS.items():
        parser.add_argument(f"--{name}", type=float, default=getattr(base, name.replace("-", "_")), help=text)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(argv)


def vendor_from(options: argparse.Namespace) -> Vendor:
    """Raises ValueError naming the wrong option."""
    base = Behaviour(**{name: getattr(options, name) for name in (f.name for f in dataclasses.fields(Behaviour))})
    models = dict(parse_model(text, base) for text in options.model or [f"{NAME_PREFIX}model"])
    wrong = [name for name in models if not name.startswith(NAME_PREFIX)]
    if wrong:
        raise ValueError(f"--model {wrong[0]}: names begin with {NAME_PREFIX!r}, so that nobody takes them for a vendor's")
    if len(models) > MODELS_MAX:
        raise ValueError(f"--model: at most {MODELS_MAX}, found {len(models)}")
    return Vendor(f"{NAME_PREFIX}{options.name.removeprefix(NAME_PREFIX)}", options.seed, models)


def main(argv: list[str]) -> int:
    try:
        options = parse_arguments(argv)
        vendor = vendor_from(options)
    except ValueError as error:
        print(f"standin_model.py: {error}", file=sys.stderr)
        return 2
    try:
        uvloop.run(serve(vendor, options.host, options.port))
    except OSError as error:
        where = f"{options.host}:{options.port}"
        print(f"standin_model.py: cannot listen on {where}: {error.strerror}. Choose another --port.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
