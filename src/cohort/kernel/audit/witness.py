"""A C2SP tlog-witness: cosigns a log's checkpoint when it is proven to continue the last one that it cosigned.

    python -m cohort.kernel.audit.witness --listen 127.0.0.1:8790 --state /var/lib/witness --name witness.example/w1 --log VKEY

Run it where whoever could change the log cannot change the witness: another machine, or another user. It keeps one small file per log, and
its key, in the state folder.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cohort.base.clock import Clock, SystemClock
from cohort.base.errors import CohortError
from cohort.base.ids import Entropy
from cohort.kernel.audit import merkle
from cohort.kernel.audit.anchor_witness import SIZE_TYPE
from cohort.kernel.audit.keys import create_key, read_key, sync_folder
from cohort.kernel.audit.notes import (
    COSIGNATURE,
    Checkpoint,
    Note,
    Signer,
    Verifier,
    base64_bytes,
    parse_checkpoint,
    parse_note,
    parse_vkey,
    signed_by,
)

REQUEST_BYTES_MAX = 128 << 10
REQUEST_WAIT_S = 10.0
LOGS_MAX = 1000

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: str
    kind: str = "text/plain"


class Witness:
    """The rules and the memory. Safe to use from many threads."""

    def __init__(self, folder: Path, logs: Sequence[Verifier], signer: Signer, clock: Clock) -> None:
        self._folder = folder
        self._logs = list(logs)
        self._signer = signer
        self._clock = clock
        self._deciding = threading.Lock()

    @property
    def vkey(self) -> str:
        return self._signer.verifier.vkey

    def add_checkpoint(self, request: str) -> Answer:
        """As C2SP tlog-witness says. The new state is durable before the cosignature is given away."""
        try:
            old, path, note = _parse_request(request)
            checkpoint = parse_checkpoint(note.text)
        except CohortError as error:
            return Answer(400, f"{error.message}\n")
        keys = [key for key in self._logs if key.name == checkpoint.origin]
        if not keys:
            return Answer(404, "this log is not known here\n")
        try:
            signers = signed_by(note, keys)
        except CohortError as error:
            return Answer(403, f"{error.message}\n")
        if not signers:
            return Answer(403, "no signature by a key that is trusted for this log\n")
        with self._deciding:
            return self._decide(old, path, checkpoint, note)

    def _decide(self, old: int, path: list[bytes], checkpoint: Checkpoint, note: Note) -> Answer:
        if old > checkpoint.size:
            return Answer(400, "the old size is larger than the new one\n")
        last = self._last(checkpoint.origin)
        known = parse_checkpoint(last.text) if last else Checkpoint(checkpoint.origin, 0, merkle.EMPTY_ROOT)
        if old != known.size:
            return Answer(409, f"{known.size}\n", SIZE_TYPE)
        if not _continues(known, checkpoint, path):
            _logger.warning("%s: the checkpoint of %d records does not continue that of %d", checkpoint.origin, checkpoint.size, known.size)
            return Answer(422, "the new checkpoint does not continue the last one\n")
        line = self._signer.cosign(note.text, self._clock.now_us() // 1_000_000)
        self._keep(checkpoint.origin, Note(note.text, (*note.signatures, line)))
        return Answer(200, line.line)

    def checkpoint(self, origin_sha256: str) -> Answer:
        """The newest checkpoint cosigned for the log whose origin has this hash."""
        for key in self._logs:
            if hashlib.sha256(key.name.encode()).hexdigest() == origin_sha256:
                with self._deciding:
                    last = self._last(key.name)
                return Answer(200, str(last)) if last else Answer(404, "nothing was cosigned for this log yet\n")
        return Answer(404, "this log is not known here\n")

    def _path(self, origin: str) -> Path:
        return self._folder / f"{hashlib.sha256(origin.encode()).hexdigest()}.checkpoint"

    def _last(self, origin: str) -> Note | None:
        try:
            return parse_note(self._path(origin).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def _keep(self, origin: str, note: Note) -> None:
        path = self._path(origin)
        fresh = path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(str(note))
            file.flush()
            os.fsync(file.fileno())
        # Commit point. Before this line the witness has not seen the checkpoint; after it, it never cosigns a smaller or another one.
        fresh.replace(path)
        sync_folder(self._folder)


def _continues(known: Checkpoint, new: Checkpoint, path: list[bytes]) -> bool:
    if new.size == 0:
        return new.root == merkle.EMPTY_ROOT and not path
    if known.size == 0:
        return not path
    return merkle.consistent(known.size, known.root, new.size, new.root, path)


def _parse_request(text: str) -> tuple[int, list[bytes], Note]:
    top, _, note = text.partition("\n\n")
    lines = top.split("\n")
    old = lines[0].removeprefix("old ")
    if not lines[0].startswith("old ") or not (old.isascii() and old.isdigit()) or len(old) > 19 or str(int(old)) != old:
        raise CohortError("DOCUMENT_INVALID", "the request does not begin with the old size", hint="Send `old SIZE` first.")
    path = [base64_bytes(line) for line in lines[1:]]
    if len(path) > merkle.PROOF_HASHES_MAX or any(len(hashed) != merkle.HASH_BYTES for hashed in path):
        raise CohortError("DOCUMENT_INVALID", "the proof is not made of at most 63 hashes", hint="Send one hash per line.")
    return int(old), path, parse_note(note)


class _Handler(BaseHTTPRequestHandler):
    """HTTP to the witness and back."""

    server: WitnessServer
    timeout = REQUEST_WAIT_S
    server_version = "cohort-witness"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path == "/vkey":
            return self._send(Answer(200, f"{self.server.witness.vkey}\n"))
        parts = self.path.split("/")
        if len(parts) == 3 and parts[2] == "checkpoint":
            return self._send(self.server.witness.checkpoint(parts[1]))
        return self._send(Answer(404, "nothing is here\n"))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != "/add-checkpoint":
            return self._send(Answer(404, "nothing is here\n"))
        if not length.isdigit() or int(length) > REQUEST_BYTES_MAX:
            self.close_connection = True
            return self._send(Answer(413, f"send at most {REQUEST_BYTES_MAX} bytes, and their number\n"))
        try:
            request = self.rfile.read(int(length)).decode()
        except UnicodeDecodeError:
            return self._send(Answer(400, "the request is not UTF-8\n"))
        return self._send(self.server.witness.add_checkpoint(request))

    def _send(self, answer: Answer) -> None:
        body = answer.body.encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        _logger.info(format, *values)


class WitnessServer(ThreadingHTTPServer):
    """`server_address` says which port it got."""

    daemon_threads = True

    def __init__(self, host: str, port: int, witness: Witness) -> None:
        super().__init__((host, port), _Handler)
        self.witness = witness

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        _logger.warning("a request from %s failed", client_address, exc_info=True)


def open_witness(folder: Path, name: str, logs: Sequence[str], clock: Clock, entropy: Entropy) -> Witness:
    """A witness with its memory and its key in `folder`; `logs` are the public keys of the logs it serves.

    Errors: CONFIG_INVALID, DOCUMENT_INVALID, FIELD_INVALID.
    """
    if len(logs) > LOGS_MAX:
        raise CohortError("FIELD_INVALID", f"{len(logs)} logs", field="log", hint=f"Name at most {LOGS_MAX}.")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        what = f"{folder} cannot be used: {error.strerror}"
        raise CohortError("CONFIG_INVALID", what, field="state", hint="Choose a folder you may write to.") from error
    signer = read_key(folder / "witness.key") or create_key(folder / "witness.key", name, entropy, COSIGNATURE)
    return Witness(folder, [parse_vkey(text) for text in logs], signer, clock)


def main(words: Sequence[str] | None = None) -> int:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="python -m cohort.kernel.audit.witness", description="Cosign the checkpoints of audit logs.")
    parser.add_argument("--listen", default="127.0.0.1:8790", metavar="HOST:PORT")
    parser.add_argument("--state", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--name", default="cohort.local/witness", help="the witness's name in its cosignatures; used when its key is made")
    parser.add_argument("--log", action="append", required=True, metavar="VKEY", help="the public key of a log; can be repeated")
    chosen = parser.parse_args(words)
    host, _, port = chosen.listen.rpartition(":")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if not host or not port.isdigit():
        parser.error("--listen needs HOST:PORT")
    try:
        witness = open_witness(chosen.state, chosen.name, chosen.log, SystemClock(), secrets.token_bytes)
        server = WitnessServer(host, int(port), witness)
    except (CohortError, OSError) as error:
        parser.exit(1, f"the witness cannot start: {error}\n")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"listening on {server.server_address[0]!s}:{server.server_address[1]}, key {witness.vkey}", flush=True)  # noqa: T201
    server.serve_forever()
    server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
