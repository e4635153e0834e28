"""The audit log: look, verify, prove, take away, anchor."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated

from fastapi import APIRouter, Body, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from cohort.base.errors import CohortError
from cohort.kernel.face import AuditKey, AuditQuery, Entry, Verification
from cohort.surfaces.http.bodies_kernel import Anchored, AuditKeys, Entries, NoteBody, Noted, ProofView, VerifyBody, Verifying
from cohort.surfaces.http.callers import Auditor, AuditWriter, Idempotency, Kernel, KeyKeeper
from cohort.surfaces.http.encoding import json_response
from cohort.surfaces.http.live import Feed, entries_stream, stream_response
from cohort.surfaces.http.paging import Cursor, Rows, cursor_number
from cohort.surfaces.http.ports import NUMBER_MAX
from cohort.surfaces.http.repeats import once
from cohort.surfaces.http.routes_rollouts import EVENTS, number_of

router = APIRouter()

TEXT_CHARS_MAX = 200
TAR_PIECE_BYTES = 256 << 10
OLDEST = "oldest"
Filter = Annotated[str | None, Query(max_length=TEXT_CHARS_MAX)]
TimeUs = Annotated[int | None, Query(ge=0, le=NUMBER_MAX)]


@router.get("/audit/entries", responses={200: {"model": Entries}}, summary="Entries of the log, newest first")
def search(
    kernel: Kernel,
    _: Auditor,
    agent: Filter = None,
    kind: Filter = None,
    action: Filter = None,
    text: Filter = None,
    since_us: TimeUs = None,
    until_us: TimeUs = None,
    limit: Rows = 50,
    cursor: Cursor = None,
) -> Response:
    """Everything given must hold. `text`: somewhere in the entry's JSON."""
    query = AuditQuery(agent, kind, action, text, since_us, until_us, cursor_number(cursor), limit + 1)
    found = tuple(kernel.audit.search(query))
    following = str(found[limit - 1].index) if len(found) > limit else None
    return json_response(Entries(found[:limit], following, kernel.audit.size()))


