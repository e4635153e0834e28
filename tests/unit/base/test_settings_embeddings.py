"""The section `embeddings` of the configuration: from a file, variables and a process's own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cohort.base.errors import CohortError
from cohort.base.settings import load_settings
from cohort.base.settings_embeddings import ALL_MINILM, EmbeddingsLimits, EmbeddingsSettings

FILE = """\
embeddings:
  model: models/e5
  port: 9720
  prefix: "query: "
  threads: 2
  limits: {queue_max: 10, gather_ms: 1}
"""


def test_without_the_section_there_is_no_model(tmp_path: Path) -> None:
    assert load_settings({}, folder=tmp_path).embeddings is None
    assert load_settings({"COHORT_EMBEDDINGS_PORT": "9000"}, folder=tmp_path).embeddings is None


def test_the_section_is_read_with_its_folder_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "cohort.yaml").write_text(FILE)
    found = load_settings({}, folder=tmp_path).embeddings
    assert found is not None
    assert (found.model, found.name, found.url) == (tmp_path.resolve() / "models" / "e5", "e5", "http://127.0.0.1:9720/v1")
    assert (found.prefix, found.threads, found.limits) == ("query: ", 2, EmbeddingsLimits(queue_max=10, gather_ms=1.0))
    assert EmbeddingsSettings.of(found.said(), Path("/elsewhere")) == found


def test_variables_are_stronger_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "cohort.yaml").write_text(FILE)
    found = load_settings({"COHORT_EMBEDDINGS_MODEL": "mini", "COHORT_EMBEDDINGS_PORT": "9001"}, folder=tmp_path).embeddings
    assert found is not None
    assert (found.name, found.port, found.threads) == ("mini", 9001, 2)


def test_a_model_can_be_named_and_a_folder_of_that_name_goes_first(tmp_path: Path) -> None:
    found = EmbeddingsSettings.of({"model": ALL_MINILM}, tmp_path)
    assert (found.is_named, str(found.model), found.name) == (True, ALL_MINILM, ALL_MINILM)
    assert EmbeddingsSettings.of(found.said(), Path("/elsewhere")) == found
    assert not EmbeddingsSettings.of({"model": f"./models/{ALL_MINILM}"}, tmp_path).is_named
    (tmp_path / ALL_MINILM).mkdir()
    own = EmbeddingsSettings.of({"model": ALL_MINILM}, tmp_path)
    assert (own.is_named, own.model) == (False, tmp_path.resolve() / ALL_MINILM)
    with pytest.raises(CohortError, match="has one file"):
        EmbeddingsSettings.of({"model": ALL_MINILM, "file": "model.onnx"}, Path("/elsewhere"))


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("host: 0.0.0.0", "embeddings.host"),
        ("host: 192.168.1.4", "embeddings.host"),
        ("port: 8700", "embeddings.port"),
        ("port: 8710", "embeddings.port"),
        ("port: 70000", "embeddings.port"),
        ("pooling: sum", "embeddings.pooling"),
        ("threads: 0", "embeddings.threads"),
        ("file: ../../other.onnx", "embeddings.file"),
        ("device: cuda", "embeddings.device"),
        ("limits: {queue: 3}", "embeddings.limits.queue"),
        ("limits: {queue_max: 0}", "embeddings.limits.queue_max"),
        ("limits: {queue_max: 1.5}", "embeddings.limits.queue_max"),
        ("limits: {drain_s: 0}", "embeddings.limits.drain_s"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: str, field: str) -> None:
    (tmp_path / "cohort.yaml").write_text(f"embeddings:\n  model: m\n  {line}\n")
    with pytest.raises(CohortError) as caught:
        load_settings({}, folder=tmp_path)
    assert (caught.value.code, caught.value.field) == ("CONFIG_INVALID", field)
    assert caught.value.hint


@pytest.mark.parametrize(
    "values",
    [{}, {"model": ""}, {"model": 3}, {"model": "m", "port": True}, {"model": "m", "prefix": "x" * 201}, {"model": "m", "limits": [1]}],
)
def test_a_process_file_is_looked_at_as_closely(values: dict[str, Any]) -> None:
    with pytest.raises(CohortError) as caught:
        EmbeddingsSettings.of(values, Path("/"))
    assert caught.value.code == "CONFIG_INVALID"
