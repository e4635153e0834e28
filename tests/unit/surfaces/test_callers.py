"""Who may do what: the kernel's roles decide, and a role that nobody knows may nothing."""

from __future__ import annotations

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.access import Right, Role
from cohort.surfaces.http.callers import Caller, check_right


@pytest.mark.parametrize(
    ("role", "may"),
    [("viewer", False), ("auditor", False), ("approver", False), ("operator", True), ("manager", True), ("admin", True), ("", False)],
)
def test_only_roles_that_operate_may_change_rollouts(role, may):
    assert Caller("somebody", role).may_change is may


@pytest.mark.parametrize("right", list(Right))
def test_a_role_that_nobody_knows_may_nothing(right):
    with pytest.raises(CohortError) as caught:
        check_right(Caller("somebody", "emperor"), right)
    assert caught.value.code == "ROLE_TOO_LOW"


@pytest.mark.parametrize("right", list(Right))
@pytest.mark.parametrize("role", list(Role))
def test_a_refusal_names_the_roles_that_may(role, right):
    caller = Caller("somebody", role.value)
    if role.may(right):
        check_right(caller, right)
        return
    with pytest.raises(CohortError) as caught:
        check_right(caller, right)
    assert caught.value.code == "ROLE_TOO_LOW"
    assert all(other.value in caught.value.hint for other in Role if other.may(right))
