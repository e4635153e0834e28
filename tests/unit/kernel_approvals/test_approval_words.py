"""The words approvers read: right for each operation, and never what an agent wrote as it is."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.kernel.approvals.plain import _WORDS, TEXT_CHARS_MAX, describe, quoted, shown
from support_approvals import WORKSPACE, action

FILE = f"{WORKSPACE}/src/app.py"
ORIGIN = "https://api.example:443"


@pytest.mark.parametrize(
    ("about", "text", "touches"),
    [
        (
            action(argv=["git", "push", "origin", "main"], network=True),
            "Run `git push origin main` in the workspace of agent `builder`",
            ("can change anything in the workspace of agent `builder`", "reaches the origins on the agent's allow-list"),
        ),
        (
            action(argv=["rm", "-rf", "a b; c"], cwd="src"),
            "Run `rm -rf 'a b; c'` in folder `src` of the workspace of agent `builder`",
            ("can change anything in the workspace of agent `builder`", "no network"),
        ),
        (
            action(argv=[], shell="ls | wc -l", stdin="x", env={"B": "1", "A": "2"}),
            "Run `ls | wc -l` in the workspace of agent `builder`, through a shell",
            (
                "can change anything in the workspace of agent `builder`",
                "no network",
                "is fed 1 bytes, SHA-256 2d711642b726",
                "variables: `A`, `B`",
            ),
        ),
        (
            action("process.start", "node", argv=["node", "server.js"]),
            "Start `node server.js` in the workspace of agent `builder` and leave it running",
            ("can change anything in the workspace of agent `builder`", "no network"),
        ),
        (
            action("python.run", "python", code="print(1)\nprint(2)"),
            "Run a Python program of 2 lines, which begins with `print(1)`, in the workspace of agent `builder`",
            (
                "the program: 17 bytes, SHA-256 22a5a25d40ba",
                "can change anything in the workspace of agent `builder`",
                "no network",
            ),
        ),
        (action("files.read", FILE, path="src/app.py"), "Read `src/app.py` in the workspace of agent `builder`", ("reads `src/app.py`",)),
        (action("files.list", f"{WORKSPACE}/"), "List the whole folder in the workspace of agent `builder`", ("reads the whole folder",)),
        (
            action("files.search", f"{WORKSPACE}/src", text="key"),
            "Search in `src` for `key` in the workspace of agent `builder`",
            ("reads `src`",),
        ),
        (
            action("files.read", "ws_other/key.pem"),
            "Read `key.pem` in workspace `ws_other`, which is not agent `builder`'s own",
            ("reads `key.pem`",),
        ),
        (
            action("files.write", FILE, content="x" * 9, mode="replace"),
            "Write `src/app.py` in the workspace of agent `builder` (9 bytes, SHA-256 a73add1aecea)",
            ("replaces `src/app.py`",),
        ),
        (
            action("files.write", FILE, content="", mode="append"),
            "Append to `src/app.py` in the workspace of agent `builder` (0 bytes, SHA-256 e3b0c44298fc)",
            ("grows `src/app.py`",),
        ),
        (
            action("files.delete", f"{WORKSPACE}/src", recursive=True),
            "Delete `src` and everything in it in the workspace of agent `builder`",
            ("deletes `src` and everything in it",),
        ),
        (
            action("files.move", FILE, to="b.py"),
            "Move `src/app.py` to `b.py` in the workspace of agent `builder`",
            ("removes `src/app.py`", "replaces `b.py` if it is there"),
        ),
        (action("files.mkdir", FILE), "Make the folder `src/app.py` in the workspace of agent `builder`", ("adds `src/app.py`",)),
        (
            action("process.signal", "pr_1", signal="KILL"),
            "Send signal `KILL` to process `pr_1` of agent `builder`",
            ("process `pr_1`",),
        ),
        (
            action("http.request", ORIGIN, url="https://api.example/v1", method="POST", body="{}", headers={"Accept": "x"}),
            "Send POST `https://api.example/v1` for agent `builder`",
            ("reaches `https://api.example:443`", "sends 2 bytes, SHA-256 44136fa355b3 to it", "headers: `Accept`"),
        ),
        (
            action("network.webhook", ORIGIN, url="https://api.example/h", payload={"b": 1, "a": 2}),
            "Post to the webhook `https://api.example/h` for agent `builder`",
            ("reaches `https://api.example:443`", "sends 13 bytes, SHA-256 d3626ac30a87 to it"),
        ),
        (
            action("database.write", "orders", statement="DELETE FROM orders"),
            "Change the database `orders` with `DELETE FROM orders` for agent `builder`",
            ("database `orders`",),
        ),
        (
            action("mobile.act", "phone", device="phone", kind="pay", detail={"eur": 5}),
            "Do `pay` on the device `phone` for agent `builder`",
            ('detail: `{"eur":5}`', "device: `phone`", "kind: `pay`"),
        ),
        (
            action("config.change", "flags.x", key="flags.x", value=True),
            "Change the setting `flags.x` to `true` for agent `builder`",
            ("setting `flags.x`",),
        ),
        (
            action("something.new", "thing", depth=3),
            "Do `something.new` on `thing` for agent `builder`",
            ("depth: `3`",),
        ),
    ],
    ids=lambda value: value.operation if hasattr(value, "operation") else None,
)
def test_an_action_in_plain_words(about, text, touches):
    plain = describe(about, "builder", WORKSPACE)
    assert (plain.text, plain.touches) == (text, touches)


def test_a_reader_is_warned_of_what_cannot_be_seen():
    plain = describe(action("http.request", "https://аpple.example:443"), "builder")
    assert plain.touches[-1].startswith("beware: it holds letters outside ASCII")
    long = describe(action(argv=["echo", "x" * 700, "; rm -rf /"]), "builder")
    assert long.touches[-1].startswith("beware: parts of it are too long")
    assert "in all]" in long.text


def test_text_cannot_hide_reorder_or_end_the_quotation():
    assert shown("a\u202eb\x1b[2J\n\t\u200b\ufeff\u2028", 200) == "a<U+202E>b<U+001B>[2J<U+000A><U+0009><U+200B><U+FEFF><U+2028>"
    assert quoted("`; rm -rf / `") == "`<U+0060>; rm -rf / <U+0060>`"
    assert shown("e\u0301\u0301\u0301", 200) == "e\u0301\u0301<U+0301>"
    assert shown("a\u00a0b\u3164", 200) == "a<U+00A0>b<U+3164>"
    assert shown("x" * 50, 40) == "xxxxxxxxxxxx [cut; 50 characters in all]"


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
COMMAND = ["argv", "shell", "cwd", "env", "stdin", "network", "code"]
OTHER = ["path", "to", "content", "mode", "recursive", "url", "method", "headers", "body", "payload", "text", "signal", "key", "value"]
names = st.sampled_from([*COMMAND, *OTHER])
operations = st.sampled_from([*_WORDS, "memory.read", "unheard.of"])


@given(operations, st.text(), st.dictionaries(names | st.text(), anything, max_size=4), st.text())
def test_no_arguments_make_words_that_deceive_or_fail(operation, resource, arguments, agent):
    plain = describe(action(operation, resource, **{"argv": ["x"], **arguments}), agent, WORKSPACE)
    for text in (plain.text, *plain.touches):
        assert 0 < len(text) <= TEXT_CHARS_MAX
        assert not [character for character in text if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@given(st.text(), st.integers(30, 200))
def test_shown_text_fits_is_visible_and_stays_as_it_is(text, most):
    once = shown(text, most)
    assert len(once) <= most
    assert once.isprintable()
    assert shown(once, most) == once
