"""The data directory that Cohort makes as root, tried from the private user that commands run as where nothing but permissions holds them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from cohort.base.settings import DataDir
from cohort.ops.installation import open_folder
from support_ordinary import python

PRIVATE_UID = 200_007
TRY = """
import os, sys
for path in sys.argv[1:]:
    for flags in (os.O_RDONLY, os.O_WRONLY):
        try:
            os.close(os.open(path, flags))
            print(path)
        except (PermissionError, IsADirectoryError):
            pass
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs commands as another user")
def test_what_root_keeps_is_closed_to_the_private_user_of_a_command() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        data = DataDir(Path(name) / "data")
        open_folder(data)
        kept = [data.operator_key, data.audit_key, data.audit, data.database, data.log("control"), data.executions / "a"]
        for path in kept:
            path.write_text("kept")
            path.chmod(0o644)  # the folder alone has to hold
        tried = [str(path) for path in (data.root, data.secrets, data.workspaces, *kept)]
        user = {"user": PRIVATE_UID, "group": PRIVATE_UID, "extra_groups": []}
        done = subprocess.run([python(), "-I", "-c", TRY, *tried], capture_output=True, text=True, check=True, cwd="/", **user)
        assert done.stdout == ""
        data.root.chmod(0o755)  # what is tried can succeed
        again = subprocess.run([python(), "-I", "-c", TRY, str(kept[2])], capture_output=True, text=True, check=True, cwd="/", **user)
        assert again.stdout == f"{kept[2]}\n"
