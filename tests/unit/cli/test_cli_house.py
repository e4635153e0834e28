"""The command line itself: help, usage, lazy imports, completion, init, and commands without anything running."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cohort.base.errors import Exit
from cohort.surfaces.cli.api import parse_events
from cohort.surfaces.cli.main import COMMANDS
from cohort.surfaces.cli.main import command as root
from cohort.surfaces.cli.render import bar, number, seconds
from support_command import Command
from support_processes import environment


@pytest.fixture
def cohort(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, {}, capsys)


def every_command(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        found = group.get_command(ctx, name)
        assert found is not None
        yield (*path, name), found
        if isinstance(found, click.Group):
            yield from every_command(found, (*path, name))


ALL = dict(every_command(root))
LEAVES = [path for path, found in ALL.items() if not isinstance(found, click.Group)]
SPEAKING_OTHERWISE = (("completion",), ("mcp",))
"""A shell reads the one's standard output, an MCP client the other's."""


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_help_says_what_the_command_does(cohort: Command, path: tuple[str, ...]) -> None:
    helped = cohort(*path, "--help")
    assert (helped.code, helped.err) == (0, "")
    assert helped.out.startswith(f"Usage: cohort {' '.join(path)}")


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_examples_that_begin_with_it(cohort: Command, path: tuple[str, ...]) -> None:
    assert f"cohort {' '.join(path)}" in cohort(*path, "--help").out.split("Examples:")[1]


@pytest.mark.parametrize("path", [path for path in LEAVES if path not in SPEAKING_OTHERWISE], ids=" ".join)
def test_every_command_answers_in_json_if_asked(path: tuple[str, ...]) -> None:
    assert "--json" in [option for parameter in ALL[path].params for option in parameter.opts]


def test_the_table_of_commands_agrees_with_their_own_first_lines() -> None:
    for name, (_, line) in COMMANDS.items():
        assert line.endswith(".")
        assert ALL[(name,)].name == name


@pytest.mark.parametrize("line", ["--help", "rollout start --help", "up --help", "release create --help", "status --help", "--version"])
def test_help_imports_nothing_heavy(line: str, tmp_path: Path) -> None:
    program = (
        "import sys; from cohort.surfaces.cli.main import run; from cohort.surfaces.cli.session import Session;"
        "code = run(sys.argv[1:], Session({}));"
        "heavy = {'httpx2', 'rich', 'pydantic', 'yaml', 'sqlalchemy', 'fastapi', 'asyncio', 'http.client', 'subprocess'} & set(sys.modules);"
        "sys.exit(f'imported {sorted(heavy)}' if heavy - {'subprocess'} or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, *line.split()], capture_output=True, text=True, cwd=tmp_path, env=environment())
    assert done.returncode == 0, done.stderr


def test_down_loads_neither_the_kernel_s_rooms_nor_the_database(tmp_path: Path) -> None:
    program = (
        "import sys; from cohort.surfaces.cli.main import run; from cohort.surfaces.cli.session import Session;"
        "code = run(['down', '--data-dir', sys.argv[1]], Session({}));"
        "heavy = {'sqlalchemy', 'fastapi', 'cedarpy', 'cohort.compose.control'} & set(sys.modules);"
        "sys.exit(f'imported {sorted(heavy)}' if heavy or code else 0)"
    )
    (tmp_path / "installation.json").write_text('{"id": "in_0123456789abcdef", "gateway": "gw_0123456789abcdef", "created_us": 1}')
    argv = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, env=environment())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "line", ["nothing", "up --nothing", "rollout start", "rollout list --limit 0", "completion tcsh", "rollback support"]
)
def test_wrong_usage_exits_with_2_and_says_where_help_is(cohort: Command, line: str) -> None:
    wrong = cohort(*line.split())
    assert (wrong.code, wrong.out) == (Exit.USAGE, "")
    assert wrong.err.startswith("error: ")
    assert "--help" in wrong.err


@pytest.mark.parametrize(("line", "meant"), [("relase list", "release"), ("rollout strat", "start"), ("zzz", None)])
def test_a_misspelt_command_is_told_what_was_meant(cohort: Command, line: str, meant: str | None) -> None:
    said = cohort(*line.split()).err
    assert (f"Did you mean '{meant}'?" in said) if meant else ("Did you mean" not in said)


@pytest.mark.parametrize("line", ["", *sorted({path[0] for path in ALL if path not in LEAVES})])
def test_a_group_without_a_verb_shows_its_help_and_is_no_error(cohort: Command, line: str) -> None:
    shown = cohort(*line.split())
    assert (shown.code, shown.out) == (Exit.USAGE, "")
    assert shown.err.startswith(f"Usage: cohort {line}".rstrip())
    assert "error:" not in shown.err


def test_a_group_lists_its_verbs_as_they_are_written_with_a_whole_sentence_each(cohort: Command) -> None:
    lines = cohort("agent", "--help").out.split("Commands:")[1].split("Examples:")[0].splitlines()
    verbs = [line.split()[0] for line in lines if re.match(r"  \S", line)]
    assert verbs[:4] == ["register", "list", "show", "grant"]
    assert "..." not in " ".join(lines)
    assert "Take SCOPES from AGENT; without scopes revoke the agent itself, for ever: its keys, sessions and delegations." in " ".join(
        " ".join(lines).split()
    )


def test_what_is_wrong_is_one_line(cohort: Command) -> None:
    assert cohort("completion").err.splitlines()[0] == "error: Missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish"


def test_wrong_usage_in_json_is_a_problem_document(cohort: Command) -> None:
    assert cohort("rollback", "support", "--json").json["code"] == "FIELD_INVALID"


def test_the_version_is_one_line(cohort: Command) -> None:
    assert cohort("--version").out.startswith("cohort ")


def test_the_program_as_a_module_is_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cohort.surfaces.cli", "status"], capture_output=True, text=True, cwd=tmp_path, env=environment()
    )
    assert (done.returncode, done.stdout.startswith("unknown: no supervisor")) == (Exit.UNKNOWN, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(cohort: Command, shell: str) -> None:
    script = cohort("completion", shell)
    assert script.code == 0
    assert "_COHORT_COMPLETE" in script.out


def test_completion_knows_the_verbs(tmp_path: Path) -> None:
    asked = environment(_COHORT_COMPLETE="bash_complete", COMP_WORDS="cohort rollout p", COMP_CWORD="2")
    done = subprocess.run([sys.executable, "-m", "cohort.surfaces.cli"], capture_output=True, text=True, cwd=tmp_path, env=asked)
    assert sorted(done.stdout.split()) == ["plain,pause", "plain,plan", "plain,promote"]


def test_init_writes_what_up_and_create_read_and_does_not_overwrite(cohort: Command, tmp_path: Path) -> None:
    assert cohort("init", str(tmp_path / "new")).code == 0
    from cohort.base.settings import load_settings
    from cohort.surfaces.cli.release import read_bundle

    assert load_settings({}, folder=tmp_path / "new").source == tmp_path / "new" / "cohort.yaml"
    bundle = read_bundle(tmp_path / "new" / "releases" / "support-v1.yaml")
    assert list(bundle["files"]) == ["prompts/support.md"]
    (tmp_path / "new" / "cohort.yaml").write_text("mine: 1\n")
    again = cohort("init", str(tmp_path / "new"), "--json")
    assert (again.code, again.json["code"]) == (1, "CONFIG_EXISTS")
    assert (tmp_path / "new" / "cohort.yaml").read_text() == "mine: 1\n"
    assert cohort("init", str(tmp_path / "new"), "--force").code == 0


def test_without_an_installation_the_commands_say_what_to_do(cohort: Command) -> None:
    for line in ("service list", "rollout watch support", "rollback support --reason x"):
        nothing = cohort(*line.split())
        assert (nothing.code, "cohort up" in nothing.err) == (1, True)
    assert cohort("down").out.startswith("Nothing ran on ")
    assert cohort("status", "--json").json["health"] == "unknown"


def test_events_are_parsed_as_the_standard_says() -> None:
    lines = [": heartbeat", "", "event: rollout", "id: 4", 'data: {"a":', "data: 1}", "", "event: end", "", 'data:"x"', ""]
    assert list(parse_events(iter(lines))) == [("rollout", {"a": 1}), ("end", None), ("message", "x")]


def test_numbers_are_short_and_nothing_is_a_dash() -> None:
    assert [number(value, "ms") for value in (None, 0.01234, 12.3456, 12345.6)] == ["-", "0.0123 ms", "12.3 ms", "12,346 ms"]
    assert [seconds(value) for value in (None, 5, 7200, 60, 172_800)] == ["-", "5 s", "2 h", "60 s", "2 d"]
    assert [bar(part, 4) for part in (-1, 0.5, 9)] == ["░░░░", "██░░", "████"]
