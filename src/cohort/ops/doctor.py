"""What this machine lacks for Cohort, what works without it, and the one command that mends it."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cohort.base.errors import CohortError
from cohort.base.settings import Settings, resolve_reference
from cohort.kernel.face import Containment
from cohort.kernel.model import Level
from cohort.ops.house import running
from cohort.ops.installation import DISK_FREE_BYTES_MIN
from cohort.ops.ports import check_free

PYTHON_MIN = (3, 11)
POSTGRES_MIN = 15
DISK_ADVISED_BYTES = 1 << 30
DESCRIPTORS_ADVISED = 8192
CLOCK_EARLIEST_S = 1_735_689_600  # 2025-01-01: an earlier clock is wrong, and certificates would not verify
DATABASE_WAIT_S = 5


class Grade(StrEnum):
    GOOD = "good"
    MISSING = "missing"  # something optional: the rest works
    BROKEN = "broken"  # `cohort up` will not work


@dataclass(frozen=True, slots=True)
class Check:
    """`without`: what still works as it is, or what does not. `fix`: one command or one sentence; both empty when good."""

    name: str
    grade: Grade
    found: str
    without: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """A program some part wants. Any of `names` on the path (or of `places`, patterns under /) will do."""

    name: str
    names: tuple[str, ...]
    without: str
    package: str
    places: tuple[str, ...] = ()


PROGRAMS = (
    Program(
        "Postgres server",
        ("initdb",),
        "all works but the store's tests on Postgres; a Postgres elsewhere needs no server here",
        "postgresql-15",
        ("usr/lib/postgresql/*/bin/initdb",),
    ),
    Program("Chromium", ("chromium", "chromium-browser", "google-chrome"), "all works but the dashboard's tests in a browser", "chromium"),
    Program("nginx", ("nginx",), "all works but the comparison with nginx in `make bench`", "nginx"),
    Program("wrk", ("wrk",), "all works but the load figures of `make bench`", "wrk"),
    Program("bubblewrap", ("bwrap",), "agents' commands reach isolation level 2 at most", "bubblewrap"),
)


def examine(settings: Settings, environment: Mapping[str, str], contained: Containment | None = None) -> tuple[Check, ...]:
    """Every check, in the order in which a person would mend things. Changes nothing. `contained`: what the probe has shown here, if it ran."""
    checks: list[Callable[[], Sequence[Check]]] = [
        lambda: [_python()],
        lambda: [_speed("uvloop"), _speed("httptools")],
        lambda: [_data_dir(settings.data_dir), _disk(settings.data_dir)],
        lambda: _ports(settings),
        lambda: [_callers(settings)],
        lambda: _embeddings(settings),
        lambda: [_database(settings, environment)],
        lambda: [_descriptors(), _clock()],
        lambda: [_program(program) for program in PROGRAMS],
        lambda: [] if contained is None else containment(contained, settings.kernel.isolation_min),
        lambda: _upstream_keys(settings, environment),
    ]
    return tuple(check for group in checks for check in group())


def good(name: str, found: str) -> Check:
    return Check(name, Grade.GOOD, found)


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info >= PYTHON_MIN:
        return good("Python", version)
    return Check("Python", Grade.BROKEN, version, "nothing works", "apt-get install python3.11 python3.11-venv")


def _speed(module: str) -> Check:
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        return Check(module, Grade.BROKEN, f"cannot be imported: {error}", "the gateway does not start", f"python -m pip install {module}")
    return good(module, str(getattr(found, "__version__", "present")))


def _data_dir(path: Path) -> Check:
    nearest = _nearest(path)
    if os.access(nearest, os.W_OK | os.X_OK):
        return good("data directory", f"{path}{'' if path.exists() else ' (will be created)'}")
    return Check(
        "data directory", Grade.BROKEN, f"{nearest} is not writable", "`cohort up` does not start", "set data_dir or COHORT_DATA_DIR"
    )


def _disk(path: Path) -> Check:
    free = shutil.disk_usage(_nearest(path)).free
    text = f"{free / (1 << 30):.1f} GiB free"
    if free >= DISK_ADVISED_BYTES:
        return good("disk", text)
    grade = Grade.MISSING if free >= DISK_FREE_BYTES_MIN else Grade.BROKEN
    return Check("disk", grade, text, "outcomes spool to disk while control is away", "free at least 1 GiB, or move data_dir")


def _nearest(path: Path) -> Path:
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())


def _ports(settings: Settings) -> list[Check]:
    now = running(settings.data)
    wanted: tuple[tuple[str, str, int], ...] = (
        ("gateway", settings.gateway.host, settings.gateway.port),
        ("control", settings.control.host, settings.control.port),
    )
    if settings.embeddings is not None:
        wanted = (*wanted, ("embeddings", settings.embeddings.host, settings.embeddings.port))
    return [good(f"{name} port", f"{port}, used by Cohort itself") if now else _port(name, host, port) for name, host, port in wanted]


def _port(name: str, host: str, port: int) -> Check:
    try:
        check_free(host, port, f"{name}.port")
    except CohortError as error:
        return Check(f"{name} port", Grade.BROKEN, error.message, "`cohort up` does not start", error.hint)
    return good(f"{name} port", f"{port} is free")


def _embeddings(settings: Settings) -> list[Check]:
    if settings.embeddings is None:
        return []
    from cohort.gateway.embeddings.folder import look

    try:
        return [good("embeddings model", str(look(settings.embeddings).file))]
    except CohortError as error:
        return [Check("embeddings model", Grade.BROKEN, error.message, "`cohort up` does not start", error.hint)]


def _callers(settings: Settings) -> Check:
    if settings.gateway.expose:
        return good("gateway's callers", "it is exposed: every caller needs a key, `cohort gateway key create NAME` makes one")
    return good("gateway's callers", "programs of this machine; once `cohort gateway key create NAME` made a key, each needs one")


def _database(settings: Settings, environment: Mapping[str, str]) -> Check:
    try:
        url = resolve_reference(settings.database.url, environment) if settings.database.url else None
    except CohortError as error:
        return Check("database", Grade.BROKEN, error.message, "control does not start", error.hint)
    if url is None or url.startswith("sqlite"):
        import sqlite3

        return good("database", f"SQLite {sqlite3.sqlite_version}")
    return _postgres(url)


def _postgres(url: str) -> Check:
    fix = "start that server, or correct database.url"
    without = "control does not start; a gateway that has a routing table serves"
    try:
        import psycopg

        with psycopg.connect(_libpq(url), connect_timeout=DATABASE_WAIT_S) as connection:
            version = connection.info.server_version // 10000
    except ImportError as error:
        return Check("database", Grade.BROKEN, f"psycopg cannot be imported: {error}", without, 'python -m pip install "psycopg[binary]"')
    except psycopg.Error as error:
        what = type(error).__name__ if _password(url) else str(error).splitlines()[0]
        return Check("database", Grade.BROKEN, f"Postgres does not answer: {what}", without, fix)
    if version < POSTGRES_MIN:
        return Check("database", Grade.BROKEN, f"Postgres {version}", without, f"use Postgres {POSTGRES_MIN} or newer")
    return good("database", f"Postgres {version}")


def _libpq(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}://{rest}"


def _password(url: str) -> bool:
    from urllib.parse import urlsplit

    return urlsplit(url).password is not None


def _descriptors() -> Check:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft} open files allowed (at most {hard})"
    if soft == resource.RLIM_INFINITY or soft >= DESCRIPTORS_ADVISED:
        return good("file descriptors", text)
    without = "fine for some hundred connections at once"
    return Check("file descriptors", Grade.MISSING, text, without, f"ulimit -n {DESCRIPTORS_ADVISED}")


def _clock() -> Check:
    now_s = time.time()
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    if now_s >= CLOCK_EARLIEST_S:
        return good("clock", text)
    return Check("clock", Grade.BROKEN, text, "sessions, certificates and logs are wrong", "timedatectl set-ntp true")


def _program(program: Program) -> Check:
    found = next((path for name in program.names if (path := shutil.which(name))), None)
    found = found or next((str(path) for place in program.places for path in sorted(Path("/").glob(place), reverse=True)), None)
    if found:
        return good(program.name, found)
    return Check(program.name, Grade.MISSING, "not installed", program.without, f"apt-get install {program.package}")


def containment(found: Containment, isolation_min: int) -> list[Check]:
    """How well commands of agents are contained: the level that was shown by attack, what got through, and what would raise it."""
    landlock = f"Landlock ABI {found.landlock}" if found.landlock else "no Landlock"
    through = [row for row in found.rows if row.stopped is False]
    tried = sum(row.stopped is not None for row in found.rows)
    text = f"level {found.level.value} of {Level.FULL.value} by {found.backend}, {tried - len(through)} of {tried} attacks stopped; {found.kernel}, {landlock}"
    if found.level >= Level.FULL:
        return [good("containment", text)]
    without = "; ".join(found.soft)
    if found.level < isolation_min:
        without = f"commands of agents are refused (isolation_min is {isolation_min}), all else works{': ' if without else ''}{without}"
    fixes = found.fixes or ("docs/how-to/fix-containment.md",)
    checks = [Check("containment", Grade.MISSING, text, without, fixes[0])]
    checks += [Check("containment", Grade.MISSING, "to raise it further", "", fix) for fix in fixes[1:]]
    return checks + [Check(f"attack {row.name}", Grade.MISSING, row.detail) for row in through]


def _upstream_keys(settings: Settings, environment: Mapping[str, str]) -> list[Check]:
    """Variables that releases in use name for their upstreams' keys, from the gateway's routing table."""
    names = sorted(_named_variables(settings))
    return [_upstream_key(name, environment) for name in names]


def _upstream_key(name: str, environment: Mapping[str, str]) -> Check:
    if environment.get(name):
        return good(f"key {name}", "set in this environment")
    without = "calls to its upstream are refused there, unless the environment of `cohort up` has it"
    return Check(f"key {name}", Grade.MISSING, "not set in this environment", without, f"export {name}=..., then restart `cohort up`")


def _named_variables(settings: Settings) -> set[str]:
    import json

    names: set[str] = set()
    for path in [settings.data.gateway / "routing.json"] if settings.data.gateway.is_dir() else []:
        try:
            table = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue  # the gateway reports a damaged table itself
        for release in (table.get("releases") or {}).values() if isinstance(table, dict) else ():
            names |= {str(route["api_key"])[4:] for route in release["routes"] if str(route.get("api_key", "")).startswith("env:")}
    return names
