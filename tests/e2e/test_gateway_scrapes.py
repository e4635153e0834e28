"""A scrape of any worker has the figures of all, each under its worker's name; no series goes back but that of a worker that was started again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support_gateway import TOKEN, GatewayProcess, release, table
from support_upstream import Upstream

CALLS = "cohort_gateway_calls_total"
REQUESTS = "cohort_gateway_requests_total"
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def workers(upstream: Upstream, tmp_path: Path) -> Iterator[list[GatewayProcess]]:
    made = []
    with tempfile.TemporaryDirectory(prefix="gw") as short:  # a socket's path has 107 characters at most
        sockets = [f"{short}/{number}" for number in range(3)]
        try:
            for number, socket in enumerate(sockets):
                siblings = [other for other in sockets if other != socket]
                made.append(GatewayProcess(tmp_path / str(number), gateway_id=f"gw-{number}", link_socket=socket, siblings=siblings))
                made[-1].push(table(1, [release("well", upstream.base_url)]))
            yield made
        finally:
            for worker in made:
                worker.close()


def scrape(worker: GatewayProcess, path: str = "/metrics") -> Series:
    """Every sample; fails where a family, a name or a series stands twice."""
    status, _, page = worker.request("GET", path, Authorization=f"Bearer {TOKEN}")
    assert status == 200
    heads = [line.split(" ")[2] for line in page.decode().splitlines() if line.startswith("# TYPE ")]
    assert len(heads) == len(set(heads))
    found: Series = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            place = (sample.name, frozenset(sample.labels.items()))
            assert place not in found
            found[place] = sample.value
    return found


def by_worker(found: Series, name: str) -> dict[str, float]:
    return {dict(labels)["worker"]: value for (known, labels), value in found.items() if known == name}


def missing(found: Series) -> float:
    return found[("cohort_gateway_workers_missing", frozenset())]


def gone_back(before: Series, after: Series) -> set[str]:
    """Workers of whose counters one is lower than it was."""
    counters = [place for place in before if place in after and place[0].endswith(("_total", "_bucket", "_count"))]
    return {dict(labels)["worker"] for name, labels in counters if after[(name, labels)] < before[(name, labels)]}


def test_whichever_worker_is_met_the_counters_of_all_are_there_and_none_goes_back(workers: list[GatewayProcess]) -> None:
    for number, worker in enumerate(workers):
        for _ in range(number + 1):
            assert worker.chat("well")[0] == 200
    pages = [scrape(worker) for worker in workers]
    assert [by_worker(page, CALLS) for page in pages] == [{"gw-0": 1, "gw-1": 2, "gw-2": 3}] * 3
    assert [missing(page) for page in pages] == [0, 0, 0]
    assert gone_back(pages[0], pages[1]) | gone_back(pages[1], pages[2]) == set()
    assert by_worker(scrape(workers[1], "/-/metrics"), CALLS) == {"gw-1": 2}, "what a worker is asked by the others is its own"

    workers[2].kill()
    alone = scrape(workers[0])
    assert (by_worker(alone, CALLS), missing(alone)) == ({"gw-0": 1, "gw-1": 2}, 1)
    assert gone_back(pages[2], alone) == set()

    workers[2].start()
    workers[2].chat("well")
    again = scrape(workers[1])
    assert (by_worker(again, CALLS), missing(again)) == ({"gw-0": 1, "gw-1": 2, "gw-2": 1}, 0)
    assert gone_back(pages[2], again) == {"gw-2"}, "the reset is in the series of the worker that was started again, and in no other"
    assert by_worker(again, REQUESTS).keys() == {"gw-0", "gw-1", "gw-2"}


def test_the_figures_of_one_worker_are_for_control_and_its_siblings_alone(workers: list[GatewayProcess]) -> None:
    assert workers[0].request("GET", "/-/metrics")[0] == 404
