"""The data directory at its first start and at every later one."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import stat
from pathlib import Path

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.base.settings import ControlSettings, DatabaseSettings, DataDir, GatewaySettings, Settings, load_settings
from cohort.ops.configurations import listeners
from cohort.ops.files import disk_full, read_json, write_private
from cohort.ops.house import Talk, prepare
from cohort.ops.installation import ensure_admin_key, ensure_installation, open_folder
from support_processes import free_ports


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    made = DataDir(tmp_path / "data")
    open_folder(made)
    return made


def test_folders_and_secrets_are_for_their_owner_only(data: DataDir) -> None:
    ensure_installation(data, ManualClock(), secrets.token_bytes)
    ensure_admin_key(data, secrets.token_bytes, lambda _: None)
    for path in (data.root, data.secrets, data.run, data.logs, data.gateway):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    names = {path.name for path in data.secrets.iterdir()}
    assert names == {"unit.key", "link.token", "operator.key", "admin.key.sha256"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in data.secrets.iterdir()} == {0o600}


def test_a_later_start_finds_the_same_installation_and_secrets(data: DataDir) -> None:
    first = ensure_installation(data, ManualClock(), secrets.token_bytes)
    kept = {path: path.read_bytes() for path in data.secrets.iterdir()}
    assert ensure_installation(data, ManualClock(5), secrets.token_bytes) == first
    assert {path: path.read_bytes() for path in data.secrets.iterdir()} == kept


def test_the_unit_key_is_32_bytes_in_hexadecimal(data: DataDir) -> None:
    ensure_installation(data, ManualClock(), secrets.token_bytes)
    assert len(bytes.fromhex(data.unit_key.read_text())) == 32


def test_the_admin_key_is_shown_once_and_only_its_hash_is_kept(data: DataDir) -> None:
    shown: list[str] = []
    ensure_admin_key(data, secrets.token_bytes, shown.append)
    ensure_admin_key(data, secrets.token_bytes, shown.append)
    assert len(shown) == 1
    assert shown[0].startswith("ck_")
    assert data.admin_key_sha256.read_text() == hashlib.sha256(shown[0].encode()).hexdigest()
    kept = b"".join(path.read_bytes() for path in data.root.rglob("*") if path.is_file())
    assert shown[0].encode() not in kept


def test_a_key_that_could_not_be_shown_does_not_count(data: DataDir) -> None:
    def broken(_: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        ensure_admin_key(data, secrets.token_bytes, broken)
    assert not data.admin_key_sha256.exists()


def test_a_folder_with_other_files_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(CohortError) as caught:
        open_folder(DataDir(tmp_path))
    assert (caught.value.code, caught.value.field) == ("CONFIG_INVALID", "data_dir")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    with pytest.raises(CohortError) as caught:
        open_folder(DataDir(tmp_path / "data"))
    assert str(tmp_path / "data") in caught.value.message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_keeps_the_old_contents(tmp_path: Path) -> None:
    path = tmp_path / "value"
    write_private(path, b"old")
    os.symlink("/dev/full", tmp_path / f".value.{os.getpid()}")
    with pytest.raises(CohortError) as caught:
        write_private(path, b"new")
    assert caught.value.code == disk_full(tmp_path).code == "DISK_FULL"
    assert path.read_bytes() == b"old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["value"]


def test_a_json_file_that_is_damaged_reads_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("{")
    assert read_json(tmp_path / "x") is None
    assert read_json(tmp_path / "none") is None


def test_configurations_hold_no_secret_and_change_their_name_with_their_contents(data: DataDir) -> None:
    gateway_port, control_port = free_ports(2)
    settings = Settings(
        data.root,
        GatewaySettings(port=gateway_port, limits={"drain_s": 5}),
        ControlSettings(port=control_port),
        DatabaseSettings("postgresql://u:hush@db/x"),
    )
    installation = ensure_installation(data, ManualClock(), secrets.token_bytes)
    control, gateway = listeners(settings, installation)
    written = json.loads(Path(control.spec.argv[-1]).read_text())
    assert written["database_url"] == f"file:{data.database_url}"
    assert data.database_url.read_text() == "postgresql://u:hush@db/x"
    texts = [Path(listener.spec.argv[-1]).read_text() for listener in (control, gateway)]
    hidden = [path.read_text() for path in (data.unit_key, data.link_token, data.operator_key)]
    assert not [secret for secret in [*hidden, "hush"] if any(secret in text for text in texts)]
    assert listeners(settings, installation)[1].spec.argv == gateway.spec.argv
    assert gateway.spec.stop_s > 5
    changed = listeners(Settings(data.root, GatewaySettings(port=gateway_port)), installation)
    assert changed[1].spec.argv != gateway.spec.argv
    assert changed[1].spec.argv[:-1] == gateway.spec.argv[:-1]


def test_a_wrong_limit_is_told_before_anything_starts(data: DataDir) -> None:
    settings = Settings(data.root, GatewaySettings(limits={"drain_ss": 5}))
    installation = ensure_installation(data, ManualClock(), secrets.token_bytes)
    with pytest.raises(CohortError) as caught:
        listeners(settings, installation)
    assert (caught.value.code, "drain_ss" in caught.value.message) == ("CONFIG_INVALID", True)


def test_the_names_of_the_gateway_reach_it_and_a_wrong_one_is_told_before_anything_starts(data: DataDir) -> None:
    installation = ensure_installation(data, ManualClock(), secrets.token_bytes)
    named = load_settings({"COHORT_GATEWAY_HOSTS": "cohort, gateway.internal"}, folder=data.root, data_dir=data.root)
    config = Path(listeners(named, installation)[1].spec.argv[-1])
    assert json.loads(config.read_text())["hosts"] == ["cohort", "gateway.internal"]
    with pytest.raises(CohortError) as caught:
        listeners(Settings(data.root, GatewaySettings(hosts=("http://x",))), installation)
    assert (caught.value.code, caught.value.field) == ("CONFIG_INVALID", "gateway.hosts")


def test_a_wrong_server_of_answers_is_told_before_anything_starts(data: DataDir) -> None:
    installation = ensure_installation(data, ManualClock(), secrets.token_bytes)
    assert listeners(Settings(data.root, GatewaySettings(cache_redis="redis://127.0.0.1:6379/0")), installation)
    with pytest.raises(CohortError) as caught:
        listeners(Settings(data.root, GatewaySettings(cache_redis="http://x")), installation)
    assert (caught.value.code, caught.value.field) == ("CONFIG_INVALID", "gateway.cache_redis")
    assert "redis://HOST:PORT/DATABASE" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [(None, 0o600, "cannot be read"), ("", 0o600, "is empty"), ("a-password", 0o644, "can be read by other users"), ("short", 0o600, None)],
)
def test_a_wrong_file_for_the_password_of_redis_is_told_before_anything_starts(
    data: DataDir, tmp_path: Path, text: str | None, mode: int, said: str | None
) -> None:
    installation, file = ensure_installation(data, ManualClock(), secrets.token_bytes), tmp_path / "password"
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    settings = Settings(data.root, GatewaySettings(cache_redis="redis://127.0.0.1:6379/0", cache_redis_password_file=str(file)))
    if said is None:
        assert listeners(settings, installation)
        return
    with pytest.raises(CohortError, match=said) as caught:
        listeners(settings, installation)
    assert (caught.value.code, caught.value.field) == ("CONFIG_INVALID", "gateway.cache_redis_password_file")


def test_a_removed_secret_is_made_anew_and_the_others_stay(data: DataDir) -> None:
    ensure_installation(data, ManualClock(), secrets.token_bytes)
    kept = data.unit_key.read_text()
    data.link_token.unlink()
    ensure_installation(data, ManualClock(), secrets.token_bytes)
    assert data.link_token.exists()
    assert data.unit_key.read_text() == kept
    shutil.rmtree(data.root)


def test_samples_of_workers_that_are_no_more_do_not_stay(data: DataDir) -> None:
    for number in (1, 2, 3):
        (data.worker_folder(number) / "contents").mkdir(parents=True)
        (data.worker_folder(number) / "contents" / f"1-1-stable.{'a' * 32}").write_text("{}")
    gateway_port, control_port = free_ports(2)
    settings = Settings(data.root, GatewaySettings(port=gateway_port, workers=2), ControlSettings(port=control_port))
    prepare(settings, ManualClock(), secrets.token_bytes, Talk(lambda _: None, lambda _: None, lambda _: None))
    assert [(data.worker_folder(number) / "contents").exists() for number in (1, 2, 3)] == [True, True, False]
