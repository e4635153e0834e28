"""Network ports: free or not, and whether something answers there."""

from __future__ import annotations

import errno
import http.client
import socket
from pathlib import Path

from cohort.base.errors import CohortError, Retry
from cohort.ops.processes import command_line

PROBE_S = 0.5
ANSWER_BYTES_MAX = 1 << 16


def check_free(host: str, port: int, setting: str) -> None:
    """Raises CohortError PORT_IN_USE or BIND_REFUSED naming `setting` when nothing could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise _refused(error, host, port, setting) from error


def _refused(error: OSError, host: str, port: int, setting: str) -> CohortError:
    variable = "COHORT_" + setting.upper().replace(".", "_")
    if error.errno == errno.EADDRINUSE:
        what = f"port {port} on {host} ({setting}) is used by another program{_user_of(port)}"
        return CohortError(
            "PORT_IN_USE", what, retry=Retry.SAFE, field=setting, hint=f"Stop that program, or change {setting} (or set {variable})."
        )
    what = f"cannot listen on {host} port {port} ({setting}): {error.strerror}"
    return CohortError("BIND_REFUSED", what, field=setting, hint=f"Choose an address of this machine and a port above 1023 for {setting}.")


def _user_of(port: int) -> str:
    """` (process 12: nginx ...)` where the system tells; empty elsewhere."""
    pid = _listener(port)
    argv = command_line(pid) if pid else None
    return f" (process {pid}: {' '.join(argv)[:80]})" if argv else ""


def _listener(port: int) -> int | None:
    """The process that listens on `port`, by Linux's tables; None where they do not tell."""
    from cohort.ops.sockets_linux import listener

    return listener(port)


def answers(url_host: str, port: int, path: str, timeout_s: float = PROBE_S) -> bool:
    """Whether a GET is answered with 200 in time."""
    return fetch(url_host, port, path, timeout_s)[0] == 200


def answers_at(path: Path, target: str, timeout_s: float = PROBE_S) -> bool:
    """Whether a GET is answered with 200 in time at a socket of the file system."""
    return fetch_at(path, target, timeout_s)[0] == 200


def fetch_at(path: Path, target: str, timeout_s: float = PROBE_S, token: str | None = None) -> tuple[int | None, bytes]:
    """Status and body of a GET at a socket of the file system; (None, b"") when there is no answer in time. `token`: who asks."""
    connection = http.client.HTTPConnection("localhost", timeout=timeout_s)
    try:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(timeout_s)
        connection.sock.connect(str(path))
    except OSError:
        connection.close()
        return None, b""
    return _got(connection, target, token)


def fetch(url_host: str, port: int, path: str, timeout_s: float = PROBE_S, token: str | None = None) -> tuple[int | None, bytes]:
    """Status and body of a GET on a port of this machine; (None, b"") when there is no answer in time. `token`: who asks."""
    return _got(http.client.HTTPConnection(url_host, port, timeout=timeout_s), path, token)


def _got(connection: http.client.HTTPConnection, path: str, token: str | None) -> tuple[int | None, bytes]:
    shown = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        connection.request("GET", path, headers={"Connection": "close", **shown})
        response = connection.getresponse()
        return response.status, response.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()
