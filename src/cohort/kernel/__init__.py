"""What holds whatever an agent or a person does: who may act.

`Workspace`, `Identity` and `AuditTrail` are for scripts without a control process; see `standalone`. They load when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cohort.kernel.standalone import AuditTrail, Identity, Workspace

__all__ = ["AuditTrail", "Identity", "Workspace"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cohort.kernel import standalone

    return getattr(standalone, name)
