"""The machine's figures: right from the counters, honest about what they rest on, and unknown where nothing is known."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.base.clock import ManualClock, SystemClock
from cohort.base.errors import CohortError
from cohort.kernel.machine import figures
from cohort.kernel.machine import monitor as module
from cohort.kernel.machine.figures import Disk, Sample
from cohort.kernel.machine.monitor import Monitor, sample
from support_processes import until

NOTHING = Sample(0.0, None, None, None, None, None)
KINDS = ["cpu", "memory", "disk", "network"]


def at(second: float, busy: float, received: int = 0) -> Sample:
    return Sample(
        at_s=second,
        cpu_s=(busy, 2 * second),
        cores_s=((busy, second), (0.0, second)),
        load=(0.5, 0.4, 0.3),
        memory=(1000, 1000 - int(second)),
        swap=(0, 0),
        disks={"/": Disk(100, 40, 60)},
        disk_io=(received, 2 * received),
        network={"lo": (9_999, 9_999), "eth0": (received, 0)},
    )


def test_rates_and_shares_are_of_the_whole_window_and_say_so():
    samples = [at(0, 0), at(10, 2, 500), at(20, 10, 4000)]
    assert figures.cpu(samples)["busy_pct"] == {"value": 25.0, "unit": "percent", "samples": 3, "window_s": 20.0}
    assert [core["value"] for core in figures.cpu(samples)["cores_busy_pct"]] == [50.0, 0.0]
    assert figures.cpu(samples)["history_busy_pct"] == [10.0, 40.0]
    assert figures.network(samples)["received_bytes_per_s"] == {"value": 200.0, "unit": "bytes per second", "samples": 3, "window_s": 20.0}
    assert figures.network(samples)["interfaces"]["eth0"]["sent_bytes_per_s"]["value"] == 0.0
    assert figures.disk(samples)["written_bytes_per_s"]["value"] == 400.0
    assert figures.disk(samples)["file_systems"]["/"]["free_bytes"]["value"] == 60
    assert figures.memory(samples)["used_most_bytes"] == {"value": 20, "unit": "bytes", "samples": 3, "window_s": 20.0}


def test_one_sample_says_how_full_it_is_and_not_how_busy():
    samples = [at(10, 2, 500)]
    assert figures.memory(samples)["used_bytes"]["value"] == 10
    for figure in (figures.cpu(samples)["busy_pct"], figures.network(samples)["sent_bytes_per_s"]):
        assert (figure["value"], figure["why"]) == ("unknown", "it takes two samples")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [[], [NOTHING], [NOTHING, replace(NOTHING, at_s=2.0)]])
def test_no_data_is_unknown_and_never_nought(kind, samples):
    answer = getattr(figures, kind)(samples)
    values = [part["value"] for part in answer.values() if isinstance(part, dict) and "value" in part]
    assert values
    assert set(values) == {"unknown"}


def test_a_counter_that_began_anew_has_no_rate():
    samples = [at(0, 0, 1000), at(10, 1, 5), at(20, 2, 5000)]
    assert figures.network(samples)["received_bytes_per_s"]["why"] == "its counter began anew"
    assert figures.cpu([at(20, 9), at(10, 2)])["busy_pct"]["value"] == "unknown"


@given(st.lists(st.tuples(st.floats(0.001, 100), st.floats(0, 1), st.integers(0, 10**9)), min_size=2, max_size=20))
def test_a_share_is_never_beyond_all_of_it_nor_below_nothing(steps):
    samples, second, busy, received = [], 1.0, 0.0, 0
    for step_s, share, more in steps:
        second, busy, received = second + step_s, busy + share * 2 * step_s, received + more
        samples.append(at(second, busy, received))
    figure = figures.cpu(samples)["busy_pct"]
    assert 0 <= figure["value"] <= 100
    assert figures.network(samples)["received_bytes_per_s"]["value"] >= 0
    assert figure["samples"] == len(samples)


def test_history_is_bounded_and_a_question_takes_a_sample_when_the_newest_is_old():
    clock, taken = ManualClock(), []

    def look(at_s):
        taken.append(at_s)
        return replace(at(len(taken), 0.0), at_s=at_s)

    monitor = Monitor(clock, look=look)
    for _ in range(module.HISTORY + 50):
        monitor.read("cpu")
        monitor.read("memory")
        clock.advance(module.SAMPLE_S)
    assert len(taken) == module.HISTORY + 50
    answer = monitor.read("cpu")
    assert answer["busy_pct"]["samples"] == module.HISTORY
    assert len(answer["history_busy_pct"]) == figures.HISTORY_SHOWN


def test_this_machine_is_looked_at(tmp_path):
    monitor = Monitor(SystemClock(), [tmp_path, Path("/no/such/place")])
    memory = monitor.read("memory")
    assert memory["total_bytes"]["value"] == psutil.virtual_memory().total
    disks = monitor.read("disk")["file_systems"]
    assert disks[str(tmp_path)]["total_bytes"]["value"] == psutil.disk_usage(str(tmp_path)).total
    assert disks["/no/such/place"]["total_bytes"]["value"] == "unknown"
    assert monitor.read("cpu")["cores"] == psutil.cpu_count()
    json.dumps([monitor.read(kind) for kind in [*KINDS, "processes"]], allow_nan=False)


def test_work_is_seen():
    first, before_s = sample(0.0, []), sum(os.times()[:2])
    while sum(os.times()[:2]) - before_s < 0.2:
        sum(range(100_000))
    seen = figures.cpu([first, sample(1.0, [])])
    assert seen["busy_pct"]["value"] > 0


def test_processes_are_counted_and_their_command_lines_are_not_shown():
    answer = Monitor(SystemClock()).read("processes")
    assert answer["count"] >= 1
    assert len(answer["largest"]) <= module.SHOWN_MAX
    assert all(set(each) == {"name", "memory_bytes"} for each in answer["largest"])


def test_the_sampler_looks_by_itself_until_it_is_stopped():
    looked = threading.Event()

    def look(at_s):
        looked.set()
        raise OSError("no answer")

    monitor = Monitor(SystemClock(), look=look)
    monitor.start()
    until(looked.is_set)
    monitor.stop()


def test_another_word_is_refused():
    with pytest.raises(CohortError, match="no figures of 'passwords'") as caught:
        Monitor(SystemClock()).read("passwords")
    assert caught.value.code == "ARGUMENT_INVALID"
