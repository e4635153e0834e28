"""Texts to vectors of length 1 with an ONNX model. Blocks while it works: for a thread of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cohort.base.settings_embeddings import EmbeddingsLimits, EmbeddingsSettings
from cohort.gateway.embeddings.bert import graph_of
from cohort.gateway.embeddings.folder import ModelFolder, invalid, look
from cohort.gateway.embeddings.packaged import check

if TYPE_CHECKING:
    import numpy as np

    Vector = np.ndarray[Any, np.dtype[np.float32]]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUTS = ("sentence_embedding", "last_hidden_state", "token_embeddings")
"""Which output is used where a model has several, the first of these that there is; else its first."""
PADS = ("[PAD]", "<pad>", "<|endoftext|>")
PROBE = "question"
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
"""onnxruntime's name for where a model given as bytes finds its weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """`vector` is None for a text of more tokens than the model takes: half of a question would be another question."""

    tokens: int
    vector: Vector | None


class Model(Protocol):
    """What the server asks for. `embed` may be called by one thread at a time."""

    name: str
    dimension: int
    tokens_max: int

    def embed(self, texts: Sequence[str]) -> list[Embedded]: ...


class OnnxModel:
    """A transformer, or any other graph that takes token ids and gives one vector for each token or each text."""

    def __init__(self, settings: EmbeddingsSettings) -> None:
        """Loads it and tries it once.

        Raises:
            CohortError CONFIG_INVALID: the extra is not installed, the folder lacks something, or the model is none of embeddings.
        """
        folder = look(settings)
        if folder.packaged:
            check(folder.packaged, folder.file.parent)
        self.name = settings.name
        self.tokens_max = folder.tokens_max
        self._prefix, self._pooling, self._limits = settings.prefix, folder.pooling, settings.limits
        self._tokenizer, self._pad = _tokenizer(folder)
        self._session = _session(folder, settings.threads)
        self._inputs = {entry.name: entry.type for entry in self._session.get_inputs()}
        unknown = sorted(set(self._inputs) - set(INPUTS))
        if unknown or "input_ids" not in self._inputs:
            raise invalid("file", f"{folder.file} takes {sorted(self._inputs)}, not {list(INPUTS)}", "Export it for feature extraction.")
        names = [entry.name for entry in self._session.get_outputs()]
        self._output = next((name for name in OUTPUTS if name in names), names[0])
        self.dimension = self._tried(folder)

    def embed(self, texts: Sequence[str]) -> list[Embedded]:
        """One for each text, in their order."""
        encodings = self._tokenizer.encode_batch([self._prefix + text for text in texts])
        found = [Embedded(len(encoding.ids), None) for encoding in encodings]
        able = [at for at, entry in enumerate(found) if 0 < entry.tokens <= self.tokens_max]
        for places in portions(able, [entry.tokens for entry in found], self._limits):
            vectors = self._run([encodings[at].ids for at in places])
            for at, vector in zip(places, vectors, strict=True):
                found[at] = Embedded(found[at].tokens, vector)
        return found

    def _run(self, ids: list[list[int]]) -> Vector:
        import numpy

        longest = max(map(len, ids))
        tokens = numpy.full((len(ids), longest), self._pad, dtype=numpy.int64)
        mask = numpy.zeros((len(ids), longest), dtype=numpy.int64)
        for row, entry in enumerate(ids):
            tokens[row, : len(entry)] = entry
            mask[row, : len(entry)] = 1
        given = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": numpy.zeros_like(mask)}
        typed = {
            name: given[name].astype(numpy.int32 if kind == "tensor(int32)" else numpy.int64, copy=False)
            for name, kind in self._inputs.items()
        }
        (answer,) = self._session.run([self._output], typed)
        return _unit(_pooled(answer.astype(numpy.float32, copy=False), mask, self._pooling))

    def _tried(self, folder: ModelFolder) -> int:
        """The dimension. onnxruntime's own exceptions have no common class, so whatever it raises here means that the model does not fit."""
        try:
            (entry,) = self.embed([PROBE])
        except Exception as error:
            raise invalid("file", f"{folder.file} does not work: {str(error)[:500]}", "Use a model of text embeddings.") from error
        if entry.vector is None or entry.vector.ndim != 1 or not abs(float(entry.vector @ entry.vector) - 1.0) < 1e-3:
            raise invalid("file", f"{folder.file} gives no vector for a text", "Use a model of text embeddings.")
        return len(entry.vector)


def portions(places: list[int], tokens: Sequence[int], limits: EmbeddingsLimits) -> Iterator[list[int]]:
    """`places` in runs of the model: like lengths together, so that little is padding, and none larger than the limits allow."""
    portion: list[int] = []
    for at in sorted(places, key=lambda place: tokens[place]):
        if portion and (len(portion) >= limits.batch_max or (len(portion) + 1) * tokens[at] > limits.batch_tokens_max):
            yield portion
            portion = []
        portion.append(at)
    if portion:
        yield portion


def _pooled(answer: Vector, mask: Any, pooling: str) -> Vector:
    """One row for each text, from one for each token where the model gives that."""
    import numpy

    if answer.ndim != 3:
        return answer
    if pooling == "cls":
        return numpy.asarray(answer[:, 0], dtype=numpy.float32)
    weights = mask[:, :, None].astype(numpy.float32)
    if pooling == "max":
        return numpy.asarray(numpy.where(weights > 0, answer, -numpy.inf).max(axis=1), dtype=numpy.float32)
    return numpy.asarray((answer * weights).sum(axis=1) / weights.sum(axis=1), dtype=numpy.float32)


def _unit(vectors: Vector) -> Vector:
    import numpy

    lengths = numpy.linalg.norm(vectors, axis=1, keepdims=True)
    if not numpy.isfinite(lengths).all() or not (lengths > 0).all():
        raise ValueError("the model gave a vector without direction")
    return numpy.asarray(vectors / lengths, dtype=numpy.float32)


def _tokenizer(folder: ModelFolder) -> tuple[Any, int]:
    """The tokenizer, told to cut and to pad nothing, and the number of its padding."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder.tokenizer))
    except Exception as error:  # the package raises nothing more exact
        raise invalid("model", f"{folder.tokenizer} is no tokenizer: {error}", "Take the one that came with the model.") from error
    padding = tokenizer.padding
    known = [number for number in map(tokenizer.token_to_id, PADS) if number is not None]
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, int(padding["pad_id"]) if padding else next(iter(known), 0)


def _session(folder: ModelFolder, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would burn cores that the gateway needs
    source: str | bytes = str(folder.file)
    if folder.has_weights_only:
        weights = folder.file.resolve()  # a link, in some stores: the weights are looked for where the file lies
        source = graph_of(folder.file.parent, weights)
        options.add_session_config_entry(WEIGHTS_FOLDER, str(weights.parent))
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # see `_tried`
        raise invalid("file", f"{folder.file} is no ONNX model: {str(error)[:500]}", "Export it again, or name another file.") from error
