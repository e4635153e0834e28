"""What each process of Cohort is told, and how it is started, from the settings."""

from __future__ import annotations

import hashlib
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cohort import __version__
from cohort.base.errors import CohortError
from cohort.base.settings import LOOPBACK_ONLY, WORKERS_MAX, DataDir, Settings
from cohort.ops.files import write_private
from cohort.ops.installation import Installation, compact
from cohort.ops.listening import Listening
from cohort.ops.ports import answers, answers_at
from cohort.ops.supervisor import ProcessSpec

CONTROL_STOP_S = 15.0
GATEWAY_DRAIN_S = 30.0
"""The gateway's own default for how long calls in flight may go on."""
STOP_MARGIN_S = 10.0
EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class Listener:
    """One process and the port that must be free before it starts. `setting` is what to change when it is not."""

    spec: ProcessSpec
    host: str
    port: int
    setting: str


def listeners(settings: Settings, installation: Installation) -> tuple[Listener, ...]:
    """Control and the gateway's workers, in the order in which they are stopped. Writes the configuration each reads at start."""
    data, where = settings.data, settings.gateway
    control = _config_file(data, "control", control_config(settings, installation))
    listening = Listening(where.host, where.port)
    workers = []
    for number in range(1, where.workers + 1):
        config = _config_file(data, worker_name(number), gateway_config(settings, installation, number))
        _check_limits(settings, config)
        found = _listener("gateway", "cohort.gateway", config, where, data, _gateway_stop_s(settings))
        spec = replace(
            found.spec, name=worker_name(number), log=data.log(worker_name(number)), listening=listening, place=data.gateway_lock(number)
        )
        if where.workers > 1:
            spec = replace(spec, ready=partial(answers_at, data.worker_socket(number), "/ready"))
        workers.append(replace(found, spec=spec))
    control_process = _listener("control", "cohort.surfaces.http", control, settings.control, data, CONTROL_STOP_S)
    return (control_process, *workers, *_embeddings(settings))


def forget_samples(data: DataDir, workers: int) -> None:
    """Remove the samples of content of workers that are no more: nobody would end their time, or erase a person's."""
    for number in range(workers + 1, WORKERS_MAX + 1):
        shutil.rmtree(data.worker_folder(number) / "contents", ignore_errors=True)


def _embeddings(settings: Settings) -> tuple[Listener, ...]:
    """The local model, where one is configured: last, so that calls that end meanwhile still have it.

    It has its own socket: while it is started again a connection is refused at once, and no call waits for it.

    Raises:
        CohortError CONFIG_INVALID: its extra is not installed, or its folder lacks something.
    """
    where = settings.embeddings
    if where is None:
        return ()
    from cohort.gateway.embeddings.folder import look

    look(where)
    config = _config_file(settings.data, EMBEDDINGS, where.said())
    return (_listener(EMBEDDINGS, "cohort.gateway.embeddings", config, where, settings.data, where.limits.drain_s + STOP_MARGIN_S),)


def worker_name(number: int) -> str:
    """Of a process that serves clients; the first is what it was when there was one."""
    return "gateway" if number == 1 else f"gateway-{number}"


def _worker_id(installation: Installation, number: int) -> str:
    return installation.gateway if number == 1 else f"{installation.gateway}-{number}"


def _check_limits(settings: Settings, written: Path) -> None:
    """Have the gateway's own reader look at its configuration, so that a wrong limit, network or server is told now and not in a log.

    Raises:
        CohortError CONFIG_INVALID: names it.
    """
    where = settings.gateway
    if where.limits or where.hosts or where.cache_redis or where.private_upstreams != LOOPBACK_ONLY:
        from cohort.gateway.cache.shared import redis_address
        from cohort.gateway.settings import load_settings, read_secret

        try:
            found = load_settings(written)
            if found.cache_redis is not None:
                redis_address(found.cache_redis, "")
            if found.cache_redis_password_file is not None:
                read_secret(found.cache_redis_password_file, "cache_redis_password_file", 1)
        except CohortError as error:
            field = f"gateway.{error.field}" if error.field else "gateway.limits"
            raise CohortError("CONFIG_INVALID", f"{settings.source}: gateway: {error.message}", field=field, hint=error.hint) from error


