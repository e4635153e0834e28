"""Other ways to write the same: escapes within a text, wide letters and digits, other scripts' digits, hyphens and spaces, invisible signs. Pure."""

from __future__ import annotations

import re
import unicodedata

_ESCAPE = re.compile(r'\\+[bfnrt"/]?')
_INVISIBLE = "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff\ufe0e\ufe0f\u20e3"
_HYPHENS = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_ZEROS = (
    0x660,
    0x6F0,
    0x7C0,
    0x966,
    0x9E6,
    0xA66,
    0xAE6,
    0xB66,
    0xBE6,
    0xC66,
    0xCE6,
    0xD66,
    0xE50,
    0xED0,
    0xF20,
    0x1040,
    0x17E0,
    0x1810,
    0xFF10,
)
"""Of the scripts that have digits of their own and are written today; the other nine follow."""


def _range(first: int, last: int) -> bytes:
    """A pattern for the UTF-8 of these signs, which differ in their last byte only."""
    low, high = chr(first).encode(), chr(last).encode()
    return b"".join(b"\\x%02x" % byte for byte in low[:-1]) + b"[\\x%02x-\\x%02x]" % (low[-1], high[-1])


_DIGIT = b"(?:[0-9]|" + b"|".join(_range(zero, zero + 9) for zero in _ZEROS) + b"|" + _range(0x1D7CE, 0x1D7FF) + b")"
_GONE = rb"(?:\xe2\x80[\x8b-\x8f]|\xe2\x81[\xa0-\xa4]|\xef\xbb\xbf|\xef\xb8[\x8e\x8f]|\xc2\xad|\xcd\x8f|\xd8\x9c|\xe2\x83\xa3)"
_BETWEEN = rb"(?:\xe2\x80[\x80-\x8a\x90-\x95\xaf]|\xe2\x81\x9f|\xe2\x88\x92|\xc2\xa0|\xe3\x80\x80|\xef\xbc[\x8d\x8e]|\xef\xb9[\x98\xa3])"
ODD_BYTES = b"|".join(
    (
        _DIGIT + b"(?:" + _GONE + b"|" + _BETWEEN + b")+" + _DIGIT,
        b"[A-Za-z@.]" + _GONE + b"+[A-Za-z0-9@.]",
        b"[0-9]" + _GONE + b"+[A-Za-z@.]",
        b"\\xef\\xbc\\xa0|\\xef\\xb9\\xab",  # wide and small @
        b"(?:\\xef\\xbc[\\xa1-\\xba]|\\xef\\xbd[\\x81-\\x9a]|\\xf0\\x9d[\\x90-\\x9f][\\x80-\\xbf]){2}",  # wide and mathematical letters
        b"(?:" + b"|".join(_range(zero, zero + 9) for zero in _ZEROS) + b"|" + _range(0x1D7CE, 0x1D7FF) + b")[ ./-]?" + _DIGIT,
    )
)
"""In UTF-8: a number or an address written with other signs than those of ASCII. Texts in other scripts are full of such signs, but not so."""
_TRANSLATED = {
    **dict.fromkeys(map(ord, _INVISIBLE), ""),
    **dict.fromkeys(map(ord, _HYPHENS), "-"),
    **dict.fromkeys(map(ord, _SPACES), " "),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    0xFE6B: "@",
}


def masked(text: str) -> str:
    """The text as long as it was, with blanks for escapes: in `\\n4111` a number begins, not a word with `n`."""
    return _ESCAPE.sub(lambda found: " " * len(found.group()), text)


def plain(text: str) -> str:
    """As somebody would write it who has nothing but ASCII; letters of other scripts stay."""
    text = unicodedata.normalize("NFKC", text).translate(_TRANSLATED)
    return "".join(_digit(character) if character > "\x7f" else character for character in text)


def _digit(character: str) -> str:
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)
