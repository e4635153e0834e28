"""The state of one stand-in vendor, and what it answers to each path."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

from standin.answers import BadRequest, Question, parse_question, reply_to
from standin.behaviour import Behaviour, changed, draw
from standin.protocol import Step, completion, error_body, failure, json_response, models_body, parse_json, stream


@dataclass(slots=True)
class Vendor:
    """The state of one process: its models, how often each was called, and an incident that touches all of them."""

    name: str
    seed: int
    models: dict[str, Behaviour]
    calls: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    incident_failure_rate: float = 0.0

    def answer(self, body: bytes, now_s: int) -> tuple[Step, ...]:
        """One chat request, as bytes with times."""
        try:
            question = parse_question(parse_json(body))
        except BadRequest as error:
            return (Step(0.0, json_response(400, error_body(str(error), "invalid_request_error", error.code, error.param), self.name)),)
        if question.model not in self.models:
            message = f"The model `{question.model}` does not exist here. This stand-in has: {', '.join(self.models)}."
            return (Step(0.0, json_response(404, error_body(message, "invalid_request_error", "model_not_found"), self.name)),)
        return self._drawn(question, now_s)

    def _drawn(self, question: Question, now_s: int) -> tuple[Step, ...]:
        model, behaviour = question.model, self.models[question.model]
        number = self.calls[model] = self.calls.get(model, 0) + 1
        fate = draw(behaviour, self.seed, model, number, self.incident_failure_rate)
        if fate.status != 200:
            self.failed[model] = self.failed.get(model, 0) + 1
            return (Step(fate.latency_s * behaviour.first_share, failure(fate, model, self.name)),)
        reply = reply_to(question, fate.mark)
        if question.stream:
            return stream(question, reply, fate, behaviour, now_s, self.name)
        return (Step(fate.latency_s, completion(question, reply, fate, now_s, self.name)),)

    def control(self, body: Any) -> dict[str, Any]:
        """Change settings, all or none. Raises ValueError naming the wrong one."""
        if not isinstance(body, dict):
            raise ValueError("send a JSON object of settings")
        settings = dict(body)
        model = settings.pop("model", None)
        incident = settings.pop("incident_failure_rate", self.incident_failure_rate)
        if model is not None and model not in self.models:
            raise ValueError(f"no model {model!r} here: {', '.join(self.models)}")
        if isinstance(incident, bool) or not isinstance(incident, int | float) or not 0 <= incident <= 1:
            raise ValueError(f"incident_failure_rate is from 0 to 1, found {incident!r}")
        touched = [model] if model is not None else list(self.models)
        self.models |= {name: changed(self.models[name], settings) for name in touched}
        self.incident_failure_rate = float(incident)
        return self.state()

    def state(self) -> dict[str, Any]:
        models = {
            name: dataclasses.asdict(behaviour) | {"calls": self.calls.get(name, 0), "failed": self.failed.get(name, 0)}
            for name, behaviour in self.models.items()
        }
        cpu = time.process_time()
        return {"name": self.name, "stand_in": True, "incident_failure_rate": self.incident_failure_rate, "cpu_s": cpu, "models": models}

    def route(self, method: str, path: str, body: bytes, local: bool) -> tuple[Step, ...]:
        """Every request that is not a chat."""
        now_s = int(time.time())
        if path in ("/v1/chat/completions", "/chat/completions"):
            if method != "POST":
                return self._refuse(405, f"{method} is not for {path}.")
            return self.answer(body, now_s)
        if path == "/v1/models":
            return (Step(0.0, json_response(200, models_body(list(self.models), self.name, now_s), self.name)),)
        if path.startswith("/v1/models/") and path.rsplit("/", 1)[1] in self.models:
            return (Step(0.0, json_response(200, models_body([path.rsplit("/", 1)[1]], self.name, now_s)["data"][0], self.name)),)
        if path == "/health":
            return (Step(0.0, json_response(200, {"status": "ok", "name": self.name, "stand_in": True}, self.name)),)
        if path == "/control":
            return self._control(method, body, local)
        return self._refuse(404, f"Invalid URL ({method} {path}).")

    def _control(self, method: str, body: bytes, local: bool) -> tuple[Step, ...]:
        if not local:
            return self._refuse(403, "/control answers to this machine only.")
        if method == "GET":
            return (Step(0.0, json_response(200, self.state(), self.name)),)
        try:
            return (Step(0.0, json_response(200, self.control(parse_json(body)), self.name)),)
        except ValueError as error:
            return self._refuse(400, str(error))

    def _refuse(self, status: int, message: str) -> tuple[Step, ...]:
        return (Step(0.0, json_response(status, error_body(message, "invalid_request_error"), self.name)),)
