"""What every sandbox keeps, whatever its level: ends, streams, limits of time and output, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.model import Command, Completed, Level, Place, StoppedBy
from cohort.kernel.ports import Running, Sandbox
from cohort.kernel.sandbox.spawner import Spawner
from support_processes import until
from support_sandbox import BACKENDS, LIMITS, Journal, need, parts, place, processes_with, put

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these backends are Linux'")


SPAWNERS: list[int] = []
"""Every process that was started to start others, newest last."""


@pytest.fixture(scope="module")
def spawner() -> Iterator[Spawner]:
    spawner = Spawner(begun=SPAWNERS.append)
    yield spawner
    spawner.close()


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as made:
        yield made


@pytest.fixture(params=BACKENDS)
def sandbox(request: pytest.FixtureRequest, spawner: Spawner, journal: Journal, here: Place) -> Iterator[Sandbox]:
    need(request.param)
    made = BACKENDS[request.param](parts(spawner, journal))
    yield made
    made.close(here)


def shell(text: str, **more: object) -> Command:
    return Command(("sh", "-c", text), **more)  # type: ignore[arg-type]


def ended(running: Running) -> Completed:
    done = running.wait(20.0)
    assert done is not None
    return done


@pytest.mark.parametrize(
    ("text", "code", "number"),
    [
        ("true", 0, None),
        ("exit 7", 7, None),
        ("exit 200", 200, None),
        ("kill -9 $$", None, 9),
        ("kill -TERM $$", None, 15),
        ("no-such-program", 127, None),
    ],
)
def test_the_end_is_told_exactly(sandbox: Sandbox, here: Place, text: str, code: int | None, number: int | None) -> None:
    done = sandbox.run(here, LIMITS, shell(text))
    assert (done.exit_code, done.signal, done.stopped_by, done.level) == (code, number, None, sandbox.level)


def test_a_program_that_is_not_there_is_the_commands_own_failure(sandbox: Sandbox, here: Place) -> None:
    done = sandbox.run(here, LIMITS, Command(("no-such-program",)))
    assert (done.exit_code, done.stopped_by) == (127, None)
    assert b"no-such-program: not found" in done.stderr


def test_a_script_of_the_workspace_is_executed(sandbox: Sandbox, here: Place) -> None:
    put(here, "bin/hello", "#!/bin/sh\necho hello $1\n", mode=0o755)
    assert sandbox.run(here, LIMITS, Command(("bin/hello", "you"))).stdout == b"hello you\n"


def test_input_goes_in_and_both_outputs_come_out_apart(sandbox: Sandbox, here: Place) -> None:
    done = sandbox.run(here, LIMITS, shell("cat; echo bad >&2", stdin=b"good\n"))
    assert (done.stdout, done.stderr) == (b"good\n", b"bad\n")


def test_more_input_than_a_pipe_holds_goes_in_whole(sandbox: Sandbox, here: Place) -> None:
    done = sandbox.run(here, LIMITS, shell("wc -c", stdin=b"x" * 1_000_000))
    assert done.stdout.strip() == b"1000000"


def test_input_that_is_not_read_does_not_hold_the_command_up(sandbox: Sandbox, here: Place) -> None:
    assert sandbox.run(here, LIMITS, shell("exit 3", stdin=b"x" * 1_000_000)).exit_code == 3


def test_output_is_cut_at_the_limit_and_counted_beyond_it(sandbox: Sandbox, here: Place) -> None:
    done = sandbox.run(here, replace(LIMITS, output_bytes=1000), shell("head -c 30000 /dev/zero; head -c 20000 /dev/zero >&2"))
    assert (len(done.stdout), done.stdout_bytes, len(done.stderr), done.stderr_bytes) == (1000, 30000, 1000, 20000)
    assert done.exit_code == 0


def test_a_flood_of_output_is_stopped(sandbox: Sandbox, here: Place) -> None:
    done = sandbox.run(here, replace(LIMITS, output_bytes=1000), shell("head -c 1000000000 /dev/zero"))
    assert (done.stopped_by, len(done.stdout)) == (StoppedBy.OUTPUT, 1000)
    assert done.stdout_bytes < 1_000_000_000


def test_a_command_is_stopped_when_its_time_is_over(sandbox: Sandbox, here: Place) -> None:
    done = sandbox.run(here, replace(LIMITS, command_s=0.3), shell("sleep 60"))
    assert (done.stopped_by, done.exit_code, done.signal) == (StoppedBy.TIME, None, 9)
    assert sandbox.run(here, LIMITS, shell("exit 4")).exit_code == 4


def test_memory_over_the_limit_is_stopped(sandbox: Sandbox, here: Place) -> None:
    """Softly here: there is no cgroup. The flood has a ceiling of its own, a second of touching pages."""
    text = "import time\nkeep = []\nfor _ in range(60):\n    keep.append(bytearray(b'x' * (8 << 20)))\n    time.sleep(.02)\n"
    done = sandbox.run(here, replace(LIMITS, memory_bytes=128 << 20), Command(("/usr/bin/python3", "-I", "-S", "-c", text)))
    assert done.stopped_by is StoppedBy.MEMORY
    assert done.memory_bytes is not None
    assert done.memory_bytes > 128 << 20


def test_what_a_command_leaves_behind_ends_with_it(sandbox: Sandbox, here: Place) -> None:
    marker = f"cohort-left-{uuid.uuid4().hex}"
    text = (
        f"for i in 1 2 3; do sh -c 'sleep 300; : {marker}' & setsid sh -c '(sleep 300; : {marker}) & sleep 300; : {marker}' & done; exit 5"
    )
    done = sandbox.run(here, LIMITS, shell(text))
    assert done.exit_code == 5
    assert processes_with(marker) == []


def test_the_environment_is_empty_but_for_what_is_given(sandbox: Sandbox, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COHORT_SECRET", "hunter2")
    done = sandbox.run(here, LIMITS, Command(("env",), env={"GIVEN": "a b"}))
    found = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    assert set(found) == {"HOME", "LANG", "PATH", "TMPDIR", "GIVEN"}
    assert found["GIVEN"] == "a b"


def test_no_descriptor_but_the_three_is_inherited(sandbox: Sandbox, here: Place) -> None:
    done = sandbox.run(
        here, LIMITS, Command(("/usr/bin/python3", "-I", "-S", "-c", "import os; print(sorted(os.listdir('/proc/self/fd')))"))
    )
    assert done.stdout in (b"['0', '1', '2', '3']\n", b"['0', '1', '2']\n"), "3 is the listing itself"


def test_a_command_starts_in_its_folder(sandbox: Sandbox, here: Place) -> None:
    put(here, "src/deep/x", "found")
    assert sandbox.run(here, LIMITS, Command(("cat", "x"), cwd="src/deep")).stdout == b"found"


@pytest.mark.parametrize(
    ("cwd", "code"), [("missing", "PATH_MISSING"), ("file", "PATH_MISSING"), ("..", "PATH_ESCAPES"), ("/etc", "PATH_ESCAPES")]
)
def test_a_folder_that_is_none_executes_nothing(sandbox: Sandbox, here: Place, cwd: str, code: str) -> None:
    put(here, "file")
    with pytest.raises(CohortError) as caught:
        sandbox.run(here, LIMITS, Command(("touch", "made"), cwd=cwd))
    assert (caught.value.code, caught.value.field) == (code, "cwd")


@pytest.mark.parametrize("argv", [(), ("",), ("a\0b",), ("x",) * 5000])
def test_arguments_that_are_none_execute_nothing(sandbox: Sandbox, journal: Journal, here: Place, argv: tuple[str, ...]) -> None:
    with pytest.raises(CohortError) as caught:
        sandbox.run(here, LIMITS, Command(argv))
    assert caught.value.code == "ARGUMENT_INVALID"
    assert journal == []


def test_every_execution_is_told_before_it_happens(sandbox: Sandbox, journal: Journal, here: Place) -> None:
    sandbox.run(here, LIMITS, Command(("true",), label="act_1"))
    sandbox.start(here, LIMITS, Command(("true",), label="act_2")).stop()
    assert [(one.workspace, one.argv, one.label, one.backend) for one in journal] == [
        (here.workspace, ("true",), label, sandbox.name) for label in ("act_1", "act_2")
    ]


def test_a_journal_that_cannot_be_written_executes_nothing(spawner: Spawner, here: Place) -> None:
    def broken(spawn: object) -> None:
        raise CohortError("AUDIT_UNAVAILABLE", "no disk")

    for name, make in BACKENDS.items():
        need(name)
        sandbox = make(replace(parts(spawner), on_spawn=broken))
        with pytest.raises(CohortError, match="no disk"):
            sandbox.run(here, LIMITS, Command(("touch", f"{here.root}/made")))
    assert processes_with(here.root) == []


def test_commands_of_one_workspace_run_at_the_same_time(sandbox: Sandbox, here: Place) -> None:
    """Each waits for the others, so they end only if all run together."""
    text = "touch $0; while [ ! -e 1 ] || [ ! -e 2 ] || [ ! -e 3 ]; do sleep .01; done; echo $0"
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda name=name: found.append(sandbox.run(here, LIMITS, Command(("sh", "-c", text, name))).stdout))
        for name in ("1", "2", "3")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == [b"1\n", b"2\n", b"3\n"]


def test_processes_are_limited(sandbox: Sandbox, here: Place) -> None:
    """64 at most, fewer where others of the same uid count along; the flood itself ends after 150 forks, and each child after a moment."""
    text = (
        "import os, sys, time\nmade = 0\nfor _ in range(150):\n    try:\n        pid = os.fork()\n    except OSError:\n        break\n"
        "    if pid == 0:\n        time.sleep(2)\n        os._exit(0)\n    made += 1\nprint(made)\n"
    )
    done = sandbox.run(here, replace(LIMITS, processes=64), Command(("/usr/bin/python3", "-I", "-S", "-c", text)))
    assert (10 if sandbox.level < Level.NAMESPACES else 50) <= int(done.stdout) <= 70


def test_a_long_running_command_is_talked_to(sandbox: Sandbox, here: Place) -> None:
    running = sandbox.start(here, LIMITS, shell("while read line; do echo got $line; done; echo bye >&2; exit 6", stdin=b"one\n"))
    until(lambda: running.output("stdout", 0, 100) == b"got one\n")
    running.write(b"two\n")
    until(lambda: running.output("stdout", 8, 100) == b"got two\n")
    assert running.output("stdout", 4, 3) == b"one"
    assert running.wait(0) is None
    running.close_input()
    done = ended(running)
    assert (done.exit_code, done.stderr, done.stdout_bytes) == (6, b"bye\n", 16)
    with pytest.raises(CohortError, match="input"):
        running.write(b"late")


def test_a_signal_reaches_the_command_and_its_children(sandbox: Sandbox, here: Place) -> None:
    text = "trap 'echo parent; exit 9' TERM; sh -c \"trap 'echo child; exit 0' TERM; echo up; while :; do sleep .05; done\" & wait; wait"
    running = sandbox.start(here, LIMITS, shell(text))
    until(lambda: running.output("stdout", 0, 100) == b"up\n")
    running.signal(signal.SIGTERM)
    done = ended(running)
    assert (done.exit_code, done.stopped_by) == (9, None)
    assert b"parent" in done.stdout


def test_a_long_running_command_is_stopped_with_all_it_started(sandbox: Sandbox, here: Place) -> None:
    marker = f"cohort-run-{uuid.uuid4().hex}"
    running = sandbox.start(here, LIMITS, shell(f"setsid sh -c 'sleep 300; : {marker}' & echo up; sleep 300; : {marker}"))
    until(lambda: running.output("stdout", 0, 10) == b"up\n")
    assert processes_with(marker) != []
    done = running.stop()
    assert (done.stopped_by, done.signal) == (StoppedBy.SIGNAL, 9)
    assert processes_with(marker) == []
    assert running.stop() == done


def test_closing_a_workspace_ends_all_that_runs_in_it(sandbox: Sandbox, here: Place) -> None:
    marker = f"cohort-close-{uuid.uuid4().hex}"
    commands = [shell(f"touch {name}; sleep 300; : {marker}") for name in "abc"]
    running = [sandbox.start(here, LIMITS, command) for command in commands[:2]]
    waiting: list[Completed] = []
    thread = threading.Thread(target=lambda: waiting.append(sandbox.run(here, LIMITS, commands[2])))
    thread.start()
    until(lambda: sorted(os.listdir(here.root)) == ["a", "b", "c"])
    with place() as elsewhere:
        other = sandbox.start(elsewhere, LIMITS, shell("echo up; read line; exit 8"))
        sandbox.close(here)
        thread.join(20)
        assert processes_with(marker) == []
        assert [one.stopped_by for one in (*waiting, *map(ended, running))] == [StoppedBy.SIGNAL] * 3
        other.close_input()
        assert ended(other).exit_code == 8
        sandbox.close(elsewhere)


def test_when_the_spawner_is_killed_all_it_started_ends(sandbox: Sandbox, here: Place) -> None:
    """As when control itself is killed: the spawner's socket ends then. Here it has no time to clean up. Afterwards there is a new one."""
    marker = f"cohort-orphan-{uuid.uuid4().hex}"
    running = sandbox.start(here, LIMITS, shell(f"setsid sh -c 'sleep 300; : {marker}' & echo up; sleep 300; : {marker}"))
    until(lambda: running.output("stdout", 0, 10) == b"up\n")
    os.kill(SPAWNERS[-1], signal.SIGKILL)
    done = ended(running)
    assert done.stopped_by is StoppedBy.SANDBOX
    until(lambda: processes_with(marker) == [])
    assert sandbox.run(here, LIMITS, shell("exit 7")).exit_code == 7


def test_an_action_of_nobody_is_refused(sandbox: Sandbox, here: Place) -> None:
    """A workspace of root: whoever is root in a sandbox is root outside of it, too."""
    with pytest.raises(CohortError) as caught:
        sandbox.run(replace(here, uid=0, gid=0), LIMITS, Command(("true",)))
    assert caught.value.code == "SANDBOX_UNAVAILABLE"


def test_hosts_without_a_proxy_execute_nothing(sandbox: Sandbox, here: Place) -> None:
    with pytest.raises(CohortError) as caught:
        sandbox.run(here, LIMITS, Command(("touch", "made"), hosts=("example.org:443",)))
    assert caught.value.code == "SANDBOX_UNAVAILABLE"
    assert processes_with(here.root) == []
