"""The local model of embeddings: the `embeddings` section of `cohort.yaml`, and what its process is told."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cohort.base.errors import CohortError

EMBEDDINGS_PORT = 8720
PORT_MAX = 65535
THREADS_MAX = 64
PREFIX_CHARS_MAX = 200
POOLINGS = ("mean", "cls", "max")
"""How the vectors of a text's tokens become one: their mean, the first, the largest of each number."""
ALL_MINILM = "all-MiniLM-L6-v2"
NAMED = (ALL_MINILM,)
"""Models that can be named instead of a folder."""
LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class EmbeddingsLimits:
    """Every limit of the process, by name. Counts have no unit.

    `texts_max`, `text_chars_max`, `tokens_max`: of one request, one text, one text. `batch_max`, `batch_tokens_max`: texts and tokens, padding
    included, that the model takes at once. `gather_ms`: how long the model, when it is idle, waits for more texts after the first.
    `queue_max`: texts that wait; more are refused.
    """

    texts_max: int = 64
    text_chars_max: int = 8192
    tokens_max: int = 512
    batch_max: int = 32
    batch_tokens_max: int = 4096
    gather_ms: float = 0.0
    queue_max: int = 128
    connections_max: int = 256
    drain_s: float = 5.0


@dataclass(frozen=True, slots=True)
class EmbeddingsSettings:
    """`model`: the folder with an ONNX file or weights and `tokenizer.json`, or one of NAMED. `name`: what requests call it; the folder's name
    unless given.

    `file`: the file within the folder, where there are several. `pooling`: one of POOLINGS; None for what the folder says, else the mean.
    `prefix`: put before every text, for models that were trained so. `threads`: cores that one batch may use.
    """

    model: Path
    name: str
    host: str = LOOPBACK[0]
    port: int = EMBEDDINGS_PORT
    file: str | None = None
    pooling: str | None = None
    prefix: str = ""
    threads: int = 1
    limits: EmbeddingsLimits = field(default_factory=EmbeddingsLimits)

    @classmethod
    def of(cls, values: Mapping[str, Any], base: Path) -> EmbeddingsSettings:
        """From fields by name; `base` is what a relative `model` is relative to. One of NAMED is that model unless a folder is called so.

        Raises:
            CohortError CONFIG_INVALID: names the field.
        """
        _known(values, {f.name for f in dataclasses.fields(cls)}, "")
        asked = _text(values, "model")
        folder = (base / asked).expanduser().resolve()
        model = Path(asked) if asked in NAMED and not folder.exists() else folder
        settings = cls(
            model=model,
            name=_text(values, "name", model.name),
            host=_text(values, "host", LOOPBACK[0]),
            port=_whole(values, "port", EMBEDDINGS_PORT, 0, PORT_MAX),
            file=_text(values, "file") if values.get("file") is not None else None,
            pooling=_text(values, "pooling") if values.get("pooling") is not None else None,
            prefix=_text(values, "prefix", "", empty=True),
            threads=_whole(values, "threads", 1, 1, THREADS_MAX),
            limits=_limits(values.get("limits") or {}),
        )
        return settings._checked()

    @property
    def is_named(self) -> bool:
        """Whether `model` is one of NAMED, and no folder."""
        return str(self.model) in NAMED

    @property
    def url(self) -> str:
        """The base URL for a release's `cache.semantic.embeddings`."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/v1"

    def said(self) -> dict[str, Any]:
        """As plain values, which `of` reads back."""
        return {**dataclasses.asdict(self), "model": str(self.model)}

    def _checked(self) -> EmbeddingsSettings:
        if self.host not in LOOPBACK:
            raise _invalid("host", f"{self.host!r} is not loopback", f"Use {LOOPBACK[0]}: nobody is asked for a key here.")
        if self.pooling is not None and self.pooling not in POOLINGS:
            raise _invalid("pooling", f"no such way, found {self.pooling!r}", f"Use one of: {', '.join(POOLINGS)}.")
        if len(self.prefix) > PREFIX_CHARS_MAX:
            raise _invalid("prefix", f"has more than {PREFIX_CHARS_MAX} characters", "Shorten it.")
        if self.file is not None and self.is_named:
            raise _invalid("file", f"{self.model} has one file", "Leave it out.")
        if self.file is not None and not (self.model / self.file).resolve().is_relative_to(self.model):
            raise _invalid("file", f"{self.file!r} is not in the model's folder", "Name a file of the folder.")
        return self


def _limits(values: Any) -> EmbeddingsLimits:
    if not isinstance(values, Mapping):
        raise _invalid("limits", "must be a table", "Write `limits: {name: number}`.")
    defaults: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(EmbeddingsLimits)}
    _known(values, set(defaults), "limits.")
    for name, value in values.items():
        whole = isinstance(defaults[name], int)
        lowest = 0 if name == "gather_ms" else 1 if whole else 1e-3
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not (lowest <= value < math.inf):
            raise _invalid(f"limits.{name}", f"must be a {'whole ' if whole else ''}number from {lowest:g}, found {value!r}", "Correct it.")
    return EmbeddingsLimits(**{name: type(defaults[name])(value) for name, value in values.items()})


def _known(values: Mapping[str, Any], names: set[str], within: str) -> None:
    for name in values:
        if name not in names:
            raise _invalid(f"{within}{name}", "unknown field", f"Use one of: {', '.join(sorted(names))}.")


def _text(values: Mapping[str, Any], name: str, default: str | None = None, *, empty: bool = False) -> str:
    value = values.get(name)
    value = default if value is None else value
    if not isinstance(value, str) or not (value or empty):
        raise _invalid(name, "missing" if value is None else f"must be text, found {value!r}", f"Set `embeddings.{name}`.")
    return value


def _whole(values: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _invalid(name, f"must be a whole number from {low} to {high}, found {value!r}", f"Correct `embeddings.{name}`.")
    return value


def _invalid(name: str, what: str, hint: str) -> CohortError:
    return CohortError("CONFIG_INVALID", f"embeddings.{name}: {what}", field=f"embeddings.{name}", hint=hint)
