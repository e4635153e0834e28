"""The pages of the gateway against its code, both ways: every header, error, metric and setting is told, and none that is not there."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cohort.base.settings import OVERRIDES
from cohort.base.settings_file import ControlFile, DatabaseFile, GatewayFile, KernelFile
from cohort.gateway.settings import Limits

REPOSITORY = Path(__file__).parents[2]
REFERENCE = REPOSITORY / "docs" / "reference"
SOURCE = REPOSITORY / "src" / "cohort"
GATEWAY = sorted((SOURCE / "gateway").rglob("*.py"))
WORD = re.compile(r"[a-z]+(?:_[a-z]+)+")
TOLD = re.compile(r"`([^`\n]+)`")
METRIC = re.compile(r"\b(?:cohort|gen_ai)_[a-z_]+\b")
KINDS = {"invalid_request_error", "server_error", "upstream_error", "rate_limit_error", "authentication_error", "permission_error"}
"""Types of errors, as OpenAI has them; beside the code."""


def page(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text()


def section(text: str, heading: str) -> str:
    """From one heading to the next of its rank or above."""
    rank = heading.split(" ")[0]
    found = text.partition(f"\n{heading}\n")[2]
    assert found, heading
    return re.split(rf"^#{{1,{len(rank)}}} ", found, maxsplit=1, flags=re.MULTILINE)[0]


def column(text: str, number: int) -> set[str]:
    """What stands between backticks in one column of the tables."""
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {word for row in rows if len(row) > number for word in TOLD.findall(row[number])}


def trees() -> Iterator[ast.AST]:
    for path in GATEWAY:
        yield from ast.walk(ast.parse(path.read_text()))


def constants(nodes: list[ast.expr]) -> list[object]:
    return [node.value for node in nodes if isinstance(node, ast.Constant)]


def error_codes() -> set[str]:
    """A code stands beside a status, in a call or a tuple, or is the last word of a stream."""
    found: set[str] = set()
    for node in trees():
        if isinstance(node, ast.Call):
            beside = constants([*node.args, *(word.value for word in node.keywords if word.arg == "code")])
            streams = isinstance(node.func, ast.Attribute) and node.func.attr == "stream_error"
        elif isinstance(node, ast.Tuple):
            beside, streams = constants(node.elts), False
        else:
            continue
        if streams or any(type(value) is int and 400 <= value < 600 for value in beside):
            found |= set([value for value in beside if isinstance(value, str) and WORD.fullmatch(value)][:1])  # behind it: the field
    return found - KINDS


def every_text() -> set[str]:
    return {node.value for node in trees() if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_every_error_code_is_told_and_every_one_told_is_said() -> None:
    text = page("gateway")
    told, raised = column(section(text, "### Errors"), 1), error_codes()
    codes = {word for word in told if WORD.fullmatch(word)} | {"upstream_stream_interrupted"}
    assert len(raised) > 40
    assert raised - set(TOLD.findall(text)) - {word for word in raised if f'"{word}"' in text} == set()
    assert codes - every_text() - {"upstream_error"} == set()


def test_every_header_of_ours_is_told_and_every_one_told_is_there() -> None:
    ours = re.compile(r"x-cohort-[a-z]+(?:-[a-z]+)*")
    used = {header for path in GATEWAY for header in ours.findall(path.read_text().lower())}
    text = page("gateway")
    told = column(section(text, "### Request headers"), 0) | column(section(text, "### Response headers"), 0)
    assert {header.lower() for header in told if header.lower().startswith("x-cohort-")} == used


@pytest.mark.parametrize("heading", ["### Request headers", "### Response headers"])
def test_every_other_header_told_is_read_or_written(heading: str) -> None:
    source = "".join(path.read_text().lower() for path in GATEWAY)
    told = {re.split(r"[:\s]", header.lower())[0] for header in column(section(page("gateway"), heading), 0)}
    assert {header for header in told if f'"{header}' not in source and f"{header}:" not in source} == set()


def test_every_header_that_is_read_or_passed_on_is_told() -> None:
    read = set(re.findall(r'headers(?:\.get\(|\[)b"([a-z-]+)"', "".join(path.read_text() for path in GATEWAY)))
    pages = " ".join(page(name).lower() for name in ("gateway", "gateway-clients", "caches", "reliability"))
    assert len(read) > 8
    assert {header for header in read if f"`{header}" not in pages} - FRAMING == set()


FRAMING = {"content-length", "transfer-encoding", "expect", "content-type", "host"}
"""HTTP's own, of which `What is refused` and the errors speak."""


def metrics_of(paths: list[Path], prefix: str) -> set[str]:
    texts = [node.value for path in paths for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    return {text for text in texts if isinstance(text, str) and re.fullmatch(prefix + "[a-z_]+", text)}


def test_every_metric_of_the_gateway_is_told_and_every_one_told_is_there() -> None:
    there = metrics_of(GATEWAY, "cohort_gateway_") | metrics_of(GATEWAY, "gen_ai_client_")
    told = {name for path in REFERENCE.glob("*.md") for text in TOLD.findall(path.read_text()) for name in METRIC.findall(text)}
    assert len(there) > 30
    assert {name for name in told if name.startswith(("cohort_gateway_", "gen_ai_client_"))} == there


def test_every_limit_is_told_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| ([0-9.]+) \|", page("configuration"), re.MULTILINE))
    assert rows == {limit.name: str(limit.default) for limit in dataclasses.fields(Limits)}


@pytest.mark.parametrize(
    ("part", "shape"), [("gateway", GatewayFile), ("control", ControlFile), ("database", DatabaseFile), ("kernel", KernelFile)]
)
def test_every_setting_is_told_and_every_one_told_is_taken(part: str, shape: type[GatewayFile]) -> None:
    told = [name for name in column(page("configuration"), 0) if name.startswith(f"{part}.") and not name.endswith(".log")]
    assert {name.partition(".")[2] for name in told} == set(shape.model_fields)


def test_every_variable_is_told_and_every_one_told_is_read() -> None:
    source = "".join(path.read_text() for path in [*SOURCE.rglob("*.py"), *(REPOSITORY / "scripts").iterdir()])
    pages = "".join(
        path.read_text() for path in [*(REPOSITORY / "docs").rglob("*.md"), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
    )
    there, told = (set(re.findall(r"\bCOHORT_[A-Z]+(?:_[A-Z]+)*\b", text)) for text in (source, pages))
    assert (there | set(OVERRIDES)) - told - {"COHORT_LISTEN_FD", "COHORT_COMPLETE"} == set()  # between processes of ours, and the shell's
    assert told - there - set(OVERRIDES) == set()
