"""The pure parts: how commands are understood, what limits become, and what the backends of other systems are asked for."""

from __future__ import annotations

import os
import resource
import signal
import struct
import subprocess
from pathlib import Path

import pytest

from cohort.base.clock import SystemClock
from cohort.base.errors import CohortError
from cohort.base.ids import WorkspaceId
from cohort.kernel.model import Command, Completed, Level, Limits, Place, StoppedBy
from cohort.kernel.sandbox import backends, boxes, commands, landlock, opening, popen, profile, seatbelt, windows
from cohort.kernel.sandbox.memory import Watchdog
from cohort.kernel.sandbox.processes import signal_all
from cohort.kernel.sandbox.spawner import Spawner
from support_processes import until
from support_sandbox import parts

PLACE = Place(WorkspaceId("ws_x"), "/srv/ws/x", 200001, 200001, True, (".git/hooks",))
LIMITS = Limits(memory_bytes=512 << 20, processes=64, command_s=10.0, cpu_cores=2.0, disk_bytes=10 << 20)


@pytest.mark.parametrize(("cwd", "wanted"), [("", "/workspace"), ("src", "/workspace/src"), ("a/../b/.", "/workspace/b")])
def test_a_folder_is_below_the_workspace(cwd: str, wanted: str) -> None:
    assert commands.folder(Command(("x",), cwd=cwd)) == wanted


@pytest.mark.parametrize("cwd", ["..", "a/../../etc", "/etc", "/workspace2", "../workspace2"])
def test_a_folder_outside_is_refused(cwd: str) -> None:
    with pytest.raises(CohortError) as caught:
        commands.folder(Command(("x",), cwd=cwd))
    assert caught.value.code == "PATH_ESCAPES"


def test_a_program_is_looked_for_as_a_shell_would() -> None:
    assert commands.candidates("git", {"PATH": "/a:/b"}) == ("/a/git", "/b/git")
    assert commands.candidates("bin/run", {"PATH": "/a"}) == ("bin/run",)
    assert commands.candidates("git", {}) == ("/usr/local/bin/git", "/usr/bin/git", "/bin/git")


def test_the_proxy_is_not_the_commands_to_choose() -> None:
    found = commands.variables(Command(("x",), env={"https_proxy": "http://evil:1", "A": "1"}, hosts=("example.org:443",)))
    assert {found[name] for name in commands.PROXY_NAMES} == {"http://127.0.0.1:3128"}
    assert found["A"] == "1"
    assert not set(commands.PROXY_NAMES) & set(commands.variables(Command(("x",))))


def test_limits_become_rlimits() -> None:
    found = dict(profile.rlimits(LIMITS, timed=True))
    assert found[resource.RLIMIT_CORE] == found[resource.RLIMIT_MEMLOCK] == found[profile.MSGQUEUE] == 0
    assert found[resource.RLIMIT_FSIZE] == 10 << 20
    assert found[resource.RLIMIT_CPU] == 21
    assert resource.RLIMIT_NPROC not in found
    assert resource.RLIMIT_CPU not in dict(profile.rlimits(LIMITS, timed=False))


def test_temporary_file_systems_are_a_part_of_memory() -> None:
    assert profile.sized(Limits(memory_bytes=64 << 20)) == (16 << 20, 16 << 20)
    assert sum(profile.sized(Limits(memory_bytes=1 << 30))) <= 1 << 29


def test_rules_let_tcp_out_through_the_proxy_only() -> None:
    assert profile.rules(network=True).connect_ports == (3128,)
    assert profile.rules(network=False).connect_ports is None
    assert not any(access & (landlock.MAKE_CHAR | landlock.MAKE_BLOCK) for _, access in profile.rules(True).files)


def test_the_arguments_of_bubblewrap_are_the_profile() -> None:
    wanted = boxes.Wanted(PLACE, LIMITS, ("/x",), (("/etc/hosts", 0o444, b""),), {".git/hooks": (1, 2)}, timed=True)
    found = boxes.arguments(wanted).decode().split("\0")
    assert found.pop() == "", "each ends with a NUL"
    flags = ["user", "pid", "net", "ipc", "uts", "cgroup"]
    assert [f"--unshare-{name}" for name in flags] == found[:6]
    for name in ("--disable-userns", "--new-session", "--die-with-parent", "--clearenv", "--seccomp"):
        assert name in found
    assert found[found.index("--cap-drop") + 1] == "ALL"
    binds = [tuple(found[at + 1 : at + 3]) for at, part in enumerate(found) if part in ("--bind", "--ro-bind")]
    assert binds[0] == ("/usr", "/usr")
    assert {target for _, target in binds[1:]} <= {"/workspace", "/workspace/.git", "/workspace/.git/hooks"}
    at = [place for place, part in enumerate(found) if part == "--remount-ro"]
    assert [found[place + 1] for place in at] == ["/proc", "/dev", "/"]
    assert min(at) > max(place for place, part in enumerate(found) if part in ("--bind", "--file", "--tmpfs"))


