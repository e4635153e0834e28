"""`files.*`: the workspace's own file operations, asked for by cleared actions. The paths are those of the action, canonical already."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from cohort.base.errors import CohortError
from cohort.kernel.actions.clearance import Cleared, Executed, Executor
from cohort.kernel.actions.display import neutral
from cohort.kernel.actions.facts import workspace_of
from cohort.kernel.model import Place
from cohort.kernel.ports import Workspaces
from cohort.kernel.workspaces.entries import Entry
from cohort.kernel.workspaces.files import Files, How
from cohort.kernel.workspaces.search import Search

HOW = {"replace": How.OVERWRITE, "create": How.CREATE, "append": How.APPEND}


class FileExecutors:
    """Errors: those of `Files` and of `Workspaces.place`."""

    def __init__(self, workspaces: Workspaces, files: Files, search: Search) -> None:
        self._workspaces = workspaces
        self._files = files
        self._search = search

    def executors(self) -> Mapping[str, Executor]:
        return {
            "files.read": self.read,
            "files.list": self.list,
            "files.search": self.search,
            "files.stat": self.stat,
            "files.write": self.write,
            "files.move": self.move,
            "files.mkdir": self.mkdir,
            "files.delete": self.delete,
        }

    def read(self, cleared: Cleared) -> Executed:
        """The exact content; text that is not UTF-8 is refused, so that nothing is lost without notice."""
        arguments = cleared.action.arguments
        piece = self._files.read(self._place(cleared), arguments["path"], arguments["offset"], arguments["limit"])
        content, used = _content(piece.data, arguments["encoding"], last=not piece.more)
        end = piece.offset + used
        result = {"content": content, "encoding": arguments["encoding"], "bytes": used, "size": piece.size, "next_offset": end}
        return Executed({**result, "more": end < piece.size}, output_digest=sha256(piece.data[:used]).hexdigest())

    def list(self, cleared: Cleared) -> Executed:
        arguments = cleared.action.arguments
        listing = self._files.list(self._place(cleared), arguments["path"], arguments["after"] or None, arguments["limit"])
        return Executed({"entries": [_shown(entry) for entry in listing.entries], "after": listing.after})

    def search(self, cleared: Cleared) -> Executed:
        """Says when a limit ended it, and how many files were left out."""
        arguments = cleared.action.arguments
        found = self._search.find(self._place(cleared), arguments["text"], arguments["path"], arguments["names"], arguments["limit"])
        places = [{"path": match.path, "line": match.line, "text": neutral(match.text)} for match in found.matches]
        return Executed({"places": places, "files": found.files, "skipped": found.skipped, "complete": found.complete})

    def stat(self, cleared: Cleared) -> Executed:
        return Executed(_shown(self._files.stat(self._place(cleared), cleared.action.arguments["path"])))

    def write(self, cleared: Cleared) -> Executed:
        arguments = cleared.action.arguments
        data = base64.b64decode(arguments["content"]) if arguments["encoding"] == "base64" else arguments["content"].encode()
        written = self._files.write(self._place(cleared), arguments["path"], data, HOW[arguments["mode"]])
        result = {"path": written.path, "size": written.size, "created": written.created, "sha256": written.sha256}
        return Executed(result, output_digest=written.sha256)

    def move(self, cleared: Cleared) -> Executed:
        arguments = cleared.action.arguments
        return Executed(_shown(self._files.move(self._place(cleared), arguments["path"], arguments["to"])))

    def mkdir(self, cleared: Cleared) -> Executed:
        return Executed(_shown(self._files.mkdir(self._place(cleared), cleared.action.arguments["path"], parents=True)))

    def delete(self, cleared: Cleared) -> Executed:
        arguments = cleared.action.arguments
        return Executed({"deleted": self._files.delete(self._place(cleared), arguments["path"], arguments["recursive"])})

    def _place(self, cleared: Cleared) -> Place:
        return self._workspaces.place(workspace_of(cleared.action))


def _content(data: bytes, encoding: str, *, last: bool) -> tuple[str, int]:
    """The content and how many bytes it stands for: a letter that the limit cut in two is left for the next piece."""
    if encoding == "base64":
        return base64.b64encode(data).decode(), len(data)
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    try:
        text = decoder.decode(data, final=last)
    except UnicodeDecodeError as error:
        what = f"the bytes from {error.start} on are not UTF-8 text"
        raise CohortError("ARGUMENT_INVALID", what, field="arguments.encoding", hint="Read it with the encoding base64.") from error
    return text, len(data) - len(decoder.getstate()[0])


def _shown(entry: Entry) -> dict[str, Any]:
    return {
        "path": entry.path,
        "kind": entry.kind,
        "size": entry.size,
        "mode": oct(entry.mode)[2:],
        "modified_us": entry.modified_us,
        "protected": entry.protected,
        "usable": entry.usable,
    }
