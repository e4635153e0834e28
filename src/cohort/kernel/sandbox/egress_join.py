"""Opens a listener inside a sandbox's network namespace and hands it out.

A process may enter a user namespace only while it has one thread, so a small process does it: this file, run alone by the system's Python
with a socket as its only descriptor. For each request it forks; the child enters, listens, sends the descriptor back and ends. It imports
nothing of Cohort and has no environment.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import socket
import struct
import sys

REQUEST = struct.Struct("!IHH")
"""Process id inside the sandbox, port to listen on, backlog."""
ANSWER_BYTES_MAX = 512
LISTENING = b"listening"

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_NS_GET_USERNS = 0xB701
_IP_FREEBIND = 15

_libc = ctypes.CDLL(None, use_errno=True)


def serve(channel: socket.socket) -> None:
    """Answer requests until the other side is gone, which is how it ends: a death signal would follow the thread that started it."""
    while request := channel.recv(REQUEST.size):
        child = os.fork()
        if child == 0:
            _child(channel, request)
        os.waitpid(child, 0)


def _child(channel: socket.socket, request: bytes) -> None:
    """Never returns: it ends in another namespace."""
    status = 1
    try:
        pid, port, backlog = REQUEST.unpack(request)
        _enter(pid)
        listener = _listen(port, backlog)
        rights = array.array("i", [listener.fileno()])
        channel.sendmsg([LISTENING], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        status = 0
    except (OSError, struct.error) as error:
        channel.send(str(error).encode()[:ANSWER_BYTES_MAX])
    finally:
        os._exit(status)


def _enter(pid: int) -> None:
    """Join the network namespace of `pid`, by way of the user namespace that owns it where that is needed."""
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    ours = os.stat("/proc/self/ns/net")
    if (found := os.fstat(network)).st_ino == ours.st_ino and found.st_dev == ours.st_dev:
        raise OSError(f"process {pid} has no network namespace of its own")
    if _libc.setns(network, _CLONE_NEWNET) == 0:
        return
    _setns(fcntl.ioctl(network, _NS_GET_USERNS), _CLONE_NEWUSER)
    _setns(network, _CLONE_NEWNET)


def _setns(descriptor: int, kind: int) -> None:
    if _libc.setns(descriptor, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _listen(port: int, backlog: int) -> socket.socket:
    """Whether or not the sandbox's loopback interface is up yet: bringing it up is left to who makes the sandbox, who would fail if it was."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(backlog)
    return listener


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
