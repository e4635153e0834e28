"""A release manifest for tests, and its variations."""

from __future__ import annotations

from cohort.delivery.face import Bundle

MANIFEST = """\
service: support
version: 4.1.0
kind: model
routes:
  main: {provider: openai, base_url: "http://127.0.0.1:9101/v1", model: big, api_key: "env:MAIN_KEY", price: {input_usd_per_mtok: 2.5, output_usd_per_mtok: 10}}
  backup: {provider: openai, base_url: "http://127.0.0.1:9102/v1", model: small}
prompt: prompts/support.md
parameters: {temperature: 0.2, max_output_tokens: 800}
tools: [files.read, terminal.run]
flags: {self_improvement.auto_apply: false, cache.semantic.threshold: 0.85}
autonomy: {risk_max_auto: 0.3}
limits: {timeout_s: 60, budget_usd_per_day: 50}
"""
PROMPT = "You are kind.\n"


def bundle(
    text: str = MANIFEST, *, source: str = "support.yaml", prompt: str = PROMPT, version: str = "4.1.0", service: str = "support"
) -> Bundle:
    """A valid bundle, with what the test is about in place of the usual."""
    text = text.replace("version: 4.1.0", f'version: "{version}"').replace("service: support", f"service: {service}")
    return Bundle(source, text, {"prompts/support.md": prompt})
