"""Secrets do not pass redaction wherever names, places or forms give them away, and what is none of them is left as it was."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.base.redaction import GONE, holds, text, values, words
from cohort.kernel.actions.shells import is_shell

SECRET = st.text("abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789!$%*+_", min_size=6, max_size=20).map("Zq7".__add__)
NAME = st.sampled_from(
    [
        "password",
        "--password",
        "DB_PASSWORD",
        "TOKEN",
        "GITHUB_TOKEN",
        "--api-key",
        "api_key",
        "AWS_SECRET_ACCESS_KEY",
        "client_secret",
        "--auth-token",
        "--pass",
    ]
)
HEADER = st.sampled_from(
    ["Authorization: Bearer {}", "X-Api-Key: {}", "Authorization: Basic {}", "Cookie: session={}", "PRIVATE-TOKEN: {}"]
)
ADDRESS = st.sampled_from(
    [
        "https://user:{}@host.example/x",
        "https://{}@host.example/",
        "https://h.example/?token={}&x=1",
        "https://h.example/a?x=1&api_key={}",
        "postgres://me:{}@db/x",
    ]
)
FRONT = st.lists(st.sampled_from(["curl", "env", "-v", "python3", "run.py", "x=1"]), min_size=1, max_size=4)


@given(FRONT, NAME, SECRET)
def test_a_value_under_a_telling_name_is_taken_out(front: list[str], name: str, secret: str) -> None:
    for argv in ([*front, f"{name}={secret}"], [*front, "-e", f"{name}={secret} and more"]):
        assert secret not in " ".join(words(argv))
        assert secret not in text(shlex.join(argv))
        assert holds(argv)
    option = f"--{name.lstrip('-')}"
    assert secret not in " ".join(words([*front, option, secret, "behind"]))
    assert words([*front, option, secret, "behind"])[-1] == "behind"
    assert secret not in text(f"{' '.join(front)} {option} {secret}")


@given(FRONT, HEADER, SECRET)
def test_headers_are_taken_out_in_words_and_in_lines(front: list[str], header: str, secret: str) -> None:
    argv = [*front, "-H", header.format(secret)]
    assert secret not in " ".join(words(argv))
    assert secret not in text(shlex.join(argv))


@given(ADDRESS, st.text("abcdefgXYZ234567", min_size=6, max_size=20))
def test_addresses_lose_who_and_what_opens_them_and_keep_where_they_lead(address: str, secret: str) -> None:
    secret = f"Zq{secret}"
    shown = text(address.format(secret))
    assert secret not in shown
    assert shown.startswith(address.partition("://")[0] + "://")
    assert values({"url": address.format(secret), "method": "GET"}) == {"url": shown, "method": "GET"}


@given(
    st.recursive(
        st.text("abc xyz/.-", max_size=8) | st.integers() | st.booleans() | st.none(),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_gives_nothing_away_is_left_as_it_was(value: object) -> None:
    assert values({"what": value, "path": "secret/token=x", "argv": ["ls", "-la", "src/main.py"]}) == {
        "what": value,
        "path": "secret/token=x",
        "argv": ["ls", "-la", "src/main.py"],
    }


@given(SECRET)
def test_nested_values_and_settings_are_looked_into(secret: str) -> None:
    given = {
        "steps": [{"fill": {"password": secret}}],
        "key": "mail.password",
        "value": secret,
        "detail": {"line": f"export TOKEN={secret}"},
    }
    assert secret not in repr(values(given))
    assert values({"key": "mail.host", "value": "h"}) == {"key": "mail.host", "value": "h"}


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["mysql", "-phunter22", "db"], ["mysql", f"-p{GONE}", "db"]),
        (["nice", "/usr/bin/mysql", "-p", "hunter22"], ["nice", "/usr/bin/mysql", "-p", GONE]),
        (["redis-cli", "-a", "hunter22", "ping"], ["redis-cli", "-a", GONE, "ping"]),
        (["curl", "-u", "me:hunter22", "https://x.example"], ["curl", "-u", f"me:{GONE}", "https://x.example"]),
        (["mkdir", "-p", "a/b"], ["mkdir", "-p", "a/b"]),
        (["git", "commit", "-m", "tidy up"], ["git", "commit", "-m", "tidy up"]),
        (["sh", "-c", 'X_TOKEN="a b" run'], ["sh", "-c", f'X_TOKEN="{GONE}" run']),
        (["echo", "sk-abcdefgh12345678"], ["echo", GONE]),
        (["echo", "ghp_0123456789abcdef"], ["echo", GONE]),
        (["echo", "eyJhbGciOi.eyJzdWIi.c2ln"], ["echo", GONE]),
        (["echo", "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----"], ["echo", GONE]),
        (
            ["curl", "https://hooks.example/services/T00/B00/aB3dE6gH9jK2mN5pQ8sT1vW4"],
            ["curl", f"https://hooks.example/services/T00/B00/{GONE}"],
        ),
        (["sha256sum", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],) * 2,
    ],
)
def test_what_people_write(argv: list[str], shown: list[str]) -> None:
    if isinstance(shown, list):
        assert words(argv) == shown


@pytest.mark.parametrize(
    "piece", ["x", "a-", "token", "token ", "--", "-a", "://", "A1a", "a=", "key:", "-----BEGIN ", "pass'", '"', "1", "\u00e9"]
)
def test_what_an_agent_may_write_is_looked_through_in_time(piece: str) -> None:
    """One pattern that looks back and forth would take hours here; the time limit of every test ends it."""
    long = piece * (400_000 // len(piece))
    assert len(text(long)) > 0
    assert len(words([long[:32_768], "--token", long[:32_768]])) == 3
    assert not is_shell({"argv": [long[:32_768] + "x"]})
