"""`cohort embeddings`: a model tried here, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from support_command import Command
from support_model import needs_model, write_model


@pytest.fixture
def cohort(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, {}, capsys)


@needs_model
def test_texts_are_compared_with_the_first_one(cohort: Command, tmp_path: Path) -> None:
    folder = str(write_model(tmp_path / "small"))
    answer = cohort("embeddings", "try", "--model", folder, "A refund please", "My money back", "The password", "--json").json
    assert (answer["model"], answer["dimension"], answer["tokens_max"]) == ("small", 16, 512)
    first, alike, other = (row["cosine"] for row in answer["texts"])
    assert first == pytest.approx(1)
    assert alike > 0.9 > other
    said = cohort("embeddings", "try", "--model", folder, "A refund please")
    assert (said.code, "A refund please" in said.out, "16 numbers" in said.out) == (0, True, True)


@needs_model
def test_a_text_that_is_too_long_is_named(cohort: Command, tmp_path: Path) -> None:
    folder = str(write_model(tmp_path / "small", tokens_max=3))
    refused = cohort("embeddings", "try", "--model", folder, "one", "one two three four", "--json")
    assert (refused.code, refused.json["code"]) == (2, "FIELD_INVALID")
    assert "has 4 tokens, the model takes 3 at most" in refused.err


@pytest.mark.parametrize("verb", [("serve",), ("try", "text")])
def test_without_a_model_it_says_how_to_name_one(cohort: Command, verb: tuple[str, ...]) -> None:
    refused = cohort("embeddings", *verb, "--json")
    assert (refused.code, refused.json["field"]) == (2, "embeddings.model")
    assert "--model FOLDER" in refused.err


@needs_model
def test_a_configured_model_is_the_default_and_options_go_over_it(cohort: Command, tmp_path: Path) -> None:
    write_model(tmp_path / "small", tokens_max=3)
    config = tmp_path / "cohort.yaml"
    config.write_text("embeddings:\n  model: small\n  name: ours\n  prefix: 'one two '\n")
    answer = cohort("embeddings", "try", "--config", str(config), "three", "--json").json
    assert (answer["model"], answer["texts"][0]["tokens"]) == ("ours", 3)
    assert cohort("embeddings", "try", "--config", str(config), "--prefix", "one ", "three", "--json").json["texts"][0]["tokens"] == 2
