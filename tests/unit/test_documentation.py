"""What the pages say is there: links lead somewhere, commands exist, every page can be found."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cohort.surfaces.cli.main import command as root
from cohort.surfaces.cli.session import Session

REPOSITORY = Path(__file__).parents[2]
FRONT = [REPOSITORY / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCS = REPOSITORY / "docs"
PAGES = [*FRONT, *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
MACHINE = re.compile(r"/(?:home/(?!you/)|root/|tmp/|Users/|work/)")
ROUTE = re.compile(r"\b(GET|POST|PUT|DELETE) (/(?:api/v1/[\w/{}-]+|status)\b)")
LATER = re.compile(r"\b(?:TODO|FIXME|TBD|XXX)\b")


def named(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """Each link into the repository: as written, the file it means, and the heading behind `#`."""
    for address in LINK.findall(FENCE.sub("", page.read_text())):
        if not re.match(r"[a-z]+:", address):
            path, _, heading = address.partition("#")
            yield address, (page.parent / path).resolve() if path else page, heading


def headings(page: Path) -> set[str]:
    """The headings of a page as their anchors."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in found}


def shown(page: Path) -> set[str]:
    """Every command line of Cohort in the page: in blocks, and in the text between backticks."""
    text = page.read_text()
    blocks = [line for _, block in FENCE.findall(text) for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
    lines = [*blocks, *CODE.findall(FENCE.sub("", text))]
    return {found[1] for line in lines if (found := re.match(r"(?:ExecStart=\S*/|\S*bin/)?(cohort(?: .*)?)$", line.strip()))}


def words_of(line: str) -> list[str]:
    """The words after `cohort`, without the comment and what the shell does with the rest of the line."""
    return shlex.split(re.split(r"\s(?:>|\||;|&&)\s?", line)[0], comments=True)[1:]


def follow(words: list[str]) -> None:
    """Parse the words as `cohort` would, and run nothing; raises click.UsageError."""
    here: click.Command = root
    ctx = click.Context(here, info_name="cohort", obj=Session({}))
    while isinstance(here, click.Group) and words and not words[0].startswith("-"):
        found = here.get_command(ctx, words[0])
        if found is None:
            raise click.UsageError(f"there is no `{words[0]}` in `{ctx.command_path}`")
        here, ctx, words = found, click.Context(found, info_name=words[0], parent=ctx), words[1:]
    here.make_context(here.name, list(words), parent=ctx.parent, obj=Session({}), resilient_parsing=not whole(here, words))


def whole(here: click.Command, words: list[str]) -> bool:
    """Whether a line could be run as it stands; one that only names a command, or holds a `WORD` to be replaced, could not."""
    if isinstance(here, click.Group) or "--help" in words or any(word.isupper() for word in words):
        return False
    return bool(words) or not any(parameter.required for parameter in here.params)


COMMANDS = sorted({(named(page), line) for page in PAGES for line in shown(page) if "[" not in line})


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    broken = [
        address
        for address, target, heading in links(page)
        if not target.exists() or (heading and target.suffix == ".md" and heading not in headings(target))
    ]
    assert broken == []


def test_every_page_can_be_reached_from_the_index() -> None:
    seen: set[Path] = set()
    ahead = [DOCS / "README.md"]
    while ahead:
        page = ahead.pop()
        if page not in seen:
            seen.add(page)
            ahead += [target for _, target, _ in links(page) if target.suffix == ".md" and target.is_relative_to(DOCS) and target.exists()]
    assert sorted(set(DOCS.rglob("*.md")) - seen) == []


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_command_line_shown_is_one_that_cohort_takes(page: str, line: str) -> None:
    follow(words_of(line))


@pytest.mark.parametrize("line", ["cohort release made x.yaml", "cohort rollout start support --to 2 --plan p --fast", "cohort rollback x"])
def test_a_command_line_that_is_none_would_be_found(line: str) -> None:
    with pytest.raises(click.UsageError):
        follow(words_of(line))


def test_commands_are_found_in_blocks_and_in_the_text() -> None:
    assert ("README.md", "cohort rollout watch support") in COMMANDS
    assert len(COMMANDS) > 60


def test_every_route_of_the_api_that_a_page_names_is_there() -> None:
    described = json.loads((DOCS / "reference" / "openapi.json").read_text())["paths"]
    there = [(method.upper(), re.sub(r"\\{.*?\\}", "[^/]+", re.escape(path))) for path, methods in described.items() for method in methods]
    told = {(named(page), *found) for page in PAGES for found in ROUTE.findall(page.read_text())}
    assert len(told) > 80
    assert [each for each in sorted(told) if not any(each[1] == method and re.fullmatch(path, each[2]) for method, path in there)] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_page_names_somebodys_machine_or_work_to_be_done(page: Path) -> None:
    text = page.read_text()
    assert (MACHINE.findall(text), LATER.findall(text)) == ([], [])


def test_no_limit_is_told_twice() -> None:
    rows = re.findall(r"^\| `(\w+)` \| \d", (DOCS / "reference" / "configuration.md").read_text(), re.MULTILINE)
    assert len(rows) > 40
    assert len(rows) == len(set(rows))
