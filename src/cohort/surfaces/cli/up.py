"""`cohort up`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.options import config_options, examples, json_option, with_session
from cohort.surfaces.cli.session import Session

if TYPE_CHECKING:
    from cohort.base.settings import Settings
    from cohort.ops.house import Running, Talk


@click.command(
    "up",
    epilog=examples(
        """
cohort up
cohort up --detach --json
cohort up --config /etc/cohort/cohort.yaml --data-dir /var/lib/cohort
COHORT_GATEWAY_PORT=9000 cohort up
"""
    ),
)
@click.option("--detach", is_flag=True, help="Return when everything is ready; it runs on in the background.")
@click.option("--announce-fd", type=int, hidden=True, help="Write the answer to this file descriptor.")
@config_options
@json_option
@with_session
def command(session: Session, detach: bool, announce_fd: int | None) -> int:
    """Start the gateway, control and, where one is configured, the model of embeddings, and keep them running until Ctrl-C or `cohort down`.

    What dies is started again. If this command itself is killed, the gateway goes on serving; the next `cohort up` takes it over.
    The admin key is shown once, at the first start on a data directory.
    """
    settings = session.settings()
    if detach:
        return _detached(session, settings)
    from cohort.base.clock import SystemClock
    from cohort.ops import house

    try:
        house.up(settings, SystemClock(), secrets.token_bytes, _talk(session, settings, announce_fd))
    except CohortError as error:
        if announce_fd is not None:
            _announce(announce_fd, error.problem())
        raise
    return Exit.DONE


def _talk(session: Session, settings: Settings, announce_fd: int | None) -> Talk:
    from cohort.ops.house import Talk

    shown: dict[str, str] = {}

    def ready(running: Running) -> None:
        if announce_fd is not None:
            _announce(announce_fd, dataclasses.asdict(running))
        else:
            _show(session, dataclasses.asdict(running) | shown, "Ctrl-C here, or `cohort down`")

    def say(line: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more; that is no reason to stop serving
            session.say(line)

    return Talk(say, lambda key: shown.update(_hand_over(key, session, settings)), ready)


def _hand_over(key: str, session: Session, settings: Settings) -> dict[str, str]:
    """The admin key goes to a terminal, or to a private file where no person watches; never into a log."""
    if sys.stderr.isatty() and not session.json:
        sys.stderr.write(f"Admin key, shown only now: {key}\n")
        return {}
    from cohort.ops.files import write_private

    path = settings.data.secrets / "admin.key"
    write_private(path, key.encode() + b"\n")
    return {"admin_key_file": str(path)}


def _show(session: Session, running: dict[str, Any], stop: str) -> None:
    if session.json:
        session.data(running)
        return
    session.text(f"Cohort is ready after {running['ready_ms'] / 1000:.1f} s.")
    session.text(f"  Gateway    {running['gateway_url']}/v1")
    session.text(f"  Dashboard  {running['control_url']}")
    if running["embeddings_url"]:
        session.text(f"  Embeddings {running['embeddings_url']}")
    session.text(f"  Logs       {running['data_dir']}/logs")
    if "admin_key_file" in running:
        session.text(f"  Admin key  in {running['admin_key_file']}: note it and delete the file")
    session.text(f"  Stop       {stop}")


def _announce(fd: int, body: dict[str, Any]) -> None:
    with open(fd, "w") as pipe:
        json.dump(body, pipe)


def _detached(session: Session, settings: Settings) -> int:
    """Check and create everything here, where a person sees it; then start the same command in a session of its own and wait for its answer."""
    from cohort.base.clock import SystemClock
    from cohort.ops import house
    from cohort.ops.installation import open_folder
    from cohort.ops.logs import cap_log

    key_file: dict[str, str] = {}
    talk = house.Talk(session.say, lambda key: key_file.update(_hand_over(key, session, settings)), lambda _: None)
    open_folder(settings.data)
    lock = house.locked(settings.data)
    try:
        house.prepare(settings, SystemClock(), secrets.token_bytes, talk)
    finally:
        lock.release()
    log = settings.data.log("supervisor")
    cap_log(log)
    answer = _answer_of(_arguments(settings), str(log))
    if "code" in answer:
        raise CohortError.from_problem(answer)
    _show(session, answer | key_file, "`cohort down`")
    return Exit.DONE


def _arguments(settings: Settings) -> list[str]:
    config = ["--config", str(settings.source)] if settings.source else []
    return [sys.executable, "-m", "cohort.surfaces.cli", "up", *config, "--data-dir", str(settings.data_dir)]


def _answer_of(arguments: list[str], log: str) -> dict[str, Any]:
    """Start the supervisor and read its one answer. It bounds its own start, so this wait ends."""
    read_fd, write_fd = os.pipe()
    with open(log, "ab") as output:
        subprocess.Popen(
            [*arguments, "--announce-fd", str(write_fd)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[write_fd],
            start_new_session=True,
        )
    os.close(write_fd)
    with open(read_fd) as pipe:
        text = pipe.read()
    if not text:
        raise CohortError("PROCESS_FAILED", "the supervisor ended without an answer", hint=f"Read {log}.", log=log)
    answer: dict[str, Any] = json.loads(text)
    return answer
