"""What lies in a model's folder: the ONNX file, the tokenizer, and what the model's makers wrote of its use. Loads nothing heavy."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cohort.base.errors import CohortError
from cohort.base.settings_embeddings import POOLINGS, EmbeddingsSettings

PACKAGES = ("onnxruntime", "tokenizers")
INSTALL = "Run: pip install 'cohort[embeddings]'"
TOKENIZER = "tokenizer.json"
USUAL = ("model.onnx", "onnx/model.onnx")
"""Where exporters put the file that is not quantised."""
NOTE_BYTES_MAX = 1 << 20
_POOLING_FLAGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """`tokens_max`: of one text, the tokenizer's marks included."""

    onnx: Path
    tokenizer: Path
    pooling: str
    tokens_max: int


def look(settings: EmbeddingsSettings) -> ModelFolder:
    """What of a folder is used.

    Raises:
        CohortError CONFIG_INVALID: packages are not installed, or the folder lacks something; says what to do.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise invalid("model", f"a local model needs {' and '.join(missing)}, not installed here", INSTALL)
    folder = settings.model
    if not folder.is_dir():
        raise invalid("model", f"{folder} is not a folder", f"Name a folder with an ONNX file and {TOKENIZER}.")
    tokenizer = folder / TOKENIZER
    if not tokenizer.is_file():
        raise invalid("model", f"{folder} has no {TOKENIZER}", f"Put the model's {TOKENIZER} beside its ONNX file.")
    return ModelFolder(_onnx(folder, settings.file), tokenizer, settings.pooling or _pooling(folder), _tokens_max(settings))


def _onnx(folder: Path, named: str | None) -> Path:
    if named is not None:
        if not (folder / named).is_file():
            raise invalid("file", f"{folder} has no {named}", "Correct the name.")
        return folder / named
    usual = [folder / name for name in USUAL if (folder / name).is_file()]
    found = usual[:1] or sorted(path for where in (folder, folder / "onnx") for path in where.glob("*.onnx"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise invalid("model", f"{folder} has no ONNX file", f"Put it there as {USUAL[0]}.")
    names = ", ".join(str(path.relative_to(folder)) for path in found)
    raise invalid("file", f"{folder} has several ONNX files: {names}", "Name one of them with `file`.")


def _pooling(folder: Path) -> str:
    note = _note(folder / "1_Pooling" / "config.json")
    asked = [name for name, value in note.items() if name.startswith("pooling_mode_") and value is True]
    if not asked:
        return POOLINGS[0]
    if len(asked) != 1 or asked[0] not in _POOLING_FLAGS:
        raise invalid("pooling", f"the folder asks for {', '.join(asked)}, which is not done here", f"Set one of: {', '.join(POOLINGS)}.")
    return _POOLING_FLAGS[asked[0]]


def _tokens_max(settings: EmbeddingsSettings) -> int:
    """The smallest of what the limit, the tokenizer and the makers say."""
    told = (
        _note(settings.model / "tokenizer_config.json").get("model_max_length"),
        _note(settings.model / "sentence_bert_config.json").get("max_seq_length"),
    )
    return min([settings.limits.tokens_max, *(int(value) for value in told if isinstance(value, int | float) and value >= 1)])


def _note(path: Path) -> dict[str, Any]:
    """A small JSON file of the folder; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        body = orjson.loads(path.read_bytes()) if path.stat().st_size <= NOTE_BYTES_MAX else None
    except (OSError, orjson.JSONDecodeError) as error:
        raise invalid("model", f"{path} cannot be read: {error}", "Mend or remove it.") from error
    if not isinstance(body, dict):
        raise invalid("model", f"{path} is not a JSON object of at most {NOTE_BYTES_MAX} bytes", "Mend or remove it.")
    return body


def invalid(name: str, what: str, hint: str) -> CohortError:
    return CohortError("CONFIG_INVALID", f"embeddings.{name}: {what}", field=f"embeddings.{name}", hint=hint)
