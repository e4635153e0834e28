"""What an installation is configured to do: `cohort.yaml`, overridden by COHORT_ variables, as frozen values.

Reading a file imports pydantic and YAML; without a file nothing heavy is imported.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cohort.base.errors import CohortError
from cohort.base.settings_embeddings import EmbeddingsSettings
from cohort.base.settings_kernel import LEVEL_MAX, TOKEN_LIFE_S_MAX, KernelSettings, whole_number

CONFIG_NAME = "cohort.yaml"
DATA_DIR_NAME = ".cohort"
GATEWAY_PORT = 8700
CONTROL_PORT = 8710
PORT_MAX = 65535
PREFIX = "COHORT_"
ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)(:(?P<port>[1-9][0-9]{0,4}))?/?")
WORKERS_MAX = 64
TRACE_MODES = ("pass", "continue", "drop")
LOOPBACK_ONLY = ("127.0.0.0/8", "::1/128")


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Where the gateway listens. `limits` overrides the gateway's own limits by name; `expose` allows an address other machines can reach.

    `workers`: processes that serve side by side. `private_upstreams`: networks that releases may have upstreams in though they are not public.
    `access_log`: a line for every call. `cache_redis`: the server for answers that gateways share, `redis://HOST:PORT/DATABASE` or `unix:/PATH`.
    `hosts`: names besides those of loopback by which callers call it. `traceparent`: what upstreams get of a caller's trace, of TRACE_MODES.
    """

    host: str = "127.0.0.1"
    port: int = GATEWAY_PORT
    expose: bool = False
    access_log: bool = False
    cache_redis: str | None = None
    cache_redis_password_file: str | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    private_upstreams: tuple[str, ...] = LOOPBACK_ONLY
    workers: int = 1
    hosts: tuple[str, ...] = ()
    traceparent: str = "pass"

    def __post_init__(self) -> None:
        object.__setattr__(self, "private_upstreams", tuple(self.private_upstreams))
        object.__setattr__(self, "hosts", tuple(self.hosts))


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Where the API and the dashboard listen. `public_url`: how others reach it, such as https://cohort.example.com behind a proxy with TLS."""

    host: str = "127.0.0.1"
    port: int = CONTROL_PORT
    expose: bool = False
    public_url: str | None = None


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """`url`: an SQLAlchemy URL, `env:NAME` or `file:/path`; None means SQLite in the data directory."""

    url: str | None = None


@dataclass(frozen=True, slots=True)
class DataDir:
    """The one directory that holds everything an installation keeps. Only paths; creates nothing."""

    root: Path

    @property
    def lock(self) -> Path:
        """Locked for as long as a supervisor runs."""
        return self.root / "cohort.lock"

    @property
    def run(self) -> Path:
        """What holds only while it runs: the supervisor's state and the configuration of each process."""
        return self.root / "run"

    @property
    def state(self) -> Path:
        """The supervisor's own account: process id, ports, what runs."""
        return self.run / "state.json"

    @property
    def installation(self) -> Path:
        return self.root / "installation.json"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def unit_key(self) -> Path:
        """Key of the unit pseudonyms: 64 hexadecimal digits. Losing it makes old pseudonyms meaningless."""
        return self.secrets / "unit.key"

    @property
    def link_token(self) -> Path:
        """What control shows the gateway."""
        return self.secrets / "link.token"

    @property
    def operator_key(self) -> Path:
        """The key of commands run by this data directory's owner."""
        return self.secrets / "operator.key"

    @property
    def admin_key_sha256(self) -> Path:
        """SHA-256 of the admin key, which itself was shown once."""
        return self.secrets / "admin.key.sha256"

    @property
    def database_url(self) -> Path:
        """A database URL written in `cohort.yaml`, kept out of command lines and other files."""
        return self.secrets / "database.url"

    @property
    def gateway(self) -> Path:
        """The gateway's own: routing table and spool."""
        return self.root / "gateway"

    def worker_folder(self, number: int) -> Path:
        """One worker's own: routing table and spool."""
        return self.gateway if number == 1 else self.gateway / str(number)

    def gateway_lock(self, number: int) -> Path:
        """Locked by the worker that serves; its process id is in it."""
        return self.worker_folder(number) / "lock"

    def worker_socket(self, number: int) -> Path:
        """Where control reaches one of several workers of the gateway."""
        return self.run / f"gateway-{number}.sock"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log(self, process: str) -> Path:
        return self.logs / f"{process}.log"

    @property
    def database(self) -> Path:
        return self.root / "cohort.db"

    @property
    def audit(self) -> Path:
        """The audit log's own database, so that its commits wait for nobody."""
        return self.root / "audit.db"

    @property
    def audit_key(self) -> Path:
        """What checkpoints of the audit log are signed with."""
        return self.secrets / "audit.key"

    @property
    def token_keys(self) -> Path:
        """The folder of the keys that agents' tokens are signed with."""
        return self.secrets / "tokens"

    @property
    def workspaces(self) -> Path:
        return self.root / "workspaces"

    @property
    def executions(self) -> Path:
        """The journal of what was executed, kept apart from what was decided."""
        return self.root / "executions"


