"""An answer as bytes, for the tiers outside this process: compressed, with what is needed to tell its age, whose it is and whether it is whole."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import blake2b

from cohort.base.clock import Clock
from cohort.gateway.cache.answers import Answer

MAGIC = b"cohortc1"
DIGEST_BYTES = 16
HEAD = struct.Struct(">8s16s16s16sqdqqqB")
"""Magic, digest of key and rest, unit, boot, made (us since 1970), made (s since boot), time to live (ms), saved (us$), tokens out, flags."""
USAGE, TOOLS = 1, 2
COMPRESSION = 3
BODY_BYTES_MAX = 64 << 20


class Damaged(Exception):
    """The bytes are not an answer that was packed for this key."""


@dataclass(frozen=True, slots=True)
class Found:
    """A kept answer of this age, for `ttl_s` in all."""

    answer: Answer
    unit: str
    age_s: float
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Label:
    """What the head says: whose answer it is, and how long it has left; 0 for one made in the future, as a clock that was set back has it."""

    unit: str
    left_s: float


class Packing:
    """Packs and unpacks. `boot`: names this boot of the machine, empty where nothing does.

    Age is the larger of what the wall clock says and, within one boot, what the clock since boot says: a wall clock that is set back
    makes nothing younger.
    """

    def __init__(self, clock: Clock, boot: str) -> None:
        self._clock = clock
        self._boot = boot.encode()[:16].ljust(16, b"\0") if boot else b""

    def pack(self, key: bytes, answer: Answer, unit: str, ttl_s: float) -> bytes:
        """An answer made now. `unit`: 32 hexadecimal digits."""
        import zstandard  # only a gateway that keeps answers outside its memory pays for it

        body = zstandard.ZstdCompressor(level=COMPRESSION).compress(answer.body)
        flags = answer.has_usage * USAGE | answer.calls_tools * TOOLS
        times = (self._boot, self._clock.now_us(), self._clock.monotonic_s(), int(ttl_s * 1000))
        head = HEAD.pack(MAGIC, b"", bytes.fromhex(unit), *times, answer.saved_usd_micro, answer.tokens_out, flags)
        return MAGIC + _digest(key, head, body) + head[len(MAGIC) + DIGEST_BYTES :] + body

    def unpack(self, key: bytes, data: bytes) -> Found | None:
        """The answer in `data`; None when its time is over. Raises Damaged."""
        import zstandard

        head, body = data[: HEAD.size], data[HEAD.size :]
        if len(head) < HEAD.size or not head.startswith(MAGIC) or _digest(key, head, body) != head[len(MAGIC) : len(MAGIC) + DIGEST_BYTES]:
            raise Damaged
        _, _, unit, _, _, _, ttl_ms, saved, tokens_out, flags = HEAD.unpack(head)
        age_s = self._age_s(head)
        if age_s is None or age_s >= ttl_ms / 1000:
            return None
        whole = zstandard.ZstdDecompressor().decompress(body, max_output_size=BODY_BYTES_MAX)
        answer = Answer(whole, bool(flags & USAGE), saved, tokens_out, bool(flags & TOOLS))
        return Found(answer, unit.hex(), age_s, ttl_ms / 1000)

    def label(self, head: bytes) -> Label:
        """What the first HEAD.size bytes say; raises Damaged where they are not ours. Whether the rest is whole is another question."""
        if len(head) < HEAD.size or not head.startswith(MAGIC):
            raise Damaged
        _, _, unit, _, _, _, ttl_ms, _, _, _ = HEAD.unpack_from(head)
        age_s = self._age_s(head)
        return Label(unit.hex(), max(ttl_ms / 1000 - age_s, 0.0) if age_s is not None else 0.0)

    def _age_s(self, head: bytes) -> float | None:
        _, _, _, boot, made_us, made_s, _, _, _, _ = HEAD.unpack_from(head)
        age_s: float = (self._clock.now_us() - made_us) / 1e6
        if age_s < 0:
            return None
        return max(age_s, self._clock.monotonic_s() - made_s) if self._boot and boot == self._boot else age_s


def _digest(key: bytes, head: bytes, body: bytes) -> bytes:
    """Of key and bytes, without the place where the digest stands."""
    digest = blake2b(key + head[len(MAGIC) + DIGEST_BYTES :], digest_size=DIGEST_BYTES, person=b"cohort answer")
    digest.update(body)
    return digest.digest()
