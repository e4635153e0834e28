"""The name in a TLS ClientHello (RFC 8446, RFC 6066), read before anything is passed on. An outer name of ECH counts as the name."""

from __future__ import annotations

HELLO_BYTES_MAX = 32 * 1024
RECORD_BYTES_MAX = 1 << 14
_HANDSHAKE = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_HOST_NAME = 0


class NotHello(ValueError):
    """The bytes are no TLS ClientHello; says why."""


class _Bytes:
    """A cursor that refuses to read past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise NotHello("it ends too early")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        """What follows a length of `width` bytes."""
        return self.take(self.number(width))

    @property
    def rest(self) -> bool:
        return self._at < len(self._data)


def hello_of(data: bytes) -> bytes | None:
    """The handshake message within the records of `data`; None while it is not complete. Errors: NotHello."""
    message, at = b"", 0
    while at + 5 <= len(data):
        kind, major, length = data[at], data[at + 1], int.from_bytes(data[at + 3 : at + 5], "big")
        if kind != _HANDSHAKE or major != 3 or not 0 < length <= RECORD_BYTES_MAX:
            raise NotHello("not a TLS handshake record")
        message += data[at + 5 : at + 5 + length]
        at += 5 + length
        if at <= len(data) and len(message) >= 4 and len(message) >= (needed := 4 + int.from_bytes(message[1:4], "big")):
            return _whole(message, needed)
    if data and data[0] != _HANDSHAKE:
        raise NotHello("not a TLS handshake record")
    if len(data) > HELLO_BYTES_MAX:
        raise NotHello(f"longer than {HELLO_BYTES_MAX} bytes")
    return None


def _whole(message: bytes, needed: int) -> bytes:
    if len(message) != needed:
        raise NotHello("something follows it in its record")
    return message


def server_name(hello: bytes) -> str | None:
    """The name a ClientHello asks for, in lower case; None when it asks for none. Errors: NotHello, also for two names."""
    outer = _Bytes(hello)
    if outer.number(1) != _CLIENT_HELLO:
        raise NotHello("another handshake message")
    body = _Bytes(outer.vector(3))
    body.take(2 + 32)  # version and random
    body.vector(1)  # session
    body.vector(2)  # cipher suites
    body.vector(1)  # compression methods
    if not body.rest:
        return None
    extensions = _Bytes(body.vector(2))
    if body.rest or outer.rest:
        raise NotHello("something follows its extensions")
    names = []
    while extensions.rest:
        kind, value = extensions.number(2), extensions.vector(2)
        if kind == _SERVER_NAME:
            names.append(_name(value))
    if len(names) > 1:
        raise NotHello("two server names")
    return names[0] if names else None


def _name(value: bytes) -> str:
    extension = _Bytes(value)
    entries = _Bytes(extension.vector(2))
    kind, name = entries.number(1), entries.vector(2)
    if kind != _HOST_NAME or entries.rest or extension.rest:
        raise NotHello("a server name that is not one host name")
    try:
        return name.decode("ascii").lower()
    except UnicodeDecodeError:
        raise NotHello("a server name with other than ASCII letters") from None
