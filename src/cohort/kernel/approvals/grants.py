"""How far an answer reaches: the terms a person signs, the rule they become, and which actions that rule covers.

A rule is never wider than what its approver was shown. Whatever the terms do not name stays as it was in the action shown: every argument
but those that `VARIES` lists is part of the rule by its digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cohort.base import redaction
from cohort.base.canonical import canonical_json, sha256_hex
from cohort.base.errors import CohortError
from cohort.base.ids import GrantRuleId
from cohort.kernel.approvals.limits import ARGV_PREFIX_MAX, USES_MAX, ApprovalLimits
from cohort.kernel.approvals.plain import quoted, without_credentials
from cohort.kernel.face import Sign
from cohort.kernel.model import Action, Approval, GrantRule, GrantScope
from cohort.kernel.scopes import RESOURCE_CHARS_MAX, covers

VARIES: Mapping[str, frozenset[str]] = {
    "files.read": frozenset({"path", "offset", "limit", "encoding"}),
    "files.list": frozenset({"path", "limit"}),
    "files.stat": frozenset({"path"}),
    "files.search": frozenset({"path", "text", "limit"}),
    "files.write": frozenset({"path", "content", "encoding"}),
    "files.mkdir": frozenset({"path"}),
    "files.delete": frozenset({"path"}),
}
"""Arguments that a rule with a pattern lets differ from the action shown; of every other operation none."""
COMMANDS = frozenset({"terminal.run", "process.start"})
"""Operations whose rules may be bound by the first words of the command."""
_SHELLS = {"sh", "bash", "rbash", "dash", "ash", "zsh", "ksh", "mksh", "csh", "tcsh", "fish", "busybox", "toybox"}
_LANGUAGES = {
    "python",
    "pypy",
    "perl",
    "ruby",
    "node",
    "nodejs",
    "deno",
    "bun",
    "php",
    "lua",
    "luajit",
    "tclsh",
    "awk",
    "gawk",
    "mawk",
    "nawk",
    "make",
}
_LAUNCHERS = {
    "env",
    "xargs",
    "parallel",
    "sudo",
    "doas",
    "su",
    "runuser",
    "setpriv",
    "chroot",
    "unshare",
    "nsenter",
    "bwrap",
    "nice",
    "ionice",
    "chrt",
}
_LAUNCHERS |= {
    "nohup",
    "setsid",
    "stdbuf",
    "timeout",
    "time",
    "watch",
    "script",
    "strace",
    "gdb",
    "find",
    "ssh",
    "eval",
    "exec",
    "npx",
    "uvx",
    "uv",
}
INTERPRETERS = frozenset(_SHELLS | _LANGUAGES | _LAUNCHERS)
"""Programs that run what they are given: their first words say nothing about what happens."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What one person agreed to. `argv_prefix` is empty where the command is the one shown."""

    grant: GrantScope
    resource: str
    argv_prefix: tuple[str, ...]
    life_us: int
    uses: int | None


def terms_of(approval: Approval, sign: Sign, limits: ApprovalLimits) -> Terms:
    """What `sign` agrees to about `approval`.

    Raises:
        CohortError FIELD_INVALID: wider than the action shown, or beyond a limit.
    """
    action = approval.action
    if sign.grant is GrantScope.ONCE:
        if (sign.resource, sign.argv_prefix, sign.uses) != (None, None, None):
            raise _wrong("grant", "a pattern or a number of uses with an approval of one action", "Choose task, session or standing.")
        return Terms(GrantScope.ONCE, action.resource, (), limits.unused_us, None)
    if sign.grant is GrantScope.TASK and approval.task is None:
        raise _wrong("grant", f"{approval.id} belongs to no task", "Choose once, session or standing.")
    resource = _checked_resource(action, sign.resource)
    return Terms(sign.grant, resource, _checked_prefix(action, sign.argv_prefix), _checked_life(sign, limits), _checked_uses(sign.uses))


def agreed(terms: Sequence[Terms]) -> Terms:
    """What several approvers agreed to together: their common terms where they are the same, and once where they differ."""
    first = terms[0]
    life_us = min(each.life_us for each in terms)
    uses = min((each.uses for each in terms if each.uses is not None), default=None)
    same = {(each.grant, each.resource, each.argv_prefix) for each in terms}
    if len(same) > 1 or first.grant is GrantScope.ONCE:
        return Terms(GrantScope.ONCE, first.resource, (), life_us, None)
    return Terms(first.grant, first.resource, first.argv_prefix, life_us, uses)


def rule_of(rule_id: GrantRuleId, approval: Approval, terms: Terms, created_by: str, now_us: int) -> GrantRule | None:
    """The rule that wider terms leave behind; None for a single approval. The action it was made for is one of its uses."""
    if terms.grant is GrantScope.ONCE:
        return None
    action = approval.action
    return GrantRule(
        id=rule_id,
        grant=terms.grant,
        agent=action.agent,
        operation=action.operation,
        resource=terms.resource,
        argv_prefix=terms.argv_prefix,
        session=action.session if terms.grant is GrantScope.SESSION else None,
        task=approval.task if terms.grant is GrantScope.TASK else None,
        uses_left=None if terms.uses is None else terms.uses - 1,
        expires_us=now_us + terms.life_us,
        created_by=created_by,
        created_us=now_us,
        plain=in_words(without_credentials(approval), terms, now_us),
        fixed=fixed_digest(action, terms.argv_prefix),
    )


