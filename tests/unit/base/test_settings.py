"""Settings: the file, the variables and the defaults, and what is wrong with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cohort.base.errors import CohortError
from cohort.base.settings import load_settings, resolve_reference
from support_processes import environment


def write(folder: Path, text: str) -> Path:
    path = folder / "cohort.yaml"
    path.write_text(text)
    return path


def test_without_a_file_everything_is_on_loopback_and_kept_beside_the_caller(tmp_path: Path) -> None:
    settings = load_settings({}, folder=tmp_path)
    assert settings.data_dir == tmp_path.resolve() / ".cohort"
    assert (settings.gateway_url, settings.control_url) == ("http://127.0.0.1:8700", "http://127.0.0.1:8710")
    assert settings.database.url is None
    assert settings.source is None


def test_defaults_need_neither_pydantic_nor_yaml(tmp_path: Path) -> None:
    program = "import sys; from cohort.base.settings import load_settings; load_settings({}); print('pydantic' in sys.modules or 'yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment())
    assert done.stdout == "False\n"


def test_the_file_is_found_and_its_data_directory_is_relative_to_it(tmp_path: Path) -> None:
    write(tmp_path, "data_dir: data\ngateway: {port: 9000, limits: {drain_s: 5}}\ncontrol:\n  # port: 1\n")
    settings = load_settings({}, folder=tmp_path)
    assert settings.data_dir == tmp_path.resolve() / "data"
    assert (settings.gateway.port, settings.gateway.limits, settings.control.port) == (9000, {"drain_s": 5}, 8710)


def test_a_file_of_comments_says_nothing(tmp_path: Path) -> None:
    write(tmp_path, "# nothing yet\n\n  # at all\n")
    assert load_settings({}, folder=tmp_path).gateway.port == 8700


def test_the_file_that_init_writes_is_the_defaults(tmp_path: Path) -> None:
    from cohort.surfaces.cli.init import CONFIG

    write(tmp_path, CONFIG)
    written, default = load_settings({}, folder=tmp_path), load_settings({}, folder=tmp_path / "elsewhere")
    assert (written.gateway, written.control, written.database) == (default.gateway, default.control, default.database)
    assert written.data_dir == tmp_path.resolve() / ".cohort"


def test_every_commented_line_that_init_writes_is_valid_too(tmp_path: Path) -> None:
    from cohort.surfaces.cli.init import CONFIG

    section = ("  # host", "  # port", "  # expose", "  # limits", "  # url")
    text = "\n".join(line.replace("  # ", "  ", 1) if line.startswith(section) else line for line in CONFIG.splitlines())
    write(tmp_path, text)
    assert load_settings({}, folder=tmp_path).gateway.limits == {"body_bytes_max": 8388608, "connections_max": 4096}


def test_variables_beat_the_file_and_the_option_beats_both(tmp_path: Path) -> None:
    write(tmp_path, "data_dir: data\ngateway: {port: 9000}\n")
    environment = {"COHORT_GATEWAY_PORT": "9100", "COHORT_DATA_DIR": "other", "COHORT_CONTROL_HOST": "::1"}
    settings = load_settings(environment, folder=tmp_path)
    assert (settings.gateway.port, settings.data_dir) == (9100, tmp_path.resolve() / "other")
    assert settings.control_url == "http://[::1]:8710"
    assert load_settings(environment, folder=tmp_path, data_dir=tmp_path / "third").data_dir == tmp_path.resolve() / "third"


def test_a_database_variable_is_kept_as_a_reference_and_its_text_nowhere(tmp_path: Path) -> None:
    environment = {"COHORT_DATABASE_URL": "postgresql://u:hush@db/x"}
    settings = load_settings(environment, folder=tmp_path)
    assert settings.database.url == "env:COHORT_DATABASE_URL"
    assert "hush" not in repr(settings)
    assert resolve_reference(settings.database.url, environment) == "postgresql://u:hush@db/x"


@pytest.mark.parametrize(
    ("text", "place", "field", "hint"),
    [
        ("gateway:\n  hosst: x\n", ":2: gateway.hosst: unknown field", "gateway.hosst", "Did you mean `host`?"),
        ("gateway:\n  port: 70000\n", ":2: gateway.port:", "gateway.port", "Correct `gateway.port`."),
        ("\ngateway:\n  host: 0.0.0.0\n", ":3: gateway.host: 0.0.0.0 is not loopback", "gateway.host", "expose: true"),
        ("control:\n  host: my.host\n", ":2: control.host: not an IP address", "control.host", "IP address"),
        ("control: {port: 8700}\n", ":1: control.port: 8700 is the gateway's port too", "control.port", "different ports"),
        (
            "gateway: {limits: {drain_s: -1}}\n",
            ":1: gateway.limits.drain_s: input",
            "gateway.limits.drain_s",
            "Correct `gateway.limits.drain_s`.",
        ),
        *(
            (f"{section}: {{{name}: {value}}}\n", f":1: {section}.{name}: input", f"{section}.{name}", f"Correct `{section}.{name}`.")
            for section, name in (
                ("gateway", "port"),
                ("gateway", "workers"),
                ("control", "port"),
                ("kernel", "max_disk_mb"),
                ("kernel", "max_files"),
                ("kernel", "identity_token_expiration_s"),
                ("kernel", "isolation_min"),
                ("kernel", "approvers_needed"),
            )
            for value in ("1.5", "true", "'1'")
        ),
        ("gateway: {expose: 'no'}\n", ":1: gateway.expose: input", "gateway.expose", "Correct `gateway.expose`."),
        ("- a\n", ":1: expected a mapping", None, ""),
        ("gateway: [\n", ":", None, ""),
    ],
)
def test_a_wrong_file_names_the_line_the_field_and_the_fix(tmp_path: Path, text: str, place: str, field: str | None, hint: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(CohortError) as caught:
        load_settings({}, folder=tmp_path)
    assert caught.value.code == "CONFIG_INVALID"
    assert caught.value.message.startswith(str(path))
    assert place in caught.value.message
    assert field is None or caught.value.field == field
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [("COHORT_GATEWAY_PORT", "0"), ("COHORT_CONTROL_PORT", "http"), ("COHORT_GATEWAY_EXPOSE", "maybe"), ("COHORT_CONTROL_HOST", "0.0.0.0")],
)
def test_a_wrong_variable_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(CohortError) as caught:
        load_settings({name: value}, folder=tmp_path)
    assert (caught.value.code, name in caught.value.message) == ("CONFIG_INVALID", True)


def test_a_file_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(CohortError) as caught:
        load_settings({}, config=tmp_path / "no.yaml")
    assert caught.value.code == "CONFIG_MISSING"


def test_a_reference_to_nothing_names_itself_and_not_its_text(tmp_path: Path) -> None:
    for reference in ("env:NOT_SET", f"file:{tmp_path / 'none'}"):
        with pytest.raises(CohortError) as caught:
            resolve_reference(reference, {})
        assert reference in caught.value.message


def test_exposed_addresses_are_reached_by_loopback_from_here(tmp_path: Path) -> None:
    settings = load_settings({"COHORT_GATEWAY_HOST": "0.0.0.0", "COHORT_GATEWAY_EXPOSE": "true"}, folder=tmp_path)
    assert settings.gateway_url == "http://127.0.0.1:8700"


def test_the_settings_of_the_kernel_have_their_names_and_defaults(tmp_path: Path) -> None:
    kernel = load_settings({}, folder=tmp_path).kernel
    assert (kernel.max_disk_mb, kernel.max_files, kernel.identity_token_expiration_s, kernel.require_user_approval) == (
        100,
        1000,
        3600,
        True,
    )
    variables = {
        "COHORT_MAX_DISK_MB": "7",
        "COHORT_MAX_FILES": "8",
        "COHORT_REQUIRE_USER_APPROVAL": "false",
        "COHORT_AUDIT_LOG_PATH": "a.db",
    }
    kernel = load_settings(variables, folder=tmp_path).kernel
    assert (kernel.max_disk_mb, kernel.max_files, kernel.require_user_approval) == (7, 8, False)
    assert kernel.audit_log_path == str(tmp_path / "a.db")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("COHORT_MAX_DISK_MB", "0"),
        ("COHORT_MAX_FILES", "many"),
        ("COHORT_IDENTITY_TOKEN_EXPIRATION", "3601"),
        ("COHORT_ISOLATION_MIN", "6"),
    ],
)
def test_a_wrong_variable_of_the_kernel_is_named(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(CohortError) as caught:
        load_settings({variable: value}, folder=tmp_path)
    assert (caught.value.code, caught.value.field) == ("CONFIG_INVALID", variable)


def test_a_secret_of_the_webhook_has_to_be_a_reference(tmp_path: Path) -> None:
    write(tmp_path, "kernel:\n  approval_webhook: {url: 'https://example.com/ask', secret: hush}\n")
    with pytest.raises(CohortError) as caught:
        load_settings({}, folder=tmp_path)
    assert caught.value.code == "CONFIG_INVALID"
    assert caught.value.field == "kernel.approval_webhook.secret"
    assert "hush" not in str(caught.value)


def test_hosts_that_may_be_private_are_a_list_of_hosts_with_ports(tmp_path: Path) -> None:
    write(tmp_path, "kernel: {egress_private: ['wiki.example:443']}\n")
    assert load_settings({}, folder=tmp_path).kernel.egress_private == ("wiki.example:443",)
    write(tmp_path, "kernel: {egress_private: [wiki.example]}\n")
    with pytest.raises(CohortError, match="egress_private") as caught:
        load_settings({}, folder=tmp_path)
    assert caught.value.code == "CONFIG_INVALID"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("https://cohort.example.com", "https://cohort.example.com"),
        ("https://Cohort.Example.COM:443/", "https://cohort.example.com"),
        ("http://cohort.example.com:8080", "http://cohort.example.com:8080"),
        ("http://cohort:443", "http://cohort:443"),
    ],
)
def test_the_public_address_is_kept_as_a_browser_writes_an_origin(tmp_path: Path, written: str, kept: str) -> None:
    write(tmp_path, f"control: {{public_url: '{written}'}}\n")
    assert load_settings({}, folder=tmp_path).control.public_url == kept
    assert load_settings({"COHORT_CONTROL_PUBLIC_URL": written}, folder=tmp_path).control.public_url == kept


@pytest.mark.parametrize(
    "url",
    ["cohort.example.com", "ftp://a.example", "https://a.example/mcp", "https://u:p@a.example", "https://a.example:70000", "https://a b"],
)
def test_a_public_address_that_is_no_origin_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(CohortError) as caught:
        load_settings({"COHORT_CONTROL_PUBLIC_URL": url}, folder=tmp_path)
    assert (caught.value.code, caught.value.field) == ("CONFIG_INVALID", "control.public_url")
    assert "COHORT_CONTROL_PUBLIC_URL" in caught.value.message
