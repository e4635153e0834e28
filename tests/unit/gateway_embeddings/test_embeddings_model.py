"""A model's folder: what is found in it, what it gives, and what is said of one that is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

from cohort.base.errors import CohortError
from cohort.base.settings_embeddings import EmbeddingsSettings
from cohort.gateway.embeddings.model import Embedded, OnnxModel
from support_model import GROUPS, needs_model, tokenizer, write_model
from support_processes import environment
from support_shape import write_shape

pytestmark = needs_model


def load(folder: Path, **said: Any) -> OnnxModel:
    return OnnxModel(EmbeddingsSettings.of({"model": str(folder), **said}, folder))


def vectors(model: OnnxModel, *texts: str) -> list[Any]:
    return [entry.vector for entry in model.embed(texts)]


def test_texts_of_one_meaning_lie_close_and_others_do_not(tmp_path: Path) -> None:
    model = load(write_model(tmp_path / "groups"))
    assert (model.name, model.dimension) == ("groups", 16)
    refund, money, password = vectors(model, "Can I get a refund?", "I want my money back", "How do I reset my password?")
    assert refund @ money > 0.95
    assert refund @ password < 0.2
    assert all(abs(float(vector @ vector) - 1) < 1e-5 for vector in (refund, money, password))


def test_a_text_has_the_same_vector_alone_and_beside_longer_ones(tmp_path: Path) -> None:
    texts = ["refund", "please reset the password of my account today and enable login", "late train"]
    for pooling in ("mean", "cls", "max"):
        model = load(write_model(tmp_path / pooling), pooling=pooling)
        for text, beside in zip(texts, vectors(model, *texts), strict=True):
            assert numpy.allclose(vectors(model, text)[0], beside, atol=1e-6)


def test_a_transformer_sees_nothing_of_the_padding_beside_a_shorter_text(tmp_path: Path) -> None:
    model = load(write_shape(tmp_path / "shape", layers=1))
    texts = ["reset my password", "enable two-factor login for me before the late train to paris leaves please"]
    together = vectors(model, *texts)
    assert model.dimension == 384
    for text, beside in zip(texts, together, strict=True):
        assert numpy.allclose(vectors(model, text)[0], beside, atol=1e-5)
    assert together[0] @ together[1] < 0.99


def test_how_tokens_become_one_vector_is_as_the_folder_or_the_settings_say(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "1_Pooling").mkdir()
    note = folder / "1_Pooling" / "config.json"
    note.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    assert vectors(load(folder), "refund password")[0][1] == 1.0
    assert vectors(load(folder, pooling="max"), "refund password")[0][1] == pytest.approx(0.5**0.5)
    note.write_text(json.dumps({"pooling_mode_lasttoken": True}))
    with pytest.raises(CohortError, match="pooling_mode_lasttoken") as caught:
        load(folder)
    assert caught.value.field == "embeddings.pooling"


def test_a_graph_that_gives_one_vector_for_a_text_is_taken_at_its_word(tmp_path: Path) -> None:
    model = load(write_model(tmp_path / "pooled", pooled=True), pooling="mean")
    assert vectors(model, "refund password")[0][2] == pytest.approx(0.5**0.5)


def test_a_prefix_stands_before_every_text(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    assert numpy.allclose(vectors(load(folder, prefix="refund "), "password")[0], vectors(load(folder), "refund password")[0])


def test_a_text_of_too_many_tokens_has_no_vector_and_the_others_have(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", tokens_max=5)
    model = load(folder, limits={"tokens_max": 400})
    assert model.tokens_max == 5
    found = model.embed(["refund", "one two three four five six", "password " * 5])
    assert [(entry.tokens, entry.vector is None) for entry in found] == [(1, False), (6, True), (5, False)]
    assert isinstance(found[1], Embedded)
    assert load(folder, limits={"tokens_max": 3}).tokens_max == 3


def test_padding_is_the_tokenizers_own_where_it_says_one(tmp_path: Path) -> None:
    """With `max` over the graph's own output, padding with a word that means something would be seen."""
    folder = write_model(tmp_path / "m", pooled=True)
    vocabulary = {word: at + 2 for at, word in enumerate(word for group in GROUPS for word in group)} | {
        "<none>": 0,
        "[UNK]": 1,
        "[PAD]": 9,
    }
    body = {**tokenizer(vocabulary), "padding": {"strategy": "BatchLongest", "direction": "Right", "pad_id": 0, "pad_type_id": 0}}
    (folder / "tokenizer.json").write_text(
        json.dumps({**body, "padding": {**body["padding"], "pad_to_multiple_of": None, "pad_token": "<none>"}})
    )
    model = load(folder)
    assert numpy.allclose(vectors(model, "refund", "late train delayed")[0], vectors(model, "refund")[0])


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "model", "has no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "model", "is no tokenizer"),
        (lambda folder: (folder / "model.onnx").unlink(), "model", "has neither an ONNX file nor model.safetensors"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"not a model"), "file", "is no ONNX model"),
        (lambda folder: write_model(folder, extra="pixel_values"), "file", "pixel_values"),
        (lambda folder: (folder / "sentence_bert_config.json").write_text("[]"), "model", "not a JSON object"),
        (lambda folder: _two(folder), "file", "a.onnx, b.onnx"),
    ],
)
def test_a_folder_that_is_no_model_is_told_with_its_field_and_what_to_do(tmp_path: Path, change: Any, field: str, said: str) -> None:
    folder = write_model(tmp_path / "m")
    change(folder)
    with pytest.raises(CohortError, match=said) as caught:
        load(folder)
    assert (caught.value.code, caught.value.field, bool(caught.value.hint)) == ("CONFIG_INVALID", f"embeddings.{field}", True)


def _two(folder: Path) -> None:
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").rename(folder / "a.onnx")
    (folder / "b.onnx").write_bytes(data)


def test_one_of_several_files_can_be_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    _two(folder)
    assert load(folder, file="b.onnx").dimension == 16
    with pytest.raises(CohortError, match=r"no c\.onnx"):
        load(folder, file="c.onnx")


def test_without_its_packages_it_says_what_to_install(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    program = (
        "import sys, importlib.util; found = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, package=None: None if name == 'onnxruntime' else found(name, package);"
        "from cohort.gateway.embeddings.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"model": str(folder)}))
    argv = [sys.executable, "-c", program, "--config", str(config)]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(), timeout=60)
    assert done.returncode == 1
    assert "needs onnxruntime, not installed" in done.stderr
    assert "pip install -c requirements.lock onnxruntime tokenizers" in done.stderr
