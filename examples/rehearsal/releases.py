"""The releases of the demo and the stand-in models behind them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

SERVICE = "support"
EXAMPLES = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Candidate:
    """One release and what its stand-in model does. `vendor`: which of the two upstream processes has it."""

    version: str
    vendor: str
    model: str
    about: str
    failure_rate: float
    latency_ms: float = 60.0
    slow_share: float = 0.0
    slow_factor: float = 1.0

    @property
    def model_option(self) -> str:
        """As `standin_model.py --model` takes it."""
        rates = f"failure_rate={self.failure_rate},latency_ms={self.latency_ms},latency_sigma=0.35"
        return f"{self.model}:{rates},slow_share={self.slow_share},slow_factor={self.slow_factor}"


FIRST = Candidate("1.0.0", "a", "standin-large", "the release that serves at the start", 0.03, 75.0)
BETTER = Candidate("1.1.0", "b", "standin-next", "another vendor: fails less, answers sooner", 0.01)
HARMFUL = Candidate("1.2.0", "a", "standin-hasty", "fails eight times as often", 0.08)
SLOW_TAIL = Candidate(
    "1.3.0", "b", "standin-tail", "as fast as stable, but for one call in seven three times slower", 0.01, 60.0, 0.15, 3.0
)
EQUAL = Candidate("1.4.0", "a", "standin-equal", "as good as stable, released into an incident", 0.01)
RELEASES = (FIRST, BETTER, HARMFUL, SLOW_TAIL, EQUAL)


def write_release(folder: Path, candidate: Candidate, base_url: str) -> Path:
    """The manifest of `candidate` in `folder`/releases, with the prompt it names; its path."""
    releases = folder / "releases"
    (releases / "prompts").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(EXAMPLES / "prompts" / "support.md", releases / "prompts" / "support.md")
    path = releases / f"{SERVICE}-{candidate.version}.yaml"
    price = "{input_usd_per_mtok: 2.5, output_usd_per_mtok: 10}"
    path.write_text(
        f"# {candidate.about}\n"
        f"service: {SERVICE}\n"
        f"version: {candidate.version}\n"
        "kind: model\n"
        "routes:\n"
        f"  main: {{provider: openai, base_url: {json.dumps(base_url)}, model: {candidate.model}, price: {price}}}\n"
        "prompt: prompts/support.md\n"
        "parameters: {temperature: 0.2}\n"
        "limits: {timeout_s: 20}\n"
        "reliability: {retries: 0}  # so that what is drawn is what users meet\n"
    )
    return path