def test_what_landlock_is_told_grows_with_its_version() -> None:
    rules = landlock.Rules(files=(), connect_ports=(3128,), scoped=True)
    assert [len(landlock.attributes(rules, abi)) for abi in (1, 3, 4, 5, 6, 7)] == [8, 8, 16, 16, 24, 24]
    assert struct.unpack("=3Q", landlock.attributes(rules, 6)) == ((1 << 16) - 1, landlock.CONNECT_TCP, 3)
    assert landlock.port_rules(rules, 3) == []
    assert landlock.port_rules(rules, 4) == [struct.pack("=QQ", landlock.CONNECT_TCP, 3128)]
    assert landlock.handled_files(1) & landlock.REFER == 0
    with pytest.raises(OSError, match="no Landlock"):
        landlock.ruleset(rules, 0)


def test_a_link_on_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to("nowhere")
    there = {path: (tmp_path / path).stat() for path in ("real", "real/x")}
    wanted = {path: (found.st_dev, found.st_ino) for path, found in there.items()}
    assert opening.identities(str(tmp_path), ["real", "real/x", "real/y", "gone", "real/x/y"]) == wanted
    for path in ("link/x", "link", "dangling", "../real", "real/../link", "..", "."):
        with pytest.raises(OSError, match="opening") as caught:
            opening.identities(str(tmp_path), ["real", path])
        assert caught.value.filename == path


def test_the_watchdog_counts_the_sandboxes_own_temporary_files_only() -> None:
    """Here the root of the process looked at is the host's: its /tmp is not of the size that a sandbox would have given it."""
    alone = Watchdog(os.getpid(), 1 << 40, {})
    assert not alone.over()
    beside = Watchdog(os.getpid(), 1 << 40, {"/": 1 << 20, "/nowhere": 1 << 20})
    assert not beside.over()
    own, other = alone.peak(), beside.peak()
    assert own is not None
    assert other is not None
    assert abs(own - other) < 64 << 20
    assert Watchdog(os.getpid(), 1 << 20, {}).over()


def test_a_signal_goes_only_to_who_is_still_listed() -> None:
    """A process that was listed and is not any more is another one by now, for all that is known."""
    with subprocess.Popen(["sleep", "60"]) as ours, subprocess.Popen(["sleep", "60"]) as other:
        answers = iter([[ours.pid, other.pid, 2**22 + 1], [ours.pid]])
        signal_all(lambda: next(answers), signal.SIGTERM)
        assert ours.wait(10) == -signal.SIGTERM
        assert other.poll() is None
        other.kill()


def test_the_seatbelt_profile_denies_by_default_and_keeps_protected_paths() -> None:
    text = seatbelt.profile_text(PLACE)
    lines = text.splitlines()
    assert lines[:2] == ["(version 1)", "(deny default)"]
    assert '(allow file-write* (subpath "/srv/ws/x"))' in lines
    assert lines.index('(deny file-write* (subpath "/srv/ws/x/.git/hooks"))') > lines.index('(allow file-write* (subpath "/srv/ws/x"))')
    assert lines[-1] == "(deny network*)"
    assert text.count("(") == text.count(")")


def test_a_path_cannot_end_a_string_of_the_seatbelt_profile() -> None:
    assert seatbelt.quoted('a") (allow default) ("\\') == '"a\\") (allow default) (\\"\\\\"'


