"""The audit log of an installation that does not run: opened to be read, from its own files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cohort.base.clock import SystemClock
from cohort.base.settings import Settings, resolve_reference
from cohort.kernel.audit.keys import read_keys
from cohort.kernel.audit.offline import open_audit_offline
from cohort.kernel.face import Audit
from cohort.ops.configurations import kernel_config


@contextmanager
def audit_offline(settings: Settings, environ: Mapping[str, str]) -> Iterator[Audit]:
    """The log where the settings say it is. Nothing is written to it.

    Raises:
        CohortError NOT_FOUND: there is no log. CONFIG_INVALID: its key or an anchor cannot be used.
    """
    told = kernel_config(settings)
    url = str(told["audit_url"] or resolve_reference(settings.database.url or "", environ))
    with open_audit_offline(url, SystemClock(), read_keys(Path(told["audit_key_file"])), anchors=tuple(told["anchors"])) as log:
        yield log
