"""Control's HTTP API, as commands call it."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any
from urllib.parse import quote

import httpx2

from cohort.base.errors import CohortError, Retry
from cohort.base.ids import new_id
from cohort.base.settings import DataDir
from cohort.surfaces.cli.session import Session

PREFIX = "/api/v1"
CONNECT_S = 3.0
ANSWER_S = 60.0
DOWNLOAD_S = 120.0
PAGE_ROWS = 200
STREAM_SILENCE_S = 60.0
"""A stream without even a heartbeat for so long counts as broken."""
AGAIN_WITHIN_S = 10.0
"""How long a request is repeated while a local supervisor restarts control. Every change carries an idempotency key."""
AGAIN_EVERY_S = 0.2
STREAM_AGAIN_WITHIN_S = 60.0
KEY_HINT = "Set COHORT_KEY to a key of that installation."


class Api:
    """Requests with this session's key. Answers are plain JSON values; every failure is a CohortError."""

    def __init__(self, session: Session) -> None:
        self.url, key, self._local, self._own = _where(session)
        headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
        self._client = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=not self._local)

    def get(self, path: str, query: Mapping[str, Any] | None = None, answer_s: float = ANSWER_S) -> Any:
        return self._request("GET", path, query=query, answer_s=answer_s)

    def get_all(self, path: str) -> Any:
        """Every page of a list, as one."""
        page = self.get(path, {"limit": PAGE_ROWS})
        while page["next"] is not None:
            following = self.get(path, {"limit": PAGE_ROWS, "cursor": page["next"]})
            page = {"items": page["items"] + following["items"], "next": following["next"]}
        return page

    def post(self, path: str, body: Mapping[str, Any], answer_s: float = ANSWER_S, repeat: bool = True) -> Any:
        """A change; the answer is waited for so long. Fields that are None are left out. `repeat`: ask again when the answer was lost."""
        said = {name: value for name, value in body.items() if value is not None}
        key = {"Idempotency-Key": new_id("ik", secrets.token_bytes)}
        return self._request("POST", path, body=said, headers=key, answer_s=answer_s, repeat=repeat)

    def download(self, path: str, to: IO[bytes]) -> int:
        """What is at `path`, written to `to`; returns how many bytes."""
        written = 0
        try:
            with self._client.stream("GET", PREFIX + path, headers={"Accept": "*/*"}, timeout=httpx2.Timeout(DOWNLOAD_S)) as response:
                if response.status_code != 200:
                    response.read()
                    raise self._explained(_problem(response))
                for piece in response.iter_bytes():
                    written += to.write(piece)
        except httpx2.TransportError as error:
            raise self._no_answer("GET", path, error) from error
        return written

    def events(self, path: str) -> Iterator[tuple[str, Any]]:
        """(name, data) of every server-sent event until the server ends the stream; connects again when it breaks.

        Raises:
            CohortError NOT_RUNNING: it could not be taken up again within STREAM_AGAIN_WITHIN_S.
        """
        deadline_s = time.monotonic() + STREAM_AGAIN_WITHIN_S
        while True:
            try:
                with self._stream(path) as response:
                    for event in parse_events(response.iter_lines()):
                        deadline_s = time.monotonic() + STREAM_AGAIN_WITHIN_S
                        yield event
                        if event[0] == "end":
                            return
            except httpx2.TransportError as error:
                if time.monotonic() >= deadline_s or not (self._local or _broke_off(error)):
                    raise self._no_answer("GET", path, error) from error
            if time.monotonic() >= deadline_s:
                raise CohortError(
                    "NOT_RUNNING", f"{self.url} keeps ending the stream {path}", retry=Retry.SAFE, hint="Look into control's log."
                )
            time.sleep(AGAIN_EVERY_S)

    @contextmanager
    def _stream(self, path: str) -> Iterator[httpx2.Response]:
        timeout = httpx2.Timeout(STREAM_SILENCE_S, connect=CONNECT_S)
        with self._client.stream("GET", PREFIX + path, headers={"Accept": "text/event-stream"}, timeout=timeout) as response:
            if response.status_code != 200:
                response.read()
                raise self._explained(_problem(response))
            yield response

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        answer_s: float = ANSWER_S,
        repeat: bool = True,
    ) -> Any:
        said = {name: value for name, value in (query or {}).items() if value is not None}
        _refuse_no_numbers(body)
        deadline_s = time.monotonic() + (AGAIN_WITHIN_S if self._local else 0.0)
        while True:
            try:
                response = self._client.request(
                    method,
                    PREFIX + path,
                    params=said,
                    json=body,
                    headers=dict(headers or {}),
                    timeout=httpx2.Timeout(answer_s, connect=CONNECT_S),
                )
                break
            except httpx2.TransportError as error:
                lost = not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
                if time.monotonic() >= deadline_s or isinstance(error, httpx2.ReadTimeout) or (lost and not repeat):
                    raise self._no_answer(method, path, error) from error
                time.sleep(AGAIN_EVERY_S)
        if response.status_code >= 400:
            raise self._explained(_problem(response))
        return _json(response) if response.status_code != 204 else None

    def _explained(self, error: CohortError) -> CohortError:
        """This installation's own key is refused only by another installation: this one is not up, and that one has its port."""
        if error.code != "KEY_INVALID" or not self._own:
            return error
        what = f"{self.url} refuses this installation's key: another one answers there"
        return CohortError(error.code, what, hint="Run `cohort up` here, with ports of its own; or name the other one with --data-dir.")

    def _no_answer(self, method: str, path: str, error: Exception) -> CohortError:
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            what = f"control does not answer at {self.url}"
            return CohortError(
                "NOT_RUNNING", what, retry=Retry.SAFE, hint="Run `cohort up`, or `cohort status` to see what runs; check --url."
            )
        what = f"{method} {path}: the answer was lost ({type(error).__name__})"
        if method == "GET":
            return CohortError("NOT_RUNNING", what, retry=Retry.SAFE, hint="Try again; `cohort status` says how control is.")
        return CohortError(
            "OUTCOME_UNKNOWN",
            what,
            retry=Retry.CHECK_FIRST,
            hint="Look at what it was about before you repeat; `cohort audit tail` says what was done.",
        )