def test_seatbelt_limits_before_it_confines() -> None:
    found = seatbelt.arguments(PLACE, LIMITS, Command(("git", "log")))
    assert found[:4] == ("/bin/sh", "-c", seatbelt.SHELL, "sh")
    assert found[4:8] == (str((10 << 20) // 512), "1024", "64", "21")
    assert found[8:10] == ("/usr/bin/sandbox-exec", "-p")
    assert found[-2:] == ("git", "log")


def test_the_job_object_is_told_its_limits() -> None:
    found = windows.extended_limits(LIMITS)
    assert len(found) == 144
    ticks, _, flags = struct.unpack_from("<qqI", found)
    assert (ticks, flags) == (20 * 10_000_000, 0x2 | 0x8 | 0x200 | 0x400 | 0x2000)
    assert struct.unpack_from("<I", found, 40) == (64,)
    assert struct.unpack_from("<2Q", found, 112) == (0, 512 << 20)
    assert struct.unpack("<II", windows.cpu_rate(LIMITS, 8)) == (5, 2500)


def test_a_folder_on_windows_stays_in_the_workspace() -> None:
    place = Place(WorkspaceId("ws_x"), "C:\\ws", 1, 1, False)
    assert windows.folder(place, Command(("x",), cwd="a/b")) == "C:\\ws\\a\\b"
    for cwd in ("..", "a\\..\\..", "D:/x"):
        with pytest.raises(CohortError):
            windows.folder(place, Command(("x",), cwd=cwd))


def test_a_job_object_elsewhere_is_refused() -> None:
    with pytest.raises(CohortError) as caught:
        windows.JobObject(SystemClock(), lambda spawn: None)
    assert caught.value.code == "SANDBOX_UNAVAILABLE"


def started(text: str, output_bytes: int = 1000) -> popen.Process:
    launch = popen.Launch(("/bin/sh", "-c", text), {}, "/", seatbelt.kill, seatbelt.send)
    return popen.Process(launch, output_bytes, Level.LIMITS, SystemClock())


def test_the_portable_way_keeps_the_same_promises() -> None:
    done = popen.run(started("cat; echo bad >&2; exit 5"), b"good", 20.0)
    assert (done.stdout, done.stderr, done.exit_code, done.stopped_by) == (b"good", b"bad\n", 5, None)
    cut = popen.run(started("head -c 30000 /dev/zero"), b"", 20.0)
    assert (len(cut.stdout), cut.stdout_bytes) == (1000, 30000)
    late = popen.run(started("sleep 300 & sleep 300"), b"", 0.2)
    assert (late.stopped_by, late.exit_code, late.signal) == (StoppedBy.TIME, None, 9)
    flood = popen.run(started("head -c 1000000000 /dev/zero"), b"", 20.0)
    assert flood.stopped_by is StoppedBy.OUTPUT


def test_the_portable_way_talks_to_a_long_running_command() -> None:
    running = started("while read line; do echo got $line; done")
    running.write(b"one\n")
    until(lambda: running.output("stdout", 0, 100) == b"got one\n")
    assert running.wait(0) is None
    kept = popen.Kept()
    kept.add("ws_x", running)
    kept.end("ws_x")
    done = running.wait(5.0)
    assert isinstance(done, Completed)
    assert (done.stopped_by, running.totals) == (StoppedBy.SIGNAL, (8, 0))
    with pytest.raises(CohortError):
        running.write(b"late")


def test_the_best_backend_that_has_shown_its_level_is_chosen() -> None:
    made = parts(Spawner())
    if backends.obstacle(made.binary) is not None:
        pytest.skip("bubblewrap does not run here")
    choice = backends.choose(made)
    assert (choice.sandbox.name, choice.sandbox.level, choice.gaps) == ("bubblewrap", Level.NAMESPACES, backends.SOFT_GAPS)
    shown = {"bubblewrap": Level.LIMITS, "confined": Level.FILES, "limits": Level.LIMITS}
    second = backends.choose(made, probe=lambda sandbox: shown[sandbox.name])
    assert second.sandbox.level == (Level.FILES if landlock.abi() else Level.LIMITS)
    assert second.obstacles[0].what == "has shown level 1 of 3"


def test_a_missing_bubblewrap_is_said_with_the_fix() -> None:
    from dataclasses import replace

    choice = backends.choose(replace(parts(Spawner()), binary="/usr/bin/no-bubblewrap"))
    assert choice.sandbox.level <= Level.FILES
    assert choice.obstacles[0].fix == "Install the package `bubblewrap`."
    with pytest.raises(CohortError) as caught:
        backends.choose(replace(parts(Spawner()), binary="/usr/bin/no-bubblewrap"), isolation_min=Level.NAMESPACES)
    assert (caught.value.code, caught.value.hint) == ("LEVEL_TOO_LOW", "Install the package `bubblewrap`.")


def test_a_binary_that_fails_is_said_with_its_words(tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho no permission >&2\nexit 1\n")
    broken.chmod(0o755)
    os.chmod(tmp_path, 0o755)
    found = backends.obstacle(str(broken))
    assert found is not None
    assert found.backend == "bubblewrap"
    assert found.fix
