"""Who may change things: the kernel's roles decide, and a role that nobody knows may only look."""

from __future__ import annotations

import pytest

from cohort.surfaces.http.callers import Caller


@pytest.mark.parametrize(("role", "may"), [("viewer", False), ("operator", True), ("admin", True), ("auditor", False), ("", False)])
def test_only_known_roles_from_operator_on_may_change(role, may):
    assert Caller("somebody", role).may_change is may