def _refuse_no_numbers(body: Any, field: str = "") -> None:
    """Options take `nan` and `inf` for numbers; JSON has neither. Errors: FIELD_INVALID, with the field."""
    if isinstance(body, float) and not math.isfinite(body):
        raise CohortError("FIELD_INVALID", f"{field}: {body} is no number", field=field, hint="Write a number, such as 2.5.")
    if isinstance(body, Mapping):
        for name, value in body.items():
            _refuse_no_numbers(value, f"{field}.{name}" if field else str(name))
    elif isinstance(body, list):
        for place, value in enumerate(body):
            _refuse_no_numbers(value, f"{field}[{place}]")


def part(name: str) -> str:
    """A name as one segment of a path. Errors: FIELD_INVALID: it would be none, or another path."""
    if name in ("", ".", ".."):
        raise CohortError("FIELD_INVALID", f"{name!r} is no name", hint="Name what it is about.")
    return quote(name, safe="@")


def agent_id(api: Api, agent: str | None) -> str | None:
    """The id of an agent that was named either way; the log knows only ids, also of agents that it alone remembers. Errors: AGENT_UNKNOWN."""
    if agent is None or agent.startswith("ag_"):
        return agent
    return str(api.get(f"/agents/{part(agent)}")["id"])


def parse_events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Server-sent events (WHATWG HTML, 9.2): (event, JSON data) at every empty line; comments and other fields are skipped."""
    name, data = "message", ""
    for line in lines:
        if line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data += line[5:].removeprefix(" ")
        elif not line:
            if data or name != "message":
                yield name, json.loads(data) if data else None
            name, data = "message", ""


def address(session: Session) -> str:
    """Control's address. Errors: FIELD_INVALID."""
    return _found(session)[0]


def _found(session: Session) -> tuple[str, str, bool, DataDir]:
    """Control's address, this installation's own one, whether a supervisor of this data directory keeps it running, and the directory."""
    from cohort.ops.house import running

    settings = session.settings()
    now = running(settings.data)
    own = now.control_url if now else settings.control_url
    url = (session.url or session.environment.get("COHORT_URL") or own).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise CohortError(
            "FIELD_INVALID", f"--url: not an address, found {url!r}", field="url", hint="Write it like http://127.0.0.1:8710."
        )
    return url, own, now is not None and url == own, settings.data


def _where(session: Session) -> tuple[str, str, bool, bool]:
    """Control's address, the key for it, whether a supervisor of this data directory keeps it running, and whether the key is its own."""
    url, own, local, data = _found(session)
    given = _given_key(session)
    return url, given or _own_key(data, url, own), local, not given


def _given_key(session: Session) -> str:
    """The key in the environment; a line break at its end, as files have, is not part of it."""
    key = session.environment.get("COHORT_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        raise CohortError("FIELD_INVALID", "COHORT_KEY is not a key", field="COHORT_KEY", hint="A key begins with ck_ and is one line.")
    return key


def _own_key(data: DataDir, url: str, own: str) -> str:
    """The key in the data directory, which is only ever sent to this installation's own address."""
    if url != own:
        raise CohortError("NOT_SIGNED_IN", f"there is no key for {url}", hint=KEY_HINT)
    try:
        return data.operator_key.read_text(encoding="ascii").strip()
    except FileNotFoundError as error:
        what = f"nothing has run on {data.root} yet, and COHORT_KEY is not set"
        raise CohortError(
            "NOT_RUNNING", what, retry=Retry.SAFE, hint="Run `cohort up`, or name the installation with --data-dir."
        ) from error
    except OSError as error:
        raise CohortError("NOT_SIGNED_IN", f"{data.operator_key} cannot be read: {error.strerror}", hint=KEY_HINT) from error


def _problem(response: httpx2.Response) -> CohortError:
    body = _json(response)
    if isinstance(body, dict) and "code" in body:
        return CohortError.from_problem(body)
    return CohortError("INTERNAL", f"{response.request.url} answered {response.status_code}", hint="Check --url; look into control's log.")


def _json(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        what = f"{response.request.url} answered {response.status_code} with something that is not JSON"
        raise CohortError("INTERNAL", what, hint="Check that --url is Cohort's control.") from error


def _broke_off(error: httpx2.TransportError) -> bool:
    return not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
