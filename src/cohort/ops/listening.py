"""A listening socket that the supervisor holds for processes that come and go: nobody who connects meanwhile is turned away."""

from __future__ import annotations

import socket
import sys

BACKLOG = 1024


class Listening:
    """One address. Bound when it is first asked for, and held until `close`.

    `SO_REUSEPORT`: a process that a former supervisor left behind may still accept on a socket of its own beside this one.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._socket: socket.socket | None = None

    def fileno(self) -> int:
        """Raises OSError when the address cannot be had."""
        if self._socket is None:
            self._socket = self._bound()
        return self._socket.fileno()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _bound(self) -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sys.platform == "linux":
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind((self.host, self.port))
            made.listen(BACKLOG)
        except OSError:
            made.close()
            raise
        return made
