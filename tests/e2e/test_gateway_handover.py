"""Restarts and new tables under load: no client notices. The same program runs a hundred restarts as `bench/handover.py`."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import Any

import pytest

from cohort.base.errors import CohortError
from cohort.delivery.dataplane_many import first_answer, merged, trouble_words
from cohort.gateway.contract import GatewayState
from cohort.gateway.contract_reliability import RouteTrouble
from cohort.gateway.contract_routing import RoutingState
from cohort.gateway.inherited import LISTEN_FD, inherited_socket
from support_gateway import SRC

PROGRAM = SRC.parent / "bench" / "handover.py"


@pytest.mark.parametrize(("workers", "restarts"), [(2, 10), (1, 2)])
def test_no_request_fails_while_workers_are_restarted_and_tables_change(workers: int, restarts: int) -> None:
    options = ["--workers", str(workers), "--restarts", str(restarts), "--seconds-between", "0.05", "--json"]
    done = subprocess.run([sys.executable, str(PROGRAM), *options], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert (found["failures"], found["restarts"]) == (0, restarts), found
    assert min(found["answers"], found["streams"]) > 0
    assert found["records"] == found["answers"] + found["streams"], "every call that a client met is in one of the spools, once"


def test_a_socket_is_inherited_from_cohort_up_or_from_systemd_and_nothing_else_is_taken_for_one() -> None:
    with socket.socket() as listening, socket.socket() as idle:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        fd = str(listening.fileno())
        assert inherited_socket({}, 7) is None
        assert inherited_socket({"LISTEN_PID": "8", "LISTEN_FDS": "1"}, 7) is None
        found = inherited_socket({LISTEN_FD: fd}, 7)
        assert found is not None
        assert found.getsockname() == listening.getsockname()
        found.detach()
        for wrong in (str(idle.fileno()), "99999", "x"):
            with pytest.raises(CohortError, match="not a listening socket"):
                inherited_socket({LISTEN_FD: wrong}, 7)


def state(number: int, **more: object) -> GatewayState:
    body = {"services": {"s": "rel_a", "t": "rel_b"}, "splits": {}, "last_candidate_us": {}, **more}
    return GatewayState(
        gateway=f"gw-{number}",
        epoch=number,
        table_version=int(str(more.pop("version", 4))),
        **{k: v for k, v in body.items() if k != "version"},
    )  # type: ignore[arg-type]


def test_of_several_workers_only_what_is_true_of_all_is_said() -> None:
    ahead = state(1, version=5, in_flight=2, last_candidate_us={"ro": 9})
    behind = state(2, version=4, services={"s": "rel_a", "t": "rel_c"}, splits={"t": "ro"}, last_candidate_us={"ro": 12}, in_flight=1)
    both = merged([ahead, behind])
    assert (both.gateway, both.table_version, both.in_flight) == ("gw-1", 4, 3)
    assert both.services == {"s": "rel_a"}, "a service is served by a release when every worker serves it so"
    assert both.routing == {}
    assert (both.splits, both.last_candidate_us) == ({"t": "ro"}, {"ro": 12})


def choosing(share: float | None, conversations: int, **more: Any) -> RoutingState:
    said = {"release": "rel_a", "boundary": 0.5, "target_share": 0.4, "drift": 0.01, "limited": False, "mode": "adaptive", **more}
    return RoutingState(shares={"adaptive": share, "control": None}, conversations=conversations, **said)  # type: ignore[arg-type]


def test_how_workers_choose_between_models_is_said_of_all_together() -> None:
    parts = [choosing(0.5, 300), choosing(0.3, 100, boundary=0.7, drift=0.2, limited=True), choosing(None, 0)]
    whole = merged([state(number, routing={"s": part}) for number, part in enumerate(parts)]).routing["s"]
    assert (whole.conversations, whole.drift, whole.limited) == (400, 0.2, True)
    assert (whole.shares["adaptive"], whole.shares["control"]) == (pytest.approx(0.45), None)
    assert whole.boundary == pytest.approx(0.55)
    other = state(3, routing={"s": choosing(0.5, 300, release="rel_b")})
    assert merged([state(1, routing={"s": parts[0]}), other]).routing == {}


def test_circuits_are_told_of_all_workers_together() -> None:
    troubles = [RouteTrouble("rel_a", "v1", "main", circuit, 5, 1, "support") for circuit in ("open", "probing", "closed")]
    other = RouteTrouble("rel_b", "v1", "main", "open", 7, 1, "billing")
    assert trouble_words([*troubles, other]) == [
        "service billing, release v1, route main: circuit not closed at 1 of the workers, 7 calls failed in a row",
        "service support, release v1, route main: circuit not closed at 2 of the workers, 10 calls failed in a row",
    ]


def test_what_all_workers_know_is_asked_of_one_that_answers() -> None:
    def dead() -> int:
        raise CohortError("DATA_PLANE_UNAVAILABLE", "it is being restarted")

    assert first_answer([dead, lambda: 7])() == 7
    with pytest.raises(CohortError, match="restarted"):
        first_answer([dead, dead])()
