"""`cohort init`."""

from __future__ import annotations

from pathlib import Path

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.options import examples, json_option, with_session
from cohort.surfaces.cli.session import Session

CONFIG = """\
# Cohort's configuration. Every line that is commented out shows its default.
# Every field: docs/reference/configuration.md. A variable such as COHORT_GATEWAY_PORT overrides the file.

# Where everything is kept: database, secrets, logs, the gateway's spool. Relative to this file.
data_dir: .cohort

# The one door to models. Any OpenAI client: OPENAI_BASE_URL=http://127.0.0.1:8700/v1
gateway:
  # host: 127.0.0.1
  # port: 8700
  # expose: false          # true allows a host that other machines can reach
  # limits: {body_bytes_max: 8388608, connections_max: 4096}

# The API and the dashboard.
control:
  # host: 127.0.0.1
  # port: 8710
  # expose: false
  # public_url: https://cohort.example.com    # how others reach it through a proxy with TLS

# SQLite in data_dir unless a URL is given. Name the variable that holds it; a password has no place in this file.
database:
  # url: env:COHORT_DATABASE_URL    # postgresql+psycopg://user:password@host/cohort

# What holds for agents on this machine: workspaces, tokens, approvals, the audit log.
kernel:
  # max_disk_mb: 100                 # of one workspace
  # max_files: 1000
  # require_user_approval: true
  # isolation_min: 3                 # commands are refused below this level; `cohort doctor` tells the level of this machine
  # policy_file: policy.cedar        # your own policies, besides the built-in ones
  # anchors: [file:/mnt/other-disk/checkpoints]    # a second place that vouches for the audit log
"""
RELEASE = """\
# A release: immutable once created, named by its digest. Every field: docs/reference/release-manifest.md.
service: support
version: 1.0.0
kind: model
routes:
  main:
    provider: openai                       # any server that speaks OpenAI's chat completions
    base_url: https://api.openai.com/v1
    model: gpt-4o-mini
    api_key: env:OPENAI_API_KEY            # where the key is, never the key
    price: {input_usd_per_mtok: 0.15, output_usd_per_mtok: 0.6}
prompt: prompts/support.md                 # relative to this file
parameters: {temperature: 0.2}
limits: {timeout_s: 60}
"""
PROMPT = """\
You answer customers of a small shop, in their language, in at most five sentences.
Say so when you do not know; never promise a refund or a date.
"""
FILES = {"cohort.yaml": CONFIG, "releases/support-v1.yaml": RELEASE, "releases/prompts/support.md": PROMPT}


@click.command("init", epilog=examples("cohort init\ncohort init --force\ncohort init deploy/"))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("."))
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
@json_option
@with_session
def command(session: Session, folder: Path, force: bool) -> int:
    """Write a commented cohort.yaml, an example release manifest and its prompt into FOLDER (default: here)."""
    there = [name for name in FILES if (folder / name).exists()]
    if there and not force:
        what = f"{', '.join(there)} already there in {folder.absolute()}"
        raise CohortError("CONFIG_EXISTS", what, hint="Choose another folder, or overwrite with --force.")
    try:
        for name, text in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CohortError(
            "CONFIG_INVALID", f"cannot write into {folder.absolute()}: {error.strerror}", hint="Choose another folder."
        ) from error
    if session.json:
        session.data({"folder": str(folder.absolute()), "files": list(FILES)})
    else:
        for name in FILES:
            session.text(f"wrote {folder / name}")
        session.say("next: cohort up; then cohort release create releases/support-v1.yaml")
    return Exit.DONE
