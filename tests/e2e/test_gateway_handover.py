"""Restarts and new tables under load: no client notices. The same program runs a hundred restarts as `bench/handover.py`."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from cohort.base.errors import CohortError
from cohort.delivery.dataplane_many import merged
from cohort.gateway.contract import GatewayState
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
    assert (both.splits, both.last_candidate_us) == ({"t": "ro"}, {"ro": 12})
