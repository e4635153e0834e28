"""What the way out of a sandbox costs: opening a listener in a network namespace, one request through the proxy, and bulk data.

    python bench/egress.py [--quick] [--json]

Every figure stands beside the same thing without the proxy, in the same run and on the same loopback interface: the ratio is what the
proxy costs. Needs Linux and user namespaces. Some seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from cohort.kernel.sandbox.egress import Proxy, Verdict

REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
BULK_BYTES = 64 << 20
BUDGET_BYTES = 1 << 40
REFERENCE = {"listener": "3.2-3.9 ms", "request": "0.34-0.40 ms"}


def unobserved(verdict: Verdict) -> None:
    del verdict


@contextmanager
def server(body: bytes) -> Iterator[int]:
    """Answers each connection with `body` once it has sent a head, and closes."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(body)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def fetch(port: int, head: bytes) -> int:
    """Bytes of the answer."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(head)
        total = 0
        while data := client.recv(1 << 18):
            total += len(data)
    return total


def times_ms(count: int, act: Callable[[], object]) -> list[float]:
    return sorted(times_ms_in_order(count, act))


def times_ms_in_order(count: int, act: Callable[[], object]) -> list[float]:
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        act()
        found.append((time.perf_counter() - begun) * 1000)
    return found


def summary(values_ms: list[float]) -> dict[str, float]:
    return {"p50_ms": round(statistics.median(values_ms), 3), "p99_ms": round(values_ms[int(len(values_ms) * 0.99)], 3)}


@contextmanager
def namespaces(count: int) -> Iterator[list[int]]:
    """Processes in user and network namespaces of their own."""
    argv = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", "echo ready; read _"]
    made = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        if any(one.stdout is None or one.stdout.readline() != b"ready\n" for one in made):
            sys.exit("bench/egress.py needs user namespaces; `cohort doctor` says what forbids them")
        yield [one.pid for one in made]
    finally:
        for one in made:
            one.communicate(timeout=10)


def listeners(count: int) -> dict[str, Any]:
    with closing(Proxy()) as proxy, namespaces(count + 1) as pids:
        left = iter(pids)
        first, *rest = times_ms_in_order(count + 1, lambda: proxy.listen(next(left), ["example.com:443"], BUDGET_BYTES, unobserved))
        found = summary(sorted(rest))
    return {"what": "listener in a namespace", **found, "first_ms": round(first, 3), "spec": REFERENCE["listener"]}


def requests(count: int) -> dict[str, Any]:
    with server(REPLY) as port, closing(Proxy(private=[f"127.0.0.1:{port}"])) as proxy:
        listener = proxy.listen_here([f"127.0.0.1:{port}"], BUDGET_BYTES, unobserved)
        plain, proxied = b"GET / HTTP/1.1\r\n\r\n", f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\n\r\n".encode()
        fetch(listener.port, proxied)
        direct = summary(times_ms(count, lambda: fetch(port, plain)))
        through = summary(times_ms(count, lambda: fetch(listener.port, proxied)))
        listener.close()
    added = round(through["p50_ms"] - direct["p50_ms"], 3)
    return {"what": "request", **through, "direct_p50_ms": direct["p50_ms"], "added_p50_ms": added, "spec": REFERENCE["request"]}


def bulk(rounds: int) -> dict[str, Any]:
    with server(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(BULK_BYTES)) as port, closing(Proxy(private=[f"127.0.0.1:{port}"])) as proxy:
        listener = proxy.listen_here([f"127.0.0.1:{port}"], BUDGET_BYTES, unobserved)
        proxied = f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\n\r\n".encode()
        direct = statistics.median(times_ms(rounds, lambda: fetch(port, b"GET / HTTP/1.1\r\n\r\n")))
        through = statistics.median(times_ms(rounds, lambda: fetch(listener.port, proxied)))
        listener.close()
    rate = BULK_BYTES / 1e6 / (through / 1000)
    return {
        "what": "bulk",
        "MB_per_s": round(rate),
        "direct_MB_per_s": round(BULK_BYTES / 1e6 / (direct / 1000)),
        "ratio": round(through / direct, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = [listeners(10 if asked.quick else 50), requests(200 if asked.quick else 2000), bulk(1 if asked.quick else 3)]
    if asked.json:
        print(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=2))
        return
    for row in rows:
        print("; ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
