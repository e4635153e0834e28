"""Paths in a workspace as text: one canonical form each, or a coded error that names the field and the fix.

A canonical path is relative, in UTF-8 and NFC, `/` between its parts, no part empty, `.` or `..`; the root itself is the empty text.
Only what cannot mean two things is mended (`./a//b/` is `a/b`); everything else is refused, never folded in silence, since a path
that two parts of the product read differently is a way around whichever of them decides.
"""

from __future__ import annotations

import unicodedata

from cohort.base.errors import CohortError

PATH_BYTES_MAX = 4096
NAME_BYTES_MAX = 255
DEPTH_MAX = 64
SHOWN_CHARACTERS_MAX = 80

_HIDDEN = {"Cc": "a control character", "Cf": "an invisible or bidi mark", "Cs": "half a surrogate pair", "Zl": "a line separator"}
_HIDDEN |= {"Zp": "a paragraph separator", "Cn": "a character that Unicode does not have"}


def canonical(text: str, field: str = "path") -> str:
    """The canonical form of a path that somebody gave.

    Raises:
        CohortError PATH_INVALID: too long, too deep, or with characters that no path may have.
        CohortError PATH_ESCAPES: absolute, or with `..`.
    """
    if not isinstance(text, str):
        raise _invalid(repr(text), "it is not text", "Give the path as text.", field)
    if len(text) > PATH_BYTES_MAX:
        raise _invalid(text, f"it has {len(text)} characters", f"Use at most {PATH_BYTES_MAX} bytes.", field)
    _check_characters(text, field)
    if len(text.encode()) > PATH_BYTES_MAX:
        raise _invalid(text, f"it has {len(text.encode())} bytes", f"Use at most {PATH_BYTES_MAX} bytes.", field)
    if text.startswith("/"):
        raise _escapes(text, "it is absolute", field)
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _escapes(text, "it has a part `..`", field)
    _check_parts(text, parts, field)
    return "/".join(parts)


def shown(path: str) -> str:
    """A path as error messages show it: its beginning, with nothing that could act on a terminal."""
    return neutral(path if len(path) <= SHOWN_CHARACTERS_MAX else f"{path[:SHOWN_CHARACTERS_MAX]}...")


def neutral(text: str, keep: str = "") -> str:
    """Text of an agent, fit to be shown to a person: control sequences, bidi marks and what is not UTF-8 written out, but for `keep`."""
    return "".join(one if one in keep or unicodedata.category(one) not in _HIDDEN else f"\\u{ord(one):04x}" for one in text)


def listed(name: str) -> tuple[str, bool]:
    """A name or path found on disk, fit to be shown, and whether that is also how to ask for it."""
    try:
        return name, canonical(name) == name
    except CohortError:
        return neutral(name.encode(errors="surrogateescape").decode(errors="backslashreplace")), False


def _check_characters(text: str, field: str) -> None:
    if text.isascii() and text.isprintable() and "\\" not in text:
        return
    for one in text:
        if one == "\\":
            raise _invalid(text, "it has a backslash", "Put `/` between parts; names with a backslash are not supported.", field)
        kind = "Zs" if one == " " else unicodedata.category(one)
        if kind in _HIDDEN:
            raise _invalid(text, f"it has {_HIDDEN[kind]} (U+{ord(one):04X})", "Leave that character out.", field)
    if not unicodedata.is_normalized("NFC", text):
        nfc = unicodedata.normalize("NFC", text)
        raise _invalid(text, "its characters are not composed (NFC)", f"Use the composed form: {shown(nfc)}", field)


def _check_parts(text: str, parts: list[str], field: str) -> None:
    if len(parts) > DEPTH_MAX:
        raise _invalid(text, f"it is {len(parts)} parts deep", f"Use at most {DEPTH_MAX} parts.", field)
    for part in parts:
        if len(part) > NAME_BYTES_MAX or len(part.encode()) > NAME_BYTES_MAX:
            raise _invalid(text, f"a part has {len(part.encode())} bytes", f"Use at most {NAME_BYTES_MAX} bytes for a part.", field)


def _invalid(text: str, why: str, hint: str, field: str) -> CohortError:
    return CohortError("PATH_INVALID", f"the path {shown(text)!r} cannot be used: {why}", hint=hint, field=field)


def _escapes(text: str, why: str, field: str) -> CohortError:
    hint = "Give a path relative to the workspace's root, without `..`."
    return CohortError("PATH_ESCAPES", f"the path {shown(text)!r} leaves the workspace: {why}", hint=hint, field=field)
