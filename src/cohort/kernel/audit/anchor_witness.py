"""An anchor that is a C2SP tlog-witness: it signs a checkpoint only when it is proven to continue the last one it signed."""

from __future__ import annotations

import base64
import hashlib
import http.client
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from cohort.base.errors import CohortError
from cohort.kernel.audit.anchoring import Prove, Sent, failed
from cohort.kernel.audit.notes import COSIGNATURE, Note, Verifier, parse_note, parse_signature, parse_vkey

ANSWER_WAIT_S = 5.0
ANSWER_BYTES_MAX = 64 << 10
SIZE_TYPE = "text/x.tlog.size"


class WitnessAnchor:
    """`key`: the witness's own. Without one, it is asked for at the first use, and believed for as long as this process runs."""

    pause_s = 0.0

    def __init__(self, name: str, url: str, origin: str, key: Verifier | None) -> None:
        self.name = name
        self._url = urlsplit(url)
        self._origin = origin
        self._key = key
        self._seen = 0
        self._lock = threading.Lock()

    def send(self, note: str, size: int, prove: Prove) -> Sent:
        """Errors: ANCHOR_FAILED. A witness that knows a larger log, or another, is asked for its checkpoint by `notes`."""
        with self._lock:
            status, kind, body = self._add(note, min(self._seen, size), prove)
            if status == 409 and kind == SIZE_TYPE and body.strip().isdigit():
                self._seen = int(body)
                if self._seen > size:
                    raise failed(self.name, f"has signed {self._seen} records; the log has {size}", "Run `cohort audit verify`.")
                status, kind, body = self._add(note, self._seen, prove)
            if status != 200:
                raise self._refused(status, body)
            self._seen = size
        return Sent("cosigned", self._cosigned(note, body))

    def _add(self, note: str, old: int, prove: Prove) -> tuple[int, str, str]:
        proof = "".join(base64.b64encode(hashed).decode() + "\n" for hashed in prove(old))
        return self._ask("POST", "/add-checkpoint", f"old {old}\n{proof}\n{note}")

    def notes(self) -> Sequence[str]:
        """The newest checkpoint it has signed; none when it knows nothing of this log. Errors: ANCHOR_FAILED."""
        status, _, body = self._ask("GET", f"/{hashlib.sha256(self._origin.encode()).hexdigest()}/checkpoint", None)
        if status == 404:
            return []
        if status != 200:
            raise self._refused(status, body)
        self._check(parse_note(body))
        return [body]

    def _cosigned(self, note: str, lines: str) -> str:
        """The note with the witness's line, verified."""
        try:
            parsed = parse_note(note)
            added = tuple(parse_signature(line) for line in lines.splitlines())
            whole = Note(parsed.text, parsed.signatures + added)
        except CohortError as error:
            raise failed(self.name, f"answered something that is no signature: {error.message}", "Is it a witness?") from error
        self._check(whole)
        return str(whole)

    def _check(self, note: Note) -> None:
        key = self._public()
        if not any(key.signs(signature) and key.verify(note.text, signature) for signature in note.signatures):
            raise failed(self.name, f"did not sign with its key {key.vkey}", "Somebody answers in its place, or its key was changed.")

    def _public(self) -> Verifier:
        if self._key is None:
            status, _, body = self._ask("GET", "/vkey", None)
            if status != 200:
                raise failed(self.name, "does not tell its key", "Write the key behind the address: http://host:port#VKEY.")
            try:
                self._key = parse_vkey(body)
            except CohortError as error:
                raise failed(self.name, f"tells a key that is none: {error.message}", "Is it a witness?") from error
        if self._key.kind != COSIGNATURE:
            raise failed(self.name, "has a key that is not for cosignatures", "Use the key that the witness prints.")
        return self._key

    def _refused(self, status: int, body: str) -> CohortError:
        why = {
            403: "does not trust this log's key",
            404: "does not know this log",
            409: "has signed another checkpoint in the meantime",
            422: "found that the log does not continue what it has signed",
        }.get(status, f"answered {status}: {body[:200].strip()}")
        return failed(
            self.name, why, "Give the witness this log's public key (`cohort audit export` writes it), or run `cohort audit verify`."
        )

    def _ask(self, method: str, path: str, body: str | None) -> tuple[int, str, str]:
        secure = self._url.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        channel = kind(self._url.hostname or "", self._url.port, timeout=ANSWER_WAIT_S)
        try:
            channel.request(method, self._url.path.rstrip("/") + path, body.encode() if body is not None else None)
            answer = channel.getresponse()
            text = answer.read(ANSWER_BYTES_MAX).decode(errors="replace")
            return answer.status, answer.headers.get_content_type(), text
        except (OSError, http.client.HTTPException) as error:
            raise failed(self.name, f"cannot be reached: {error}", "Start the witness, or correct its address.") from error
        finally:
            channel.close()
