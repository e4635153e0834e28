"""The examples of docs/reference/release-manifest.md are what the product takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cohort.base.errors import ERRORS
from cohort.delivery.face import Bundle
from cohort.delivery.manifest_fields import HttpManifest, ModelManifest
from cohort.delivery.manifests import freeze

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "release-manifest.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_can_be_created(example):
    assert freeze(Bundle("example.yaml", example, {"prompts/support.md": "Be kind."})).digest


def test_every_field_is_in_the_table():
    fields = PAGE.split("## Fields")[1].split("\n##")[0]
    documented = set(re.findall(r"^\| `([a-z_]+)", fields, re.MULTILINE))
    assert documented == {*HttpManifest.model_fields, *ModelManifest.model_fields}


def test_every_code_in_the_table_is_one():
    codes = re.findall(r"^\| `([A-Z_]+)`", PAGE, re.MULTILINE)
    assert len(codes) == 6
    assert set(codes) <= set(ERRORS)
