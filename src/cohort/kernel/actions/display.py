"""What programs wrote, made safe to show: no control sequences, no marks that reorder or hide text; and no longer than a limit."""

from __future__ import annotations

import re
import unicodedata

TAB_AND_LINE = {"\t", "\n"}

_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, screen
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC, DCS, SOS, PM, APC with what they carry
    r"|\x1b[ -/]*[0-~]"  # the other escapes
    r"|\x9b[0-?]*[ -/]*[@-~]"  # CSI in one byte
    r"|[\x90\x98\x9d\x9e\x9f][^\x07\x1b\x9c]*(?:\x07|\x9c|\x1b\\)?"
)
_HIDING = frozenset("\u061c\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u2060\ufeff") | {
    chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def neutral(text: str) -> str:
    """`text` without control sequences; other control characters and marks of direction or no width are shown as their code point.

    A carriage return before a line feed goes; one alone would overwrite the line and is shown.
    """
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    plain = _SEQUENCES.sub("", text.replace("\r\n", "\n"))
    return "".join(letter if _shown(letter) else f"\\u{{{ord(letter):x}}}" for letter in plain)


def _shown(letter: str) -> bool:
    if letter in TAB_AND_LINE:
        return True
    return letter not in _HIDING and unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co", "Cn")


def decoded(data: bytes, bytes_max: int) -> tuple[str, bool]:
    """The first `bytes_max` bytes as neutral text, and whether there were more. What is not UTF-8 shows as U+FFFD."""
    return neutral(data[:bytes_max].decode("utf-8", errors="replace")), len(data) > bytes_max
