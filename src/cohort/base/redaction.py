"""Credentials taken out of what is written down. Pure. What a name, a place or a form gives away as one is replaced; the rest stays as it is.

It looks for options and variables with telling names, user names in addresses, query values, headers, and the forms of well-known keys. It
takes out too much rather than too little: the digest beside a record still binds the exact action. A secret that looks like nothing, in a
place that says nothing, is not found.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

GONE = "[redacted]"
KEPT = frozenset({"path", "to", "workspace", "process", "operation"})
"""Arguments that name a place, and are needed to check a record against the scope that covered it."""

_NAME = r"pass(?:word|wd|phrase|code|_|-|$)|passwd|_pass|pwd|secret|token|api[-_]?key|access[-_]?key|auth|cred|cookie|session|signature|bearer|jwt"
_TELLING = re.compile(rf"(?i){_NAME}|(?:^|[-_.])(?:key|sig|pass|otp|pat)$")
_SCHEME = r"(?:(?:bearer|basic|token|digest|negotiate)\s+)?"
_PAIR = re.compile(
    rf"(?i)(?P<name>(?:{_NAME}|(?<![a-z])key|(?<![a-z])sig|(?<![a-z])pass)[\w.-]{{0,80}})"
    rf"(?P<between>[\"']?\s{{0,8}}[:=]\s{{0,8}}{_SCHEME})(?P<value>\"[^\"]*\"?|'[^']*'?|[^\s\"'&;,)}}]+)"
)
_OPTION = re.compile(
    rf"(?i)(?P<name>(?<![\w-])--?[\w.-]{{0,80}}?(?:{_NAME}|(?<![a-z])key|(?<![a-z])pass)[\w.-]{{0,80}})"
    r"(?P<between>\s{1,8})(?P<value>\"[^\"]*\"?|'[^']*'?|[^\s\"']+)"
)
_USER = re.compile(r"(?<=://)[^/\s@\"'?#]+@")
_FORMS = re.compile(
    r"\b(?:sk-|pk_|rk_|sk_|gh[opsur]_|github_pat_|glpat-|xox[abeprs]-|AKIA|ASIA|AIza|npm_|hf_|dop_v1_|SG\.|ck_|ak_|rt_|eyJ)[A-Za-z0-9_.-]{8,}"
    r"|(?<![\w+=-])(?=[\w+=-]*[a-z])(?=[\w+=-]*[A-Z])(?=[\w+=-]*[0-9])[A-Za-z0-9_+=-]{24,}"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|$)",
    re.DOTALL,
)
"""Every pattern looks at each character a bounded number of times: what it reads was written by an agent, and may be long."""
_ASSIGNED = re.compile(r"(?s)(?P<name>-{0,2}[\w.-]+)(?P<between>=|:\s*)(?P<value>.+)")
_LINE = re.compile(r"-[a-z]*c")
"""The option of a shell whose word is a whole line."""
_USERS = frozenset({"-u", "--user", "-U", "--proxy-user"})
_SHORT = {
    "-p": frozenset(
        {"mysql", "mysqldump", "mysqladmin", "mariadb", "mariadb-dump", "sshpass", "mongo", "mongosh", "mongodump", "7z", "unrar"}
    ),
    "-a": frozenset({"redis-cli"}),
    "-P": frozenset({"zip", "unzip"}),
}
"""Short options that carry a password, by program."""


def text(value: str) -> str:
    """Running text or a shell line."""
    value = _USER.sub(f"{GONE}@", value)
    for pattern in (_PAIR, _OPTION):
        value = pattern.sub(lambda found: f"{found['name']}{found['between']}{_quoted_like(found['value'])}", value)
    return _FORMS.sub(GONE, value)


def words(argv: Sequence[str]) -> list[str]:
    """A command line, word by word."""
    found: list[str] = []
    before = ""
    short = frozenset().union(*({option} for option, programs in _SHORT.items() if {posixpath.basename(word) for word in argv} & programs))
    for word in argv:
        found.append(_word(word, before, short))
        before = word
    return found


def values(given: Mapping[str, Any], left: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Arguments or results: every text in them, whatever its depth. `left`: names that are not looked at, beside those of places."""
    telling = _telling(str(given.get("key", "")))
    same = KEPT | left
    return {name: item if name in same else _value(name, item, telling and name == "value") for name, item in given.items()}


def holds(argv: Sequence[str]) -> bool:
    """Whether there is anything to take out of a command line."""
    return words(argv) != list(argv)


def _value(name: str, item: Any, hidden: bool) -> Any:
    if isinstance(item, Mapping):
        return values(item)
    if isinstance(item, list | tuple):
        if name == "argv" and all(isinstance(word, str) for word in item):
            return words(item)
        return [_value(name, inner, hidden) for inner in item]
    if isinstance(item, str):
        return GONE if item and (hidden or (_telling(name) and name != "key")) else text(item)
    return GONE if hidden or (_telling(name) and not isinstance(item, bool | None)) else item


def _word(word: str, before: str, short: frozenset[str]) -> str:
    if before in short or (_option(before) and _telling(before) and not word.startswith("--")):
        return GONE
    if word[:2] in short and len(word) > 2:
        return word[:2] + GONE
    if before in _USERS and ":" in word:
        return f"{word.partition(':')[0]}:{GONE}"
    if _LINE.fullmatch(before):
        return text(word)
    assigned = _ASSIGNED.fullmatch(word)
    if assigned is not None and _telling(assigned["name"]) and "://" not in assigned["name"] + assigned["between"] + assigned["value"][:2]:
        return f"{assigned['name']}{assigned['between']}{GONE}"
    return text(word)


def _option(word: str) -> bool:
    return word.startswith("-") and "=" not in word


def _telling(name: str) -> bool:
    return _TELLING.search(name) is not None


def _quoted_like(value: str) -> str:
    quote = value[:1] if value[:1] in ("'", '"') else ""
    return f"{quote}{GONE}{quote}"
