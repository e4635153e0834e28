"""A listening socket that another process made: it outlives each of the processes that accept from it, and with it who waits in its queue."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from cohort.base.errors import CohortError

LISTEN_FD = "COHORT_LISTEN_FD"
"""Number of the socket, from `cohort up`."""
SYSTEMD_FIRST_FD = 3


def inherited_socket(environment: Mapping[str, str], pid: int) -> socket.socket | None:
    """The socket handed to process `pid` by `cohort up` or by systemd's socket activation; None when there is none.

    Raises:
        CohortError CONFIG_INVALID: something was handed over that is not a listening stream socket.
    """
    fd = _number(environment, pid)
    if fd is None:
        return None
    try:
        found = socket.socket(fileno=fd)
        listening = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and found.type == socket.SOCK_STREAM
        if not listening:
            found.detach()  # it is somebody else's, and stays open
    except (OSError, ValueError):
        listening = False
    if not listening:
        what = f"file {fd}, which was handed over to listen on, is not a listening socket"
        raise CohortError("CONFIG_INVALID", what, field=LISTEN_FD, hint=f"Unset {LISTEN_FD}, or correct the unit's ListenStream=.")
    found.setblocking(False)
    return found


def _number(environment: Mapping[str, str], pid: int) -> int | None:
    said = environment.get(LISTEN_FD)
    if said is not None:
        return int(said) if said.isascii() and said.isdigit() else -1
    if environment.get("LISTEN_PID") == str(pid) and environment.get("LISTEN_FDS", "0") != "0":
        return SYSTEMD_FIRST_FD
    return None
