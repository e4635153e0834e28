"""What a gateway process is told: one JSON file, written by whoever starts it."""

from __future__ import annotations

import dataclasses
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from cohort.base.errors import CohortError
from cohort.gateway.addresses import LOOPBACK_ONLY, NETWORKS_MAX, Network, networks
from cohort.gateway.hosts import NAME
from cohort.gateway.telemetry.onward import TraceMode

CONFIG_BYTES_MAX = 1 << 20
KEY_BYTES_MIN = 16
PORT_MAX = 65535
HOSTS_MAX = 100
SIBLINGS_MAX = 64
LIMIT_MAX = 1e15
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Limits:
    """Every limit of the process, by name. Bytes, seconds (`_s`) or milliseconds (`_ms`); counts have no unit."""

    # clients
    body_bytes_max: int = 8 << 20
    head_bytes_max: int = 32 << 10
    head_read_s: float = 10.0
    body_read_s: float = 30.0
    keep_alive_s: float = 75.0
    connections_max: int = 4096
    pipelined_max: int = 64
    write_high_bytes: int = 256 << 10
    linger_s: float = 2.0
    drain_s: float = 30.0
    drain_idle_s: float = 0.5
    # upstreams
    connect_s: float = 5.0
    connect_retry_wait_s: float = 0.05
    upstream_connections_max: int = 512
    upstream_waiters_max: int = 1024
    queue_age_s_max: float = 2.0
    loop_late_s_max: float = 0.5
    upstream_idle_s: float = 30.0
    upstream_head_bytes_max: int = 64 << 10
    answer_bytes_max: int = 32 << 20
    read_ahead_bytes: int = 256 << 10
    key_fresh_s: float = 30.0
    # responses that a later call may go on from
    responses_max: int = 10_000
    responses_bytes_max: int = 256 << 20
    response_bytes_max: int = 4 << 20
    responses_kept_s: float = 7 * 86_400.0
    # samples of content
    contents_max: int = 1000
    contents_bytes_max: int = 16 << 20
    contents_kept_s: float = 3 * 86_400.0
    # shadow copies
    shadow_in_flight_max: int = 64
    shadow_shed_in_flight: int = 256
    # caches
    cache_bytes_max: int = 64 << 20
    cache_entries_max: int = 10_000
    cache_answer_bytes_max: int = 1 << 20
    cache_disk_bytes_max: int = 1 << 30
    cache_disk_entries_max: int = 50_000
    cache_shared_wait_s: float = 0.05
    cache_semantic_bytes_max: int = 64 << 20
    cache_semantic_entries_max: int = 10_000
    cache_embeddings_wait_s: float = 0.5
    cache_embeddings_rest_s: float = 1.0
    # spool
    spool_segment_bytes: int = 16 << 20
    spool_bytes_max: int = 1 << 30
    spool_sync_s: float = 1.0
    spool_damaged_max: int = 8
    outcomes_records_max: int = 2000
    outcomes_bytes_max: int = 1 << 20
    outcomes_wait_ms_max: int = 30_000
    rollouts_remembered: int = 64


@dataclass(frozen=True, slots=True)
class Settings:
    """`data_dir` belongs to this process alone. The key files hold the installation's unit key (hexadecimal) and control's bearer token.

    `access_log`: write one. `shared_dir`: where the workers of this machine share what they must; None: `data_dir`.
    `cache_redis`: a server for answers shared by gateways, `redis://HOST:PORT/DATABASE` or `unix:/PATH`.
    `hosts`: names besides those of loopback by which callers may call it. `traceparent`: what upstreams get of the caller's trace.
    `siblings`: sockets of the other workers of this gateway.
    """

    gateway_id: str
    host: str
    port: int
    data_dir: Path
    unit_key_file: Path
    link_token_file: Path
    expose: bool = False
    access_log: bool = False
    shared_dir: Path | None = None
    cache_redis: str | None = None
    cache_redis_password_file: Path | None = None
    limits: Limits = field(default_factory=Limits)
    private_upstreams: tuple[Network, ...] = networks(LOOPBACK_ONLY)
    link_socket: Path | None = None
    siblings: tuple[Path, ...] = ()
    hosts: tuple[str, ...] = ()
    traceparent: TraceMode = TraceMode.PASS


def load_settings(path: Path) -> Settings:
    """The settings in the JSON file at `path`.

    Raises:
        CohortError CONFIG_MISSING: no such file. CONFIG_INVALID: not JSON, or a wrong field, named.
            BIND_REFUSED: a host that others can reach, without `expose`.
    """
    body = _document(path)
    limits = _limits(body.pop("limits", {}))
    names = {f.name for f in dataclasses.fields(Settings)}
    for name in body:
        if name not in names:
            raise _invalid(name, "unknown field", f"Remove `{name}`, or use one of: {', '.join(sorted(names))}.")
    settings = Settings(
        gateway_id=_text(body, "gateway_id"),
        host=_text(body, "host"),
        port=_port(body),
        data_dir=Path(_text(body, "data_dir")),
        unit_key_file=Path(_text(body, "unit_key_file")),
        link_token_file=Path(_text(body, "link_token_file")),
        expose=_flag(body, "expose"),
        access_log=_flag(body, "access_log"),
        shared_dir=Path(_text(body, "shared_dir")) if body.get("shared_dir") is not None else None,
        cache_redis=_text(body, "cache_redis") if body.get("cache_redis") is not None else None,
        cache_redis_password_file=Path(password) if (password := body.get("cache_redis_password_file")) else None,
        limits=limits,
        link_socket=Path(_text(body, "link_socket")) if body.get("link_socket") is not None else None,
        siblings=_sockets(body.get("siblings", [])),
        private_upstreams=_networks(body.get("private_upstreams", list(LOOPBACK_ONLY))),
        hosts=_hosts(body.get("hosts", [])),
        traceparent=_trace_mode(body.get("traceparent", TraceMode.PASS.value)),
    )
    if settings.host not in LOOPBACK and not settings.expose:
        raise CohortError(
            "BIND_REFUSED",
            f"{settings.host} can be reached from other machines",
            field="host",
            hint="Use 127.0.0.1, or set `expose: true`.",
        )
    return settings