def matches(rule: GrantRule, action: Action, task: str | None, now_us: int) -> bool:
    """Whether `rule` covers `action`. Uses are counted where it is used up."""
    return (
        rule.revoked_us is None
        and rule.expires_us > now_us
        and rule.uses_left != 0
        and rule.agent == action.agent
        and rule.operation == action.operation
        and _within(rule, action, task)
        and covers(rule.resource, action.resource)
        and _begins(rule.argv_prefix, action)
        and rule.fixed == fixed_digest(action, rule.argv_prefix)
    )


def fixed_digest(action: Action, argv_prefix: tuple[str, ...]) -> str:
    """Of the arguments that a rule made from `action` does not let vary."""
    free = VARIES.get(action.operation, frozenset()) | ({"argv"} if argv_prefix else set())
    kept = {name: value for name, value in action.arguments.items() if name not in free}
    return sha256_hex(canonical_json({"schema_version": action.schema_version, "arguments": kept}))


def in_words(approval: Approval, terms: Terms, now_us: int) -> str:
    """The terms as the approver reads them, before and after signing."""
    action = approval.action
    if terms.grant is GrantScope.ONCE:
        return f"{approval.plain}. Once."
    where = {
        GrantScope.TASK: f"in task {quoted(approval.task or '')}",
        GrantScope.SESSION: "in this session",
        GrantScope.STANDING: "in every session",
    }[terms.grant]
    until = datetime.fromtimestamp((now_us + terms.life_us) // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    often = "as often as it asks" if terms.uses is None else f"{terms.uses} times, this one included"
    return f"{_subject(action, terms, approval.plain)}. Without asking again, {where}, until {until}, {often}."


def _subject(action: Action, terms: Terms, plain: str) -> str:
    if terms.argv_prefix:
        return f"{action.operation}: any command that begins with {quoted(' '.join(terms.argv_prefix))}, whatever follows"
    if action.operation in VARIES:
        return f"{action.operation} on {quoted(terms.resource)}, whatever the contents"
    return plain


def _within(rule: GrantRule, action: Action, task: str | None) -> bool:
    if rule.grant is GrantScope.TASK:
        return rule.task is not None and rule.task == task
    if rule.grant is GrantScope.SESSION:
        return rule.session is not None and rule.session == action.session
    return rule.grant is GrantScope.STANDING


def _begins(prefix: tuple[str, ...], action: Action) -> bool:
    if not prefix:
        return True
    argv = _argv(action)
    return argv[: len(prefix)] == prefix


def _argv(action: Action) -> tuple[str, ...]:
    argv = action.arguments.get("argv")
    return tuple(argv) if isinstance(argv, list | tuple) and all(isinstance(word, str) for word in argv) else ()


def _checked_resource(action: Action, pattern: str | None) -> str:
    if pattern is None or pattern == action.resource:
        return action.resource
    whole = pattern.endswith("/**") and len(pattern) > 3 and "*" not in pattern[:-3]
    if len(pattern) > RESOURCE_CHARS_MAX or not pattern.isprintable() or not whole or action.operation not in VARIES:
        what = f"{pattern[:100]!r} cannot be approved for {action.operation}"
        raise _wrong("resource", what, "Leave the resource out, or for files name a folder of the workspace, `WORKSPACE/folder/**`.")
    if not covers(pattern, action.resource):
        raise _wrong("resource", f"{pattern[:100]!r} does not cover {action.resource[:100]!r}", "Name a folder above the file shown.")
    return pattern


def _checked_prefix(action: Action, prefix: tuple[str, ...] | None) -> tuple[str, ...]:
    if prefix is None:
        return ()
    argv = _argv(action)
    if action.operation not in COMMANDS or not prefix or len(prefix) > ARGV_PREFIX_MAX or argv[: len(prefix)] != prefix:
        raise _wrong("argv_prefix", "not the first words of the command shown", "Give its first words, or leave them out.")
    if action.arguments.get("shell") or _program(argv[0]) in INTERPRETERS:
        what = f"{argv[0][:100]!r} runs what it is given; its first words say nothing about what happens"
        raise _wrong("argv_prefix", what, "Approve this very command.")
    if redaction.holds(prefix):
        raise _wrong(
            "argv_prefix", "what looks like a credential is among its first words", "Give fewer words, or approve this very command."
        )
    if action.arguments.get("network"):
        what = "with a way out to the network, what follows its first words decides what leaves"
        raise _wrong("argv_prefix", what, "Approve this very command.")
    return prefix


def _program(word: str) -> str:
    name = word.rpartition("/")[2]
    return name.rstrip("0123456789.") or name


def _checked_life(sign: Sign, limits: ApprovalLimits) -> int:
    standing = sign.grant is GrantScope.STANDING
    usual_us, most_us = (limits.standing_us, limits.standing_us_max) if standing else (limits.rule_us, limits.rule_us_max)
    if sign.life_s is None:
        return usual_us
    if not 0 < sign.life_s * 1e6 <= most_us:
        raise _wrong("life_s", f"a life of {sign.life_s} s", f"Give more than 0 and at most {most_us // 1_000_000} s.")
    return int(sign.life_s * 1e6)


def _checked_uses(uses: int | None) -> int | None:
    if uses is not None and not 2 <= uses <= USES_MAX:
        raise _wrong("uses", f"{uses} uses", f"Give 2 to {USES_MAX}, or approve once.")
    return uses


def _wrong(field: str, what: str, hint: str) -> CohortError:
    return CohortError("FIELD_INVALID", what, field=field, hint=hint)