@router.get("/audit/events", responses=EVENTS, summary="New entries as they come (server-sent events)")
async def events(
    request: Request,
    kernel: Kernel,
    _: Auditor,
    after: Annotated[int | None, Query(ge=0, le=NUMBER_MAX, description="From this index on; left out: only new ones.")] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """`event: entry` with one entry, in order; ids are the indexes, so a client that comes back with Last-Event-ID misses none."""
    feed: Feed = request.app.state.feed
    seen = number_of(last_event_id or "")
    first = seen + 1 if seen is not None else after if after is not None else await feed.ask(kernel.audit.size)
    return stream_response(feed, entries_stream(feed, kernel.audit, first))


@router.get("/audit/entries/{index}", responses={200: {"model": Entry}}, summary="One entry")
def entry(index: int, kernel: Kernel, _: Auditor) -> Response:
    return json_response(kernel.audit.entry(index))


@router.get(
    "/audit/entries/{index}/proof", responses={200: {"model": ProofView}}, summary="That the entry is in the log: a C2SP tlog-proof"
)
def prove(index: int, kernel: Kernel, _: Auditor) -> Response:
    return json_response(proof_view(kernel, index))


@router.get(
    "/audit/checkpoint", responses={200: {"content": {"text/plain": {}}}}, summary="The newest signed note of the log's size and root"
)
def checkpoint(kernel: Kernel, _: Auditor) -> Response:
    return Response(kernel.audit.checkpoint(), media_type="text/plain; charset=utf-8")


@router.get("/audit/key", responses={200: {"content": {"text/plain": {}}}}, summary="The public keys that sign checkpoints, as vkeys")
def key(kernel: Kernel, _: Auditor) -> Response:
    """One line for each key the log has had, the newest first, as the stand-alone verifier takes them: `VKEY [since SIZE] [until SIZE]`.

    Compare it with one that you keep elsewhere: whoever could replace the log could replace this answer.
    """
    keys = kernel.audit.signing_keys()
    if not keys:
        raise CohortError("NOT_FOUND", "the log's public key is missing", hint="Look into control's log.")
    return Response("".join(f"{one.line}\n" for one in keys), media_type="text/plain; charset=utf-8")


@router.get("/audit/keys", responses={200: {"model": AuditKeys}}, summary="Every key the log has had, the newest first")
def keys(kernel: Kernel, _: Auditor) -> Response:
    """A key signs the checkpoints whose size lies from `since` to `until`; it is active while it has no `until`."""
    return json_response(AuditKeys(tuple(kernel.audit.signing_keys())))


@router.post("/audit/keys", status_code=201, responses={201: {"model": AuditKey}}, summary="Sign checkpoints with a new key as well")
def rotate(request: Request, kernel: Kernel, caller: KeyKeeper, key: Idempotency = None) -> Response:
    """Both keys sign until the older one is retired. With two active keys: `AUDIT_KEY_REFUSED`."""
    return once(request, caller, key, None, lambda: json_response(kernel.audit.rotate_key(caller.name), 201))


@router.post("/audit/keys/{key_id}/retire", responses={200: {"model": AuditKey}}, summary="End one of two active keys")
def retire(request: Request, key_id: str, kernel: Kernel, caller: KeyKeeper, key: Idempotency = None) -> Response:
    """It signs nothing from now on, and its secret is removed. `key_id`: its id, or `oldest`."""
    chosen = None if key_id == OLDEST else key_id
    return once(request, caller, key, None, lambda: json_response(kernel.audit.retire_key(chosen, caller.name)))


@router.post("/audit/verify", responses={200: {"model": Verification}}, summary="Verify the log")
def verify(kernel: Kernel, _: AuditWriter, body: Annotated[VerifyBody | None, Body()] = None) -> Response:
    """Changes nothing. 200 with what was found, also when that is bad: `integrity` is `verified`, `broken` or `no data`."""
    return json_response(kernel.audit.verify(full=body.full if body else True))


@router.get("/audit/verify", responses={200: {"model": Verifying}}, summary="How far the full verification is that runs now")
def verifying(kernel: Kernel, _: Auditor) -> Response:
    done = kernel.audit.verifying()
    return json_response(Verifying(done is not None, *(done or (0, 0))))


@router.get(
    "/audit/export",
    responses={200: {"content": {"application/x-tar": {}}}},
    summary="The log with proofs and a stand-alone verifier, as a tar",
)
def export(kernel: Kernel, _: Auditor) -> Response:
    """Tiles, entries, checkpoint, public key and the verifier."""
    with tempfile.TemporaryDirectory(prefix="cohort-audit-") as folder:
        place = Path(folder) / "audit"
        place.mkdir()
        kernel.audit.export(str(place))
        packed = _packed(place)
    headers = {"content-disposition": 'attachment; filename="cohort-audit.tar"'}
    return StreamingResponse(_pieces(packed), media_type="application/x-tar", headers=headers)


@router.post("/audit/anchor", responses={200: {"model": Anchored}}, summary="Send the newest checkpoint to every anchor now")
def anchor(request: Request, kernel: Kernel, caller: AuditWriter, key: Idempotency = None) -> Response:
    return once(request, caller, key, None, lambda: json_response(Anchored(tuple(kernel.audit.anchor()))))


@router.post("/audit/notes", status_code=201, responses={201: {"model": Noted}}, summary="A person's remark, in the log for good")
def note(request: Request, body: Annotated[NoteBody, Body()], kernel: Kernel, caller: AuditWriter, key: Idempotency = None) -> Response:
    return once(request, caller, key, body, lambda: json_response(Noted(kernel.audit.note(body.text, caller.name)), 201))


def proof_view(kernel: Kernel, index: int) -> ProofView:
    proof = kernel.audit.prove(index)
    return ProofView(proof.index, kernel.audit.entry(index).leaf, proof.entry.decode(), proof.text)


def _packed(place: Path) -> IO[bytes]:
    packed = tempfile.TemporaryFile()  # noqa: SIM115
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(place, arcname="audit")
    packed.seek(0)
    return packed


def _pieces(packed: IO[bytes]) -> Iterator[bytes]:
    with packed:
        while piece := packed.read(TAR_PIECE_BYTES):
            yield piece
