"""Alembic's entry: the connection, and with it the transaction, belong to the caller (`storage/revisions.py`)."""

from alembic import context

from cohort.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # on SQLite too: our transactions are begun explicitly, so tables roll back like rows
)
context.run_migrations()