def read_secret(path: Path, field_name: str, chars_min: int = KEY_BYTES_MIN) -> str:
    """The first line of a file that only its owner may read.

    Raises:
        CohortError CONFIG_INVALID: missing, readable by others, or too short. The message never holds the secret.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(field_name, f"{path} cannot be read: {type(error).__name__}", f"Write the key to {path}.") from error
    if stat.S_IMODE(mode) & 0o077:
        raise _invalid(field_name, f"{path} can be read by other users", f"Run: chmod 600 {path}")
    if len(text) < chars_min:
        what = f"{path} holds fewer than {chars_min} characters" if text else f"{path} is empty"
        raise _invalid(field_name, what, f"Write a longer key to {path}." if text else f"Write the key to {path}.")
    return text


def read_unit_key(path: Path) -> bytes:
    """The installation's key for pseudonyms; raises CohortError CONFIG_INVALID."""
    try:
        return bytes.fromhex(read_secret(path, "unit_key_file"))
    except ValueError as error:
        raise _invalid("unit_key_file", f"{path} is not hexadecimal", f"Write 64 hexadecimal digits to {path}.") from error


def _document(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        data = path.read_bytes()
    except OSError as error:
        raise CohortError(
            "CONFIG_MISSING", f"{path} cannot be read: {os.strerror(error.errno or 0)}", hint="Give --config FILE."
        ) from error
    try:
        body = orjson.loads(data) if size <= CONFIG_BYTES_MAX else None
    except orjson.JSONDecodeError as error:
        raise CohortError("CONFIG_INVALID", f"{path} is not JSON: {error}", hint=f"Mend {path}.") from error
    if not isinstance(body, dict):
        raise CohortError("CONFIG_INVALID", f"{path} is not a JSON object of at most {CONFIG_BYTES_MAX} bytes", hint=f"Mend {path}.")
    return body


def _near(name: str, known: list[str]) -> str:
    from difflib import get_close_matches  # costs memory, which a gateway that starts has no use for

    near = get_close_matches(name, known, n=1)
    return f"Did you mean `{near[0]}`?" if near else f"Use one of: {', '.join(known)}."


def _limits(body: Any) -> Limits:
    if not isinstance(body, dict):
        raise _invalid("limits", "must be an object", "Write `limits: {name: number}`.")
    defaults: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(Limits)}
    for name, value in body.items():
        if name not in defaults:
            raise _invalid(f"limits.{name}", "unknown limit", _near(str(name), sorted(defaults)))
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LIMIT_MAX:
            raise _invalid(
                f"limits.{name}", f"must be a number above 0 and at most {LIMIT_MAX:g}, found {value!r}", f"Correct `limits.{name}`."
            )
        if isinstance(defaults[name], int) and value != int(value):
            raise _invalid(f"limits.{name}", f"must be a whole number, found {value!r}", f"Correct `limits.{name}`.")
    return Limits(**{name: type(defaults[name])(value) for name, value in body.items()})


def _trace_mode(value: Any) -> TraceMode:
    known = [mode.value for mode in TraceMode]
    if value not in known:
        raise _invalid("traceparent", f"must be one of {', '.join(known)}, found {value!r}"[:200], "Correct `traceparent`.")
    return TraceMode(value)


def _networks(texts: Any) -> tuple[Network, ...]:
    name, fix = "private_upstreams", "Write networks such as 127.0.0.0/8 or 10.1.2.3/32."
    if not isinstance(texts, list) or len(texts) > NETWORKS_MAX or not all(isinstance(text, str) for text in texts):
        raise _invalid(name, f"must be a list of at most {NETWORKS_MAX} networks", fix)
    try:
        return networks(texts)
    except ValueError as error:
        raise _invalid(name, str(error), fix) from error


def _sockets(texts: Any) -> tuple[Path, ...]:
    if not isinstance(texts, list) or len(texts) > SIBLINGS_MAX or not all(isinstance(text, str) and text for text in texts):
        raise _invalid("siblings", f"must be a list of at most {SIBLINGS_MAX} paths", "Write the `link_socket` of each other worker.")
    return tuple(map(Path, texts))


def _hosts(names: Any) -> tuple[str, ...]:
    wrong = names if not isinstance(names, list) or len(names) > HOSTS_MAX else [name for name in names if not _is_host(name)]
    if wrong or not isinstance(names, list):
        what = f"must be a list of at most {HOSTS_MAX} names without a port, found {wrong!r}"
        raise _invalid("hosts", what[:200], "Write names such as gateway.internal.")
    return tuple(name.lower() for name in names)


def _is_host(name: Any) -> bool:
    return isinstance(name, str) and NAME.fullmatch(name.lower()) is not None


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise _invalid(name, "missing" if value is None else f"must be text, found {value!r}", f"Set `{name}`.")
    return value


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise _invalid(name, f"must be true or false, found {value!r}"[:200], f"Correct `{name}`.")
    return value


def _port(body: dict[str, Any]) -> int:
    value = body.get("port")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= PORT_MAX:
        raise _invalid("port", f"must be a number from 0 to {PORT_MAX}, found {value!r}", "Set `port` (0: any free one).")
    return value


def _invalid(name: str, what: str, hint: str) -> CohortError:
    return CohortError("CONFIG_INVALID", f"gateway settings: {name}: {what}", field=name, hint=hint)
