"""Which tool call a piece of a stream belongs to."""

from __future__ import annotations

from typing import Any


class Calls:
    """Numbers the calls of one stream in the order in which they begin.

    Pieces name their call by `index`. Gemini and some local servers give every call the same one: there a piece with a name and an id
    that the index has not had begins another call.
    """

    def __init__(self) -> None:
        self._newest: dict[int, tuple[int, Any]] = {}
        self._begun = 0

    def number(self, piece: dict[str, Any]) -> int:
        index, call_id = piece.get("index") or 0, piece.get("id")
        known = self._newest.get(index)
        names = bool((piece.get("function") or {}).get("name"))
        if known is None or (call_id and names and call_id != known[1]):
            known = self._newest[index] = (self._begun, call_id)
            self._begun += 1
        return known[0]
