"""An agent reads how its own actions ended; those of others do not exist for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohort.base.errors import CohortError
from cohort.base.ids import ActionId
from cohort.kernel.actions import records
from cohort.kernel.model import Outcome
from support_gate_rooms import Kernel


@pytest.fixture
def kernel(tmp_path: Path):
    kernel = Kernel(tmp_path)
    yield kernel
    kernel.close()


def test_only_whose_action_it_was_reads_it(kernel: Kernel) -> None:
    mine, other = kernel.agent("smoke-1"), kernel.agent("smoke-2")
    action = kernel.ask(mine, "files.write", path="a", content="x").action_id
    refused = kernel.ask(mine, "files.read", path="../x").action_id
    assert kernel.gate.own_result(mine, action) == kernel.gate.result(action)
    assert kernel.gate.own_result(mine, refused).outcome is Outcome.REFUSED
    for token, asked in ((other, action), (other, refused), (mine, ActionId("act_nothing"))):
        with pytest.raises(CohortError) as caught:
            kernel.gate.own_result(token, asked)
        assert caught.value.code == "NOT_FOUND"
        assert caught.value.message == f"the audit log has no action {asked!r}", "the same words, whether it exists or not"


def test_a_record_about_it_without_an_agent_hides_nothing(kernel: Kernel) -> None:
    mine = kernel.agent()
    action = kernel.ask(mine, "files.write", path="a", content="x").action_id
    kernel.audit.log.append(records.egress_ended(action, "example.com:443"))
    assert kernel.gate.own_result(mine, action).outcome is Outcome.DONE


def test_without_a_token_that_is_good_nothing_is_read(kernel: Kernel) -> None:
    action = kernel.ask(kernel.agent(), "files.write", path="a", content="x").action_id
    with pytest.raises(CohortError) as caught:
        kernel.gate.own_result("forged", action)
    assert caught.value.code == "TOKEN_INVALID"