def gateway_config(settings: Settings, installation: Installation, number: int = 1) -> dict[str, Any]:
    """What `python -m cohort.gateway --config FILE` reads. Each worker has a name, a routing table and a spool of its own.

    Where there are several, control reaches each by a socket in the file system, as the port leads to any of them.
    """
    data = settings.data
    return {
        **(_sockets(data, number, settings.gateway.workers) if settings.gateway.workers > 1 else {}),
        "gateway_id": _worker_id(installation, number),
        "host": settings.gateway.host,
        "port": settings.gateway.port,
        "expose": settings.gateway.expose,
        "data_dir": str(data.worker_folder(number)),
        "unit_key_file": str(data.unit_key),
        "link_token_file": str(data.link_token),
        "shared_dir": str(data.gateway),
        "access_log": settings.gateway.access_log,
        "traceparent": settings.gateway.traceparent,
        "cache_redis": settings.gateway.cache_redis,
        "cache_redis_password_file": settings.gateway.cache_redis_password_file,
        "limits": dict(settings.gateway.limits),
        "private_upstreams": list(settings.gateway.private_upstreams),
        "hosts": list(settings.gateway.hosts),
    }


def _sockets(data: DataDir, number: int, workers: int) -> dict[str, Any]:
    others = [str(data.worker_socket(other)) for other in range(1, workers + 1) if other != number]
    return {"link_socket": str(data.worker_socket(number)), "siblings": others}


def control_config(settings: Settings, installation: Installation) -> dict[str, Any]:
    """What `python -m cohort.surfaces.http --config FILE` reads. `database_url` may be a reference: `env:NAME`, `file:/path`."""
    data = settings.data
    return {
        "installation": installation.id,
        "host": settings.control.host,
        "port": settings.control.port,
        "expose": settings.control.expose,
        "public_url": settings.control.public_url,
        "data_dir": str(data.root),
        "database_url": _database_reference(settings),
        "gateway_id": installation.gateway,
        "gateway_url": settings.gateway_url,
        "gateway_sockets": [str(data.worker_socket(n)) for n in range(1, settings.gateway.workers + 1)]
        if settings.gateway.workers > 1
        else [],
        "link_token_file": str(data.link_token),
        "unit_key_file": str(data.unit_key),
        "operator_key_file": str(data.operator_key),
        "admin_key_sha256_file": str(data.admin_key_sha256),
        "kernel": kernel_config(settings),
    }


def kernel_config(settings: Settings) -> dict[str, Any]:
    """What control is told about agents. Secrets stay references."""
    data, kernel = settings.data, settings.kernel
    audit = kernel.audit_log_path or str(data.audit)
    own_server = settings.database.url is not None and not settings.database.url.startswith("sqlite:") and not kernel.audit_log_path
    return {
        **asdict(kernel),
        "workspace_root": kernel.workspace_root or str(data.workspaces),
        "audit_url": None if own_server else f"sqlite:///{audit}",
        "audit_key_file": str(data.audit_key),
        "token_keys": str(data.token_keys),
        "executions": str(data.executions),
    }


def _gateway_stop_s(settings: Settings) -> float:
    """Longer than its drain, so that calls in flight may end."""
    return settings.gateway.limits.get("drain_s", GATEWAY_DRAIN_S) + STOP_MARGIN_S


def stop_bound_s(settings: Settings) -> float:
    """How long stopping everything may take."""
    embeddings_s = settings.embeddings.limits.drain_s + STOP_MARGIN_S if settings.embeddings else 0.0
    return CONTROL_STOP_S + _gateway_stop_s(settings) + embeddings_s + STOP_MARGIN_S


def _database_reference(settings: Settings) -> str:
    url = settings.database.url
    if url is None:
        return f"sqlite:///{settings.data.database}"
    if url.startswith(("env:", "file:", "sqlite:")):
        return url
    write_private(settings.data.database_url, url.encode())
    return f"file:{settings.data.database_url}"


def _config_file(data: DataDir, name: str, body: dict[str, Any]) -> Path:
    """Named by its contents and the program's version, so that equal command lines mean equal configuration."""
    folder = data.run / name
    folder.mkdir(mode=0o700, exist_ok=True)
    content = compact(body)
    path = folder / f"{hashlib.sha256(__version__.encode() + content).hexdigest()[:16]}.json"
    write_private(path, content)
    for old in folder.glob("*.json"):
        if old != path:
            old.unlink()
    return path


def _listener(name: str, module: str, config: Path, where: Any, data: DataDir, stop_s: float) -> Listener:
    spec = ProcessSpec(
        name=name,
        argv=(sys.executable, "-m", module, "--config", str(config)),
        log=data.log(name),
        ready=lambda: answers(_local(where.host), where.port, "/ready"),
        stop_s=stop_s,
    )
    return Listener(spec, where.host, where.port, f"{name}.port")


def _local(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
