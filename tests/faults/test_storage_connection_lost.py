"""Postgres ends a connection: before the commit nothing is written; at the commit the outcome is unknown; afterwards all goes on."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from cohort.base.errors import CohortError, Retry
from cohort.storage.database import open_database
from cohort.storage.schema import facts


@pytest.fixture
def database(postgres_url):
    opened = open_database(postgres_url)
    yield opened
    opened.close()


def end_connection(postgres, connection) -> None:
    """As the server does when it is restarted, or an administrator."""
    pid = connection.execute(select(func.pg_backend_pid())).scalar_one()
    postgres.execute(f"SELECT pg_terminate_backend({pid}, 5000)")


def test_a_connection_lost_inside_a_transaction_wrote_nothing(database, postgres):
    def lose():
        with database.write() as connection:
            connection.execute(facts.insert().values(name="a", value=1))
            end_connection(postgres, connection)
            connection.execute(facts.insert().values(name="b", value=1))

    with pytest.raises(CohortError) as caught:
        lose()
    assert (caught.value.code, caught.value.retry) == ("DATABASE_UNAVAILABLE", Retry.SAFE)
    with database.read() as connection:
        assert connection.execute(select(facts)).all() == []


def test_a_connection_lost_at_the_commit_is_an_unknown_outcome(database, postgres):
    def lose():
        with database.write() as connection:
            connection.execute(facts.insert().values(name="a", value=1))
            end_connection(postgres, connection)

    with pytest.raises(CohortError) as caught:
        lose()
    assert (caught.value.code, caught.value.retry) == ("OUTCOME_UNKNOWN", Retry.CHECK_FIRST)


def test_a_connection_lost_while_idle_is_replaced_unseen(database, postgres):
    with database.read() as connection:
        pid = connection.execute(select(func.pg_backend_pid())).scalar_one()
    postgres.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
    with database.read() as connection:
        assert connection.execute(select(func.pg_backend_pid())).scalar_one() != pid
