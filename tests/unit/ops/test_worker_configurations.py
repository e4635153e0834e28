"""What several workers of a gateway are told of each other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cohort.base.errors import CohortError
from cohort.base.settings import ControlSettings, DatabaseSettings, GatewaySettings, Settings
from cohort.gateway.settings import load_settings
from cohort.ops.configurations import gateway_config
from cohort.ops.installation import Installation

HERE = Installation("in_1", "gw_1", 1)


def told(folder: Path, workers: int, number: int) -> Path:
    settings = Settings(folder / "data", GatewaySettings(), ControlSettings(), DatabaseSettings(None))
    settings = replace(settings, gateway=replace(settings.gateway, workers=workers))
    path = folder / f"{number}.json"
    path.write_text(json.dumps(gateway_config(settings, HERE, number)))
    return path


def test_each_worker_knows_the_doors_of_the_others_and_not_its_own(tmp_path: Path) -> None:
    found = [load_settings(told(tmp_path, 3, number)) for number in (1, 2, 3)]
    doors = [each.link_socket for each in found]
    assert len(set(doors)) == 3
    assert [set(each.siblings) for each in found] == [set(doors) - {each.link_socket} for each in found]


def test_a_worker_that_is_alone_knows_of_no_other(tmp_path: Path) -> None:
    alone = load_settings(told(tmp_path, 1, 1))
    assert (alone.link_socket, alone.siblings) == (None, ())


@pytest.mark.parametrize("wrong", ["/a", [7], [""], ["/a"] * 65])
def test_siblings_that_are_no_paths_are_refused_by_field(tmp_path: Path, wrong: object) -> None:
    path = told(tmp_path, 1, 1)
    path.write_text(json.dumps({**json.loads(path.read_text()), "siblings": wrong}))
    with pytest.raises(CohortError) as caught:
        load_settings(path)
    assert (caught.value.code, caught.value.field) == ("CONFIG_INVALID", "siblings")