@dataclass(frozen=True, slots=True)
class Settings:
    """A resolved configuration. `source` is the file it came from, None for built-in defaults. `embeddings`: None without a local model."""

    data_dir: Path
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    control: ControlSettings = field(default_factory=ControlSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    kernel: KernelSettings = field(default_factory=KernelSettings)
    embeddings: EmbeddingsSettings | None = None
    source: Path | None = None

    @property
    def data(self) -> DataDir:
        return DataDir(self.data_dir)

    @property
    def gateway_url(self) -> str:
        return f"http://{_reachable(self.gateway.host)}:{self.gateway.port}"

    @property
    def control_url(self) -> str:
        return f"http://{_reachable(self.control.host)}:{self.control.port}"


def load_settings(
    environment: Mapping[str, str], config: Path | None = None, data_dir: Path | None = None, folder: Path | None = None
) -> Settings:
    """The settings in force. Stronger first: `data_dir`, COHORT_ variables, the file, defaults.

    `config` must exist when given; otherwise `cohort.yaml` in `folder` (default: the working directory) is read if it is there.
    Relative data directories are relative to the file's folder, or to `folder` where no file says so.

    Raises:
        CohortError CONFIG_MISSING, CONFIG_INVALID: with the line or variable, the field and the fix.
    """
    folder = (folder or Path.cwd()).absolute()
    path = config.absolute() if config else folder / CONFIG_NAME
    written = _read(path, required=config is not None)
    values, places = (written.values, dict(written.places)) if written else ({}, {})
    base = path.parent if written and "data_dir" in values else folder
    root = base / values.get("data_dir", DATA_DIR_NAME)
    for variable, (section, name, parse) in OVERRIDES.items():
        if variable in environment:
            values = {**values, section: {**values.get(section, {}), name: parse(variable, environment[variable])}}
            places[f"{section}.{name}"] = variable
    if f"{PREFIX}DATA_DIR" in environment:
        root = folder / environment[f"{PREFIX}DATA_DIR"]
    settings = Settings(
        data_dir=(folder / data_dir if data_dir else root).expanduser().resolve(),
        gateway=GatewaySettings(**values.get("gateway", {})),
        control=ControlSettings(**values.get("control", {})),
        database=DatabaseSettings(**values.get("database", {})),
        kernel=KernelSettings.of(values.get("kernel", {}), path.parent if written else folder),
        embeddings=_embeddings(values.get("embeddings"), path.parent if written else folder),
        source=path if written else None,
    )
    return _checked(settings, places)


def _embeddings(said: Mapping[str, Any] | None, base: Path) -> EmbeddingsSettings | None:
    """A port alone, from a variable, asks for no model."""
    return EmbeddingsSettings.of(said, base) if said and "model" in said else None


def resolve_reference(reference: str, environment: Mapping[str, str]) -> str:
    """The text behind `env:NAME` or `file:/path`; anything else is itself.

    Raises:
        CohortError CONFIG_INVALID: the variable or file is not there or empty. The value itself is never shown.
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        if not environment.get(name):
            raise CohortError("CONFIG_INVALID", f"{reference}: the variable {name} is not set", hint=f"Set {name} in the environment.")
        return environment[name]
    if kind == "file":
        try:
            return Path(name).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise CohortError("CONFIG_INVALID", f"{reference}: cannot be read: {error.strerror}", hint=f"Make {name} readable.") from error
    return reference


@dataclass(frozen=True, slots=True)
class Written:
    """What a configuration file says: only the fields it names, and where each stands."""

    values: dict[str, Any]
    places: Mapping[str, str]


def _read(path: Path, *, required: bool) -> Written | None:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if not required:
            return None
        raise CohortError("CONFIG_MISSING", f"no configuration at {path}", hint="Run `cohort init`, or correct --config.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CohortError("CONFIG_INVALID", f"{path} cannot be read: {error}", hint="Make it a readable UTF-8 file.") from error
    from cohort.base.settings_file import parse_settings

    return parse_settings(text, str(path))


def _text(_: str, value: str) -> str:
    return value


def _list(_: str, value: str) -> list[str]:
    return [entry.strip() for entry in value.split(",") if entry.strip()]


def _port(variable: str, value: str) -> int:
    if value.isascii() and value.isdigit() and 1 <= int(value) <= PORT_MAX:
        return int(value)
    raise CohortError(
        "CONFIG_INVALID", f"{variable}: not a port, found {value!r}", field=variable, hint=f"Use a number from 1 to {PORT_MAX}."
    )


def _flag(variable: str, value: str) -> bool:
    answers = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if value.lower() in answers:
        return answers[value.lower()]
    raise CohortError("CONFIG_INVALID", f"{variable}: neither true nor false, found {value!r}", field=variable, hint="Use true or false.")


def _trace_mode(variable: str, value: str) -> str:
    if value in TRACE_MODES:
        return value
    what = f"{variable}: none of {', '.join(TRACE_MODES)}, found {value[:60]!r}"
    raise CohortError("CONFIG_INVALID", what, field=variable, hint=f"Use {', '.join(TRACE_MODES)}.")


def _own_reference(variable: str, _: str) -> str:
    return f"env:{variable}"  # the value stays in the environment


OVERRIDES = {
    f"{PREFIX}GATEWAY_HOST": ("gateway", "host", _text),
    f"{PREFIX}GATEWAY_PORT": ("gateway", "port", _port),
    f"{PREFIX}GATEWAY_EXPOSE": ("gateway", "expose", _flag),
    f"{PREFIX}GATEWAY_ACCESS_LOG": ("gateway", "access_log", _flag),
    f"{PREFIX}GATEWAY_TRACEPARENT": ("gateway", "traceparent", _trace_mode),
    f"{PREFIX}GATEWAY_WORKERS": ("gateway", "workers", whole_number(1, WORKERS_MAX)),
    f"{PREFIX}GATEWAY_PRIVATE_UPSTREAMS": ("gateway", "private_upstreams", _list),
    f"{PREFIX}GATEWAY_HOSTS": ("gateway", "hosts", _list),
    f"{PREFIX}CONTROL_HOST": ("control", "host", _text),
    f"{PREFIX}CONTROL_PORT": ("control", "port", _port),
    f"{PREFIX}CONTROL_EXPOSE": ("control", "expose", _flag),
    f"{PREFIX}CONTROL_PUBLIC_URL": ("control", "public_url", _text),
    f"{PREFIX}EMBEDDINGS_MODEL": ("embeddings", "model", _text),
    f"{PREFIX}EMBEDDINGS_PORT": ("embeddings", "port", _port),
    f"{PREFIX}DATABASE_URL": ("database", "url", _own_reference),
    f"{PREFIX}WORKSPACE_ROOT": ("kernel", "workspace_root", _text),
    f"{PREFIX}MAX_DISK_MB": ("kernel", "max_disk_mb", whole_number(1, 1_000_000)),
    f"{PREFIX}MAX_FILES": ("kernel", "max_files", whole_number(1, 100_000_000)),
    f"{PREFIX}IDENTITY_TOKEN_EXPIRATION": ("kernel", "identity_token_expiration_s", whole_number(1, TOKEN_LIFE_S_MAX)),
    f"{PREFIX}REQUIRE_USER_APPROVAL": ("kernel", "require_user_approval", _flag),
    f"{PREFIX}AUDIT_LOG_PATH": ("kernel", "audit_log_path", _text),
    f"{PREFIX}TRUST_DOMAIN": ("kernel", "trust_domain", _text),
    f"{PREFIX}POLICY_FILE": ("kernel", "policy_file", _text),
    f"{PREFIX}ISOLATION_MIN": ("kernel", "isolation_min", whole_number(0, LEVEL_MAX)),
}
"""Variables that override the file, besides COHORT_DATA_DIR."""


def _checked(settings: Settings, places: Mapping[str, str]) -> Settings:
    for section, listener in (("gateway", settings.gateway), ("control", settings.control)):
        place = places.get(f"{section}.host", str(settings.source))
        address = _address(listener.host, place, f"{section}.host")
        if not address.is_loopback and not listener.expose:
            fix = f"Use 127.0.0.1, or set {section}.expose: true to let other machines connect."
            raise CohortError(
                "CONFIG_INVALID", f"{place}: {section}.host: {listener.host} is not loopback", field=f"{section}.host", hint=fix
            )
    if settings.gateway.port == settings.control.port and settings.gateway.host == settings.control.host:
        place = places.get("control.port", places.get("gateway.port", str(settings.source)))
        what = f"{place}: control.port: {settings.control.port} is the gateway's port too"
        raise CohortError("CONFIG_INVALID", what, field="control.port", hint="Give control and the gateway different ports.")
    _check_embeddings(settings)
    public_url = _origin(settings.control.public_url, places.get("control.public_url", str(settings.source)))
    control = replace(_with_address(settings.control), public_url=public_url)
    return replace(settings, gateway=_with_address(settings.gateway), control=control)


def _check_embeddings(settings: Settings) -> None:
    if settings.embeddings is not None and settings.embeddings.port in (settings.gateway.port, settings.control.port):
        what = f"embeddings.port: {settings.embeddings.port} is the gateway's or control's port too"
        raise CohortError("CONFIG_INVALID", what, field="embeddings.port", hint="Give it a port of its own.")


def _origin(url: str | None, place: str) -> str | None:
    """As a browser writes an origin: lower case, no slash, no port that is the scheme's own."""
    if url is None:
        return None
    found = ORIGIN.fullmatch(url.lower())
    if found is None or int(found["port"] or 1) > PORT_MAX:
        what = f"{place}: control.public_url: not an address, found {url[:200]!r}"
        raise CohortError(
            "CONFIG_INVALID", what, field="control.public_url", hint="Write it like https://cohort.example.com, without a path."
        )
    own = {"http": "80", "https": "443"}[found["scheme"]]
    port = f":{found['port']}" if found["port"] not in (None, own) else ""
    return f"{found['scheme']}://{found['host']}{port}"


def _with_address(listener: Any) -> Any:
    return replace(listener, host="127.0.0.1") if listener.host == "localhost" else listener


def _address(host: str, place: str, name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError as error:
        what = f"{place}: {name}: not an IP address, found {host!r}"
        raise CohortError("CONFIG_INVALID", what, field=name, hint="Write an IP address such as 127.0.0.1.") from error


def _reachable(host: str) -> str:
    """An address to connect to: the wildcard means this machine; IPv6 goes in brackets."""
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return f"[{host}]" if address.version == 6 else host
