"""The other workers of the gateway, asked for their figures, so that a scrape of any of them is one of all."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from cohort.gateway.metrics import gauge

ASK_S = 1.0
"""One that is stopped or stuck is left out."""
PAGE_BYTES_MAX = 16 << 20
PIECE_BYTES = 1 << 16
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n")


class Siblings:
    """`sockets`: where control reaches them. `authorization`: control's, which they ask for. `ask_s`: for all of them together."""

    def __init__(self, sockets: Sequence[Path], authorization: bytes, ask_s: float = ASK_S) -> None:
        self._sockets = sockets
        self._ask_s = ask_s
        self._request = b"GET /-/metrics HTTP/1.1\r\nhost: localhost\r\nauthorization: %s\r\nconnection: close\r\n\r\n" % authorization

    def __bool__(self) -> bool:
        return bool(self._sockets)

    async def with_own(self, own: bytes) -> bytes:
        """This worker's page and those of the others as one, and how many of them did not answer."""
        asked = [asyncio.ensure_future(self._page(socket)) for socket in self._sockets]
        try:
            done, _ = await asyncio.wait(asked, timeout=self._ask_s)
        finally:
            for one in asked:
                one.cancel()
        pages = [page for one in asked if one in done and (page := one.result()) is not None]
        words = "Other workers that did not answer this scrape."
        missing = gauge("cohort_gateway_workers_missing", words, len(asked) - len(pages))
        return merged([own, *pages, missing])

    async def _page(self, socket: Path) -> bytes | None:
        """None where it does not answer with one."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(socket))
        except OSError:
            return None
        try:
            writer.write(self._request)
            return _body(await _whole(reader))
        except OSError:
            return None
        finally:
            writer.close()


def merged(pages: Sequence[bytes]) -> bytes:
    """Pages in the Prometheus text format as one: each family once, and behind its head the samples of all."""
    families: dict[bytes, list[bytes]] = {}
    for page in pages:
        name, known = b"", False
        for line in page.split(b"\n"):
            if line.startswith(b"# HELP "):
                name = line.split(b" ", 3)[2]
                known = name in families
                families.setdefault(name, [])
            if line and not (known and line.startswith(b"#")):
                families[name].append(line)
    return b"".join(b"\n".join(lines) + b"\n" for lines in families.values())


async def _whole(reader: asyncio.StreamReader) -> bytes:
    data = bytearray()
    while len(data) <= PAGE_BYTES_MAX and (piece := await reader.read(PIECE_BYTES)):
        data += piece
    return bytes(data)


def _body(answer: bytes) -> bytes | None:
    """None where it is not a whole answer with status 200."""
    head, _, body = answer.partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n")
    return body if head.startswith(b"HTTP/1.1 200 ") and length is not None and int(length[1]) == len(body) else None
