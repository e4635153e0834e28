"""An anchor that is the system's log: one RFC 5424 message per checkpoint. Nothing answers, so it vouches only to who reads it there."""

from __future__ import annotations

import datetime
import os
import socket
from typing import Any

from cohort.base.clock import Clock
from cohort.kernel.audit.anchoring import Prove, Sent, failed

LOCAL = "/dev/log"
PRIORITY = 13 * 8 + 5
"""Facility `log audit`, severity `notice`."""
SEND_WAIT_S = 2.0


class SyslogAnchor:
    """`address`: the path of a datagram socket, or host and port of a UDP one."""

    pause_s = 0.0

    def __init__(self, name: str, address: str | tuple[str, int], clock: Clock, host: str) -> None:
        self.name = name
        self._address = address
        self._clock = clock
        self._host = host

    def notes(self) -> None:
        return None

    def send(self, note: str, _size: int, _prove: Prove) -> Sent:
        """Errors: ANCHOR_FAILED: the message was not taken. That it was is no proof that it arrived."""
        message = self._message(note)
        try:
            if isinstance(self._address, str):
                self._write(socket.AF_UNIX, self._address, message)
            else:
                family, _, _, _, found = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
                self._write(family, found, message)
        except OSError as error:
            raise failed(self.name, f"did not take the message: {error.strerror or error}", "Start the system's log.") from error
        return Sent("sent; nothing confirms that it arrived", message.decode())

    def _write(self, family: int, address: str | tuple[Any, ...], message: bytes) -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as channel:
            channel.settimeout(SEND_WAIT_S)
            channel.sendto(message, address)

    def _message(self, note: str) -> bytes:
        at = datetime.datetime.fromtimestamp(self._clock.now_us() / 1e6, datetime.UTC).isoformat(timespec="microseconds")
        text = note.replace("\n\n", "\n").strip().replace("\n", " | ")
        return f"<{PRIORITY}>1 {at.replace('+00:00', 'Z')} {self._host} cohort {os.getpid()} checkpoint - {text}".encode()
