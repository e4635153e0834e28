"""The shape of `cohort.yaml`. Imported only when there is one to read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cohort.base.documents import dotted, load_document, parse_document
from cohort.base.settings import PORT_MAX, WORKERS_MAX, Written
from cohort.base.settings_embeddings import PREFIX_CHARS_MAX, THREADS_MAX
from cohort.base.settings_kernel import LEVEL_MAX, TOKEN_LIFE_S_MAX

Port = Annotated[int, Field(ge=1, le=PORT_MAX)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]
Limit = Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)  # `true` is no number, and "no" not false


class GatewayFile(Strict):
    host: Text = "127.0.0.1"
    port: Port = 1
    expose: bool = False
    access_log: bool = False
    cache_redis: Text | None = None
    cache_redis_password_file: Text | None = None
    limits: dict[str, Limit] = {}
    workers: Annotated[int, Field(ge=1, le=WORKERS_MAX)] = 1
    private_upstreams: Annotated[list[Text], Field(max_length=200)] = []
    hosts: Annotated[list[Text], Field(max_length=100)] = []
    traceparent: Literal["pass", "continue", "drop"] = "pass"


class ControlFile(Strict):
    host: Text = "127.0.0.1"
    port: Port = 1
    expose: bool = False
    public_url: Text | None = None


class DatabaseFile(Strict):
    url: Text | None = None


class WebhookFile(Strict):
    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=2048)]
    secret: Annotated[str, Field(pattern=r"^(env|file):.+$", max_length=4096)]
    approver: Annotated[str, Field(min_length=1, max_length=63)] = "webhook"
    allow_private: bool = False


class KernelFile(Strict):
    workspace_root: Text | None = None
    max_disk_mb: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    max_files: Annotated[int, Field(ge=1, le=100_000_000)] = 1
    identity_token_expiration_s: Annotated[int, Field(ge=1, le=TOKEN_LIFE_S_MAX)] = 1
    require_user_approval: bool = True
    audit_log_path: Text | None = None
    trust_domain: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?$")] = "x"
    policy_file: Text | None = None
    isolation_min: Annotated[int, Field(ge=0, le=LEVEL_MAX)] = 0
    approvers_needed: Annotated[int, Field(ge=1, le=2)] = 1
    anchors: Annotated[list[Text], Field(max_length=16)] = []
    approval_webhook: WebhookFile | None = None
    egress_private: Annotated[list[Annotated[str, Field(pattern=r"^\S{1,255}:[0-9]{1,5}$")]], Field(max_length=200)] = []


class EmbeddingsFile(Strict):
    model: Text
    name: Text | None = None
    host: Text = "127.0.0.1"
    port: Port = 1
    file: Text | None = None
    pooling: Literal["mean", "cls", "max"] | None = None
    prefix: Annotated[str, Field(max_length=PREFIX_CHARS_MAX)] = ""
    threads: Annotated[int, Field(ge=1, le=THREADS_MAX)] = 1
    limits: dict[str, Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}


class SettingsFile(Strict):
    data_dir: Text = "."
    gateway: GatewayFile = GatewayFile()
    control: ControlFile = ControlFile()
    database: DatabaseFile = DatabaseFile()
    kernel: KernelFile = KernelFile()
    embeddings: EmbeddingsFile | None = None


def parse_settings(text: str, source: str) -> Written:
    """The fields that `text` names; a file of comments only names none.

    Raises:
        CohortError CONFIG_INVALID: the line, the field and the fix.
    """
    bare = all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines())
    document = load_document("{}" if bare else text, source, code="CONFIG_INVALID")
    # A section with every line commented out reads as null; it says nothing.
    said = {name: value for name, value in document.value.items() if value is not None}
    parsed = parse_document(SettingsFile, type(document)(said, source, document.lines), code="CONFIG_INVALID")
    places = {dotted(path): f"{source}:{line}" for path, line in document.lines.items() if path}
    return Written(parsed.model_dump(exclude_unset=True), places)
