"""Whether a command line hands text to a shell. Judged by names, in every word: what stands in front of a shell is no reason to miss it.

A word that only mentions a shell counts as well (`grep bash notes`): a question too many, where the other mistake is one too few. What names
tell nothing about is not seen: a shell under another name in the workspace, or a program that starts one by itself.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

_SHELL_WORDS = """
sh bash rbash dash ash zsh rzsh ksh rksh mksh lksh pdksh oksh loksh yash posh fish csh tcsh rc es elvish nu xonsh osh ysh pwsh powershell
busybox toybox sash git-shell
"""
_TAKE_TEXT_WORDS = "watch su runuser script parallel at batch ssh xargs entr rlwrap expect tmux screen"
_LAUNCHER_WORDS = """
env nice nohup timeout stdbuf setsid chroot sudo doas ionice chrt taskset unshare nsenter setpriv prlimit time strace ltrace flock find exec
command catchsegv unbuffer setarch linux32 linux64 numactl cgexec systemd-run dbus-run-session firejail bwrap
"""
SHELLS = frozenset(_SHELL_WORDS.split())
TAKE_TEXT = frozenset(_TAKE_TEXT_WORDS.split())
"""Programs that hand words, or what they read, to a shell or to `exec` themselves."""
LAUNCHERS = frozenset(_LAUNCHER_WORDS.split())
"""Programs whose words are a program to run."""

_PIECES = re.compile(r"[^A-Za-z0-9_./+-]+")
_SPLIT = re.compile(r"-[A-Za-z0-9]*S|--s")
"""Options of `env` that make words of a text, `--split-string` shortened as it may be."""


def is_shell(arguments: Mapping[str, Any]) -> bool:
    """Of the arguments of an operation that executes: asked for as a shell line, or naming a shell anywhere in its words."""
    argv = [str(word) for word in arguments.get("argv", ())]
    return "shell" in arguments or any(_names_shell(word) for word in argv) or _takes_text(argv)


def _names_shell(word: str) -> bool:
    return any(_names(name) & SHELLS for piece in _PIECES.split(word) for name in _readings(piece))


def _readings(piece: str) -> tuple[str, ...]:
    """A piece of a word as a program: itself, or what an option has right behind it."""
    return (piece, piece.lstrip("-"), piece[2:]) if piece.startswith("-") else (piece,)


def _takes_text(argv: Sequence[str]) -> bool:
    """Whether its program, or one that its program is told to run, takes text to execute."""
    names = [_names(word) for word in argv]
    if not names or not names[0] & (LAUNCHERS | TAKE_TEXT):
        return False
    splits = any("env" in name for name in names) and any(_SPLIT.match(word) for word in argv)
    return splits or any(name & TAKE_TEXT for name in names)


def _names(word: str) -> frozenset[str]:
    """The name of a program without its folder, and without its version."""
    name = posixpath.basename(word).lower().removesuffix(".exe")
    return frozenset((name, name.rstrip("-.0123456789")))
