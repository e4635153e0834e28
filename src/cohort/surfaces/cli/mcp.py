"""`cohort mcp`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.options import config_options, examples, url_option, with_session
from cohort.surfaces.cli.session import Session

KEY = "COHORT_AGENT_KEY"
KEY_FILE = "COHORT_AGENT_KEY_FILE"
KEY_HINT = f"Set {KEY_FILE} to a file with the key that `cohort agent register` showed, or {KEY} to the key itself."


@click.command("mcp", epilog=examples("COHORT_AGENT_KEY_FILE=scribe.key cohort mcp --agent scribe"))
@click.option(
    "--agent",
    required=True,
    metavar="NAME",
    help="The agent whose tools are served; its key is in COHORT_AGENT_KEY or COHORT_AGENT_KEY_FILE.",
)
@url_option
@config_options
@with_session
def command(session: Session, agent: str) -> int:
    """Serve an agent's tools to an MCP client, over standard input and output.

    For clients that start their servers themselves, such as Claude Code and Cursor. Every call goes to the running control, which decides,
    contains and records it; this process only carries it there, with the agent's own key.
    """
    import anyio

    from cohort.surfaces.cli.api import address
    from cohort.surfaces.mcp.bridge import serve

    anyio.run(partial(serve, address(session), agent, _key(session)))
    return Exit.DONE


def _key(session: Session) -> str:
    """Errors: NOT_SIGNED_IN, FIELD_INVALID, FILE_MISSING."""
    text = session.environment.get(KEY, "").strip()
    path = session.environment.get(KEY_FILE, "")
    if not text and path:
        try:
            text = Path(path).expanduser().read_text(encoding="ascii", errors="replace").strip()
        except OSError as error:
            raise CohortError("FILE_MISSING", f"{path} cannot be read: {error.strerror}", field=KEY_FILE, hint=KEY_HINT) from error
    if not text:
        raise CohortError("NOT_SIGNED_IN", "there is no key of an agent", hint=KEY_HINT)
    if not (text.isascii() and text.isprintable() and text.startswith("ak_")):
        raise CohortError(
            "FIELD_INVALID", "this is not the key of an agent", field=KEY, hint="An agent's key begins with ak_ and is one line."
        )
    return text
