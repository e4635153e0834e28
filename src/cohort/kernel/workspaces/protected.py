"""Names that other programs execute or obey when they find them: read-only for agents, also where they do not exist yet.

A shell runs its rc files, git runs hooks and what its configuration names, editors and MCP clients start what their folders say. An
agent that may write those acts later, elsewhere, as whoever opens the workspace. The file API refuses them at any depth and in any
spelling that a case-folding file system would take for the same; at the root, empty placeholders keep the names taken.
"""

from __future__ import annotations

import os
import stat
import unicodedata

from cohort.base.errors import CohortError
from cohort.kernel.workspaces.paths import shown

FILES = (
    ".bash_login",
    ".bash_logout",
    ".bash_profile",
    ".bashrc",
    ".envrc",
    ".gitconfig",
    ".gitmodules",
    ".mcp.json",
    ".netrc",
    ".npmrc",
    ".profile",
    ".zlogin",
    ".zprofile",
    ".zshenv",
    ".zshrc",
)
DIRECTORIES = (".claude", ".codex", ".cursor", ".gemini", ".idea", ".ssh", ".vscode", ".zed")
GIT = ".git"
HOOKS = ".git/hooks"
INFO = ".git/info"
EXCLUDE = ".git/info/exclude"
GIT_PARTS = ("hooks", "config", "config.worktree", "info")
"""Of a repository: through the file API only. A placeholder for `config` would keep git from making a repository at all."""

PLACEHOLDERS = (*FILES, *DIRECTORIES, HOOKS, INFO)
"""What is made at creation, read-only."""
CLOSED = (*DIRECTORIES, HOOKS, INFO)
CONTENTS = dict.fromkeys(FILES, b"")
CONTENTS[".gitconfig"] = b"[init]\n\ttemplateDir =\n"  # `git init` would stop at the closed directory of hooks
CONTENTS[EXCLUDE] = "".join(f"/{name}\n" for name in (*FILES, *DIRECTORIES)).encode()
"""Of the placeholders that are files: what keeps git from stumbling over the others."""

_WHOLE = frozenset(FILES) | frozenset(DIRECTORIES)


def folded(name: str) -> str:
    """What a file system that ignores case, compatibility forms, and dots and blanks at the end would make of a name."""
    plain = name.lower() if name.isascii() else unicodedata.normalize("NFKC", name).casefold()
    plain = plain.rstrip(" .")
    return GIT if plain == "git~1" else plain  # its short name on FAT and NTFS


def protection(path: str) -> str | None:
    """The protected name that `path`, canonical, is or is inside; None when it may be written."""
    parts = [folded(part) for part in path.split("/")]
    for place, part in enumerate(parts):
        if part in _WHOLE:
            return part
        if part == GIT and place + 1 < len(parts) and parts[place + 1] in GIT_PARTS:
            return f"{GIT}/{parts[place + 1]}"
    return None


def is_furniture(path: str, status: os.stat_result) -> bool:
    """Whether an entry is one that the product made and nobody changed; it is not the agent's, and not counted."""
    if stat.S_ISDIR(status.st_mode):
        return path in CLOSED or path == GIT
    return stat.S_ISREG(status.st_mode) and path in CONTENTS and status.st_size == len(CONTENTS[path])


def holds_protected(path: str) -> bool:
    """Whether making, moving or deleting `path` as a whole would decide about protected names in it."""
    return folded(path.rpartition("/")[2]) == GIT


def check_writable(path: str, field: str = "path", *, whole: bool = False) -> None:
    """Refuse to change a protected path. `whole`: it is made, moved or deleted with everything in it.

    Raises:
        CohortError PATH_PROTECTED
    """
    found = protection(path) or (GIT if whole and holds_protected(path) else None)
    if found is not None:
        message = f"{shown(path)} is read-only: other programs act on {found}"
        raise CohortError("PATH_PROTECTED", message, hint="Ask a person to change it outside the workspace.", field=field)
