"""The application behind a real socket, in a thread of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cohort.surfaces.http.app import create_app
from cohort.surfaces.http.ports import ControlFace
from cohort.surfaces.http.serve import bind, server_for

STARTED_S_MAX = 20


@contextmanager
def serving(control: ControlFace, port: int = 0, **options: Any) -> Iterator[str]:
    """Serves `control` on `port`, or on one the system chooses; yields the address, and shuts down gracefully. `options`: of `create_app`."""
    ready = threading.Event()
    listener = bind("127.0.0.1", port)
    port = listener.getsockname()[1]
    server = server_for(create_app(control, **options), ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    assert ready.wait(STARTED_S_MAX), "the server did not start"
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(STARTED_S_MAX)
        assert not thread.is_alive(), "the server did not shut down"
