"""What holds for agents: the `kernel` section of `cohort.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.base.errors import CohortError

TOKEN_LIFE_S_MAX = 3600
LEVEL_MAX = 5


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Where questions to approvers are posted. `secret`: `env:NAME` or `file:/path` of the shared secret, never the secret itself."""

    url: str
    secret: str
    approver: str = "webhook"
    allow_private: bool = False


@dataclass(frozen=True, slots=True)
class KernelSettings:
    """Relative paths are relative to the file's folder; None means the place in the data directory.

    `identity_token_expiration_s`: the longest life of a token. `isolation_min`: commands of agents are refused below this level.
    `egress_private`: `host:port` that agents may be granted though they are not on the public internet.
    """

    workspace_root: str | None = None
    max_disk_mb: int = 100
    max_files: int = 1000
    identity_token_expiration_s: int = TOKEN_LIFE_S_MAX
    require_user_approval: bool = True
    audit_log_path: str | None = None
    trust_domain: str = "cohort.local"
    policy_file: str | None = None
    isolation_min: int = 3
    approvers_needed: int = 1
    anchors: tuple[str, ...] = ()
    approval_webhook: WebhookSettings | None = None
    egress_private: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any], base: Path) -> KernelSettings:
        """From the fields a file or variables name; paths made absolute from `base`."""
        said = dict(values)
        for name in ("workspace_root", "audit_log_path", "policy_file"):
            if said.get(name) is not None:
                said[name] = str((base / said[name]).expanduser())
        if said.get("approval_webhook") is not None:
            said["approval_webhook"] = WebhookSettings(**said["approval_webhook"])
        for name in ("anchors", "egress_private"):
            said[name] = tuple(said.get(name, ()))
        return cls(**said)


def whole_number(low: int, high: int) -> Any:
    """A parser of a variable that holds a whole number from `low` to `high`."""

    def parse(variable: str, value: str) -> int:
        if value.isascii() and value.isdigit() and low <= int(value) <= high:
            return int(value)
        what = f"{variable}: not a whole number from {low} to {high}, found {value!r}"
        raise CohortError("CONFIG_INVALID", what, field=variable, hint=f"Use a number from {low} to {high}.")

    return parse
