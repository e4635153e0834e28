"""What lies in a model's folder: the ONNX file or the weights, the tokenizer, and what the model's makers wrote of its use. Loads nothing heavy."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cohort.base.errors import CohortError
from cohort.base.settings_embeddings import POOLINGS, EmbeddingsSettings
from cohort.gateway.embeddings.packaged import PACKAGED, folder_of

PACKAGES = ("onnxruntime", "tokenizers")
INSTALL = "Run in Cohort's checkout: pip install -c requirements.lock onnxruntime tokenizers"
TOKENIZER, CONFIG, MODULES = "tokenizer.json", "config.json", "modules.json"
WEIGHTS = "model.safetensors"
WEIGHTS_SUFFIX = ".safetensors"
USUAL = ("model.onnx", "onnx/model.onnx")
"""Where exporters put the file that is not quantised."""
NOTE_BYTES_MAX = 1 << 20
TOKENS_ANY = 1 << 20
"""Makers without a limit write a number beyond it."""
_POOLING_FLAGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """`file`: an ONNX file, or the weights of a model whose graph is made here. `tokens_max`: of one text, the tokenizer's marks included.

    `packaged`: the name of a model that came as a package and was asked for by it.
    """

    file: Path
    tokenizer: Path
    pooling: str
    tokens_max: int
    packaged: str | None = None

    @property
    def has_weights_only(self) -> bool:
        return self.file.suffix == WEIGHTS_SUFFIX


def look(settings: EmbeddingsSettings) -> ModelFolder:
    """What of a folder is used.

    Raises:
        CohortError CONFIG_INVALID: packages are not installed, or the folder lacks something; says what to do.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise invalid("model", f"a local model needs {' and '.join(missing)}, not installed here", INSTALL)
    packaged = str(settings.model) if settings.is_named else None
    folder = folder_of(packaged) if packaged else settings.model
    if not folder.is_dir():
        raise invalid("model", f"{folder} is not a folder", f"Name a folder with a model, or one of: {', '.join(PACKAGED)}.")
    tokenizer = folder / TOKENIZER
    if not tokenizer.is_file():
        raise invalid("model", f"{folder} has no {TOKENIZER}", f"Put the model's {TOKENIZER} there.")
    file = _file(folder, settings.file)
    tokens_max = min(settings.limits.tokens_max, *_told_tokens_max(folder, file.suffix == WEIGHTS_SUFFIX))
    return ModelFolder(file, tokenizer, settings.pooling or _pooling(folder), tokens_max, packaged)


def _file(folder: Path, named: str | None) -> Path:
    if named is not None:
        if not (folder / named).is_file():
            raise invalid("file", f"{folder} has no {named}", "Correct the name.")
        return folder / named
    usual = [folder / name for name in USUAL if (folder / name).is_file()]
    found = usual[:1] or sorted(path for where in (folder, folder / "onnx") for path in where.glob("*.onnx"))
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        raise invalid("file", f"{folder} has several ONNX files: {names}", "Name one of them with `file`.")
    if found:
        return found[0]
    if not (folder / WEIGHTS).is_file():
        raise invalid("model", f"{folder} has neither an ONNX file nor {WEIGHTS}", f"Put one there, as {USUAL[0]} or {WEIGHTS}.")
    return folder / WEIGHTS


def _pooling(folder: Path) -> str:
    said = note(folder / "1_Pooling" / "config.json")
    asked = [name for name, value in said.items() if name.startswith("pooling_mode_") and value is True]
    if not asked:
        return POOLINGS[0]
    if len(asked) != 1 or asked[0] not in _POOLING_FLAGS:
        raise invalid("pooling", f"the folder asks for {', '.join(asked)}, which is not done here", f"Set one of: {', '.join(POOLINGS)}.")
    return _POOLING_FLAGS[asked[0]]


def _told_tokens_max(folder: Path, has_weights_only: bool) -> list[int]:
    """What the tokenizer and the makers say."""
    told = [
        note(folder / "tokenizer_config.json").get("model_max_length"),
        note(folder / "sentence_bert_config.json").get("max_seq_length"),
        note(folder / CONFIG).get("max_position_embeddings") if has_weights_only else None,
    ]
    return [TOKENS_ANY, *(int(value) for value in told if isinstance(value, int | float) and 1 <= value < TOKENS_ANY)]


def note(path: Path, kind: type[dict[str, Any]] | type[list[Any]] = dict) -> Any:
    """A small JSON file of the folder, an object or a list; empty where there is none."""
    if not path.is_file():
        return kind()
    try:
        body = orjson.loads(path.read_bytes()) if path.stat().st_size <= NOTE_BYTES_MAX else None
    except (OSError, orjson.JSONDecodeError) as error:
        raise invalid("model", f"{path} cannot be read: {error}", "Mend or remove it.") from error
    if not isinstance(body, kind):
        wanted = "object" if kind is dict else "list"
        raise invalid("model", f"{path} is not a JSON {wanted} of at most {NOTE_BYTES_MAX} bytes", "Mend or remove it.")
    return body


def invalid(name: str, what: str, hint: str) -> CohortError:
    return CohortError("CONFIG_INVALID", f"embeddings.{name}: {what}", field=f"embeddings.{name}", hint=hint)
