"""What an upstream answers, held on its way to the client so that it can be kept afterwards. Bounded."""

from __future__ import annotations


class Tape:
    """One answer. `over`: it was larger than `bytes_max` and nothing of it is held."""

    __slots__ = ("_bytes_max", "_pieces", "_size", "over", "streamed")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._pieces: list[bytes] = []
        self._size = 0
        self.over = False
        self.streamed = False

    def feed(self, data: bytes) -> None:
        """A piece of a stream."""
        self.streamed = True
        self._hold(data)

    def whole(self, body: bytes) -> None:
        """An answer that is not streamed."""
        self._hold(body)

    @property
    def data(self) -> bytes:
        return b"".join(self._pieces)

    def clear(self) -> None:
        """Forget what was held: another attempt begins."""
        self._pieces, self._size, self.over, self.streamed = [], 0, False, False

    def _hold(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._bytes_max:
            self._pieces, self.over = [], True
        elif not self.over:
            self._pieces.append(data)
