"""The data directory: what the first start creates, and what must be true before every start."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cohort.base.clock import Clock
from cohort.base.errors import CohortError, Retry
from cohort.base.ids import Entropy, new_id
from cohort.base.settings import DataDir
from cohort.ops.files import PRIVATE_FOLDER, read_json, write_json, write_private

DISK_FREE_BYTES_MIN = 64 << 20
KEY_BYTES = 32
UNIT_KEY_BYTES = 32
OWN_NAMES = {"cohort.lock", "run", "secrets", "installation.json", "gateway", "logs", "workspaces", "executions"} | {
    f"{name}.db{end}" for name in ("cohort", "audit") for end in ("", "-wal", "-shm")
}


@dataclass(frozen=True, slots=True)
class Installation:
    """Who this installation is. `gateway` names its gateway in every outcome record."""

    id: str
    gateway: str
    created_us: int


def new_key(entropy: Entropy) -> str:
    """A secret for people and programs: `ck_` and 43 characters that are safe in URLs and shells, 256 random bits."""
    return "ck_" + base64.urlsafe_b64encode(entropy(KEY_BYTES)).rstrip(b"=").decode()


def open_folder(data: DataDir) -> None:
    """Create the data directory and its folders where they are missing.

    Raises:
        CohortError CONFIG_INVALID: it cannot be created or written, or holds something else.
        CohortError DISK_FULL: less than DISK_FREE_BYTES_MIN free.
    """
    try:
        data.root.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        _refuse_foreign(data)
        for folder in (data.run, data.secrets, data.gateway, data.logs, data.workspaces, data.executions):
            folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    except OSError as error:
        what = f"data_dir: {data.root} cannot be used: {error.strerror}"
        raise CohortError("CONFIG_INVALID", what, field="data_dir", hint="Choose a folder you may write to.") from error
    if not os.access(data.root, os.W_OK | os.X_OK):
        raise CohortError(
            "CONFIG_INVALID", f"data_dir: {data.root} is not writable", field="data_dir", hint="Choose a folder you may write to."
        )
    free = shutil.disk_usage(data.root).free
    if free < DISK_FREE_BYTES_MIN:
        what = f"{free >> 20} MiB are free for {data.root}, {DISK_FREE_BYTES_MIN >> 20} MiB are needed to start"
        raise CohortError("DISK_FULL", what, retry=Retry.SAFE, hint="Free some disk space, or move data_dir.")


def _refuse_foreign(data: DataDir) -> None:
    names = {entry.name for entry in data.root.iterdir()}
    if names and not data.installation.exists() and not names <= OWN_NAMES:
        what = f"data_dir: {data.root} holds other files, for example {min(names - OWN_NAMES)}"
        raise CohortError("CONFIG_INVALID", what, field="data_dir", hint="Choose an empty folder, or one that `cohort up` created.")


def known_installation(data: DataDir) -> str | None:
    """The id of the installation in this data directory; None when there is none."""
    body = read_json(data.installation)
    return None if body is None else str(body["id"])


def ensure_installation(data: DataDir, clock: Clock, entropy: Entropy) -> Installation:
    """The installation in this data directory, created with its secrets at the first call."""
    secrets: dict[Path, Callable[[], str]] = {
        data.unit_key: lambda: entropy(UNIT_KEY_BYTES).hex(),
        data.link_token: lambda: new_key(entropy),
        data.operator_key: lambda: new_key(entropy),
    }
    for path, make in secrets.items():
        if not path.exists():
            write_private(path, make().encode())
    body = read_json(data.installation)
    if body is None:
        body = {"id": new_id("in", entropy), "gateway": new_id("gw", entropy), "created_us": clock.now_us()}
        write_json(data.installation, body)
    return Installation(str(body["id"]), str(body["gateway"]), int(body["created_us"]))


def ensure_admin_key(data: DataDir, entropy: Entropy, show: Callable[[str], None]) -> None:
    """Create the admin key when there is none. It is shown before its hash is kept, so a key that was not shown never counts."""
    if data.admin_key_sha256.exists():
        return
    key = new_key(entropy)
    show(key)
    # Commit point: the key counts from here on; before it, the next start makes another.
    write_private(data.admin_key_sha256, hashlib.sha256(key.encode()).hexdigest().encode())


def compact(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
