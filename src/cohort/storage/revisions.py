"""Which revision a database is at, and how it gets to this version's. Alembic is imported only when there is something to do."""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

from cohort.base.errors import CohortError
from cohort.storage.schema import metadata

REVISIONS = ("0001_house", "0002_kernel", "0003_flags", "0004_gateway", "0005_routing", "0006_cached", "0007_traces", "0008_cached_calls")
"""Oldest first. A test holds them to the files under `migrations/versions/`."""
HEAD = REVISIONS[-1]


def stored(connection: Connection, shown: str) -> str | None:
    """The revision of this database; None when it is empty.

    Raises:
        CohortError DATABASE_NEWER: a revision this version does not know.
        CohortError CONFIG_INVALID: it holds tables that are not ours.
    """
    names = set(inspect(connection).get_table_names())
    if "alembic_version" not in names:
        _refuse_strangers(names, shown)
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    if len(found) == 1 and found[0] in REVISIONS:
        return str(found[0])
    raise CohortError(
        "DATABASE_NEWER",
        f"{shown} is at revision {', '.join(found) or 'none'}; this version of Cohort knows {', '.join(REVISIONS)}",
        hint="Install the version of Cohort that wrote it or a newer one, or restore a backup made before that upgrade.",
    )


def upgrade(connection: Connection) -> None:
    """Run the missing migrations inside the transaction of `connection`."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "cohort.storage:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)


def _refuse_strangers(names: set[str], shown: str) -> None:
    taken = names & set(metadata.tables)
    if taken:
        raise CohortError(
            "CONFIG_INVALID",
            f"{shown} already has tables that Cohort did not make: {', '.join(sorted(taken))}",
            field="database.url",
            hint="Give Cohort a database of its own.",
        )
