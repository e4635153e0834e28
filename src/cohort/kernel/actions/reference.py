"""The page docs/reference/actions.md, written from the catalogue: `python -m cohort.kernel.actions.reference`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from cohort.kernel.actions.catalogue import ROWS, Asks, Row
from cohort.kernel.model import Risk

TOP = """# Actions

Everything an agent can ask the kernel to do. An operation that is not listed is refused. This page is written from the catalogue
(`python -m cohort.kernel.actions.reference`). How an action is decided: [the action gate](../explanation/the-action-gate.md); how to forbid, ask or
permit more: [policy](policy.md).

The scope is what the token has to hold for the resource. The risk is from 0 to 1 (`low` to 0.3, `medium` to 0.6, `high` to 0.8, `critical` above) in the
agent's own workspace and, where it differs, elsewhere or for an origin that is not on the agent's list. *Asks* is when a person is asked by default; the
autonomy asks besides when the risk is above what it allows (0.2, 0.5, 0.8). *Reads* is what the session is marked with: once it has read both
untrusted and private things, whatever sends something out asks.
"""
MEANINGS = {
    Asks.NEVER: "not by the table",
    Asks.ELSEWHERE: "outside the own workspace",
    Asks.POLICY: "as policy and autonomy say",
    Asks.NEW: "an origin not on the list",
    Asks.CRITICAL: "when its risk is critical",
    Asks.ALWAYS: "always",
}
BOTTOM = """
Three rows change with their arguments. `http.request`: the risk above is of GET and HEAD; another method is 0.5 to a listed origin and 0.7 to a new one.
`mobile.act`: delete, pay and send are 0.9, critical. `files.move`: both paths need the scope, and the worse of the two policies counts.

`files.search` ends at its limits (places, files, bytes, 5 s) and says `complete: false` then; `skipped` counts files that are
binary or too large. What commands write is cut at the agent's limit and at 1 MiB;
control sequences are taken out, and characters that hide or reorder text are shown as their code point. `files.read` gives the exact content.

## Answers

| Outcome | Means |
| --- | --- |
| `done` | It was executed. A command that exited with 1 is done: see `exit_code`. |
| `failed` | It was allowed and could not be carried out, or not to the end; `code` says why. |
| `refused` | It was not executed; `code` and `reason` say what refused it. |
| `waiting` | A person has to approve it. Ask for the very same action again afterwards, or with `wait_s` (up to 300) from the start. |
| `unknown` | It may have been executed. Look before asking again. |

## Idempotency keys

A request may carry a key of 1 to 128 printable characters. The same key of the same session with the same action gives the former answer for 24
hours and executes nothing; with another action it is `IDEMPOTENCY_MISMATCH`. A key whose action began and did not end is answered `OUTCOME_UNKNOWN`:
the gate cannot know whether a second execution would be one too many. A result over 64 KiB is not kept, only that it was done; what is given once,
such as a delegated token, is never kept.
"""


def page() -> str:
    return "\n".join([TOP, *_table(), *_arguments(), BOTTOM.strip("\n")]) + "\n"


def _table() -> Iterator[str]:
    yield "| Operation | Scope | Risk | Asks | Reads | Hints | What it does |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in ROWS.values():
        yield f"| `{row.name}` | `{row.scope}` | {_risk(row)} | {_asks(row)} | {_reads(row)} | {_hints(row)} | {row.summary} |"
    yield ""


def _risk(row: Row) -> str:
    own = f"{row.risk} {Risk.of(row.risk).value}"
    return own if row.risk == row.risk_elsewhere else f"{own}, {row.risk_elsewhere} {Risk.of(row.risk_elsewhere).value}"


def _asks(row: Row) -> str:
    classes = ", ".join(sorted(name.value for name in row.classes))
    return f"{MEANINGS[row.asks]} (`{classes}`)" if classes else MEANINGS[row.asks]


def _reads(row: Row) -> str:
    return ", ".join(name for name, marked in (("untrusted", row.untrusted), ("private", row.private)) if marked)


def _hints(row: Row) -> str:
    return ", ".join(name for name, holds in (("read-only", row.read_only), ("destructive", row.destructive)) if holds)


def _arguments() -> Iterator[str]:
    yield "## Arguments"
    yield ""
    yield "An argument that is not listed is refused by name. Required ones are in bold."
    yield ""
    for row in ROWS.values():
        yield f"### `{row.name}`"
        yield ""
        properties: Mapping[str, Any] = row.arguments["properties"]
        if not properties:
            yield "None."
        else:
            yield "| Argument | Type | Default | Meaning |"
            yield "| --- | --- | --- | --- |"
            for name, schema in properties.items():
                shown = f"**`{name}`**" if name in row.arguments["required"] else f"`{name}`"
                yield f"| {shown} | {_type(schema)} | {_default(schema)} | {schema.get('description', '')} |"
        yield ""


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "any value")
    limits = [f"up to {schema[name]:,} {unit}" for name, unit in (("maxLength", "characters"), ("maxItems", "entries")) if name in schema]
    if "minimum" in schema:
        limits.append(f"{schema['minimum']:,} to {schema['maximum']:,}")
    return ", ".join([kind, *limits])


def _default(schema: Mapping[str, Any]) -> str:
    if "default" not in schema:
        return ""
    value = schema["default"]
    return "empty" if value in ("", {}, []) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    sys.stdout.write(page())
