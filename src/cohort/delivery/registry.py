"""The registry of releases: immutable, content-addressed, every byte checked whenever it is read.

A release is a row of `releases`, a record and parts. The record is a blob: canonical JSON of the frozen manifest, of who made it and when.
A top-level field of the manifest that is large becomes a part, a blob of its own, so that releases share what they have in common.
The digest in the row is recomputed from record and parts, and every other column is compared with the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson
from sqlalchemy import Connection, Row, Select, select

from cohort.base.canonical import canonical_json
from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.base.ids import ReleaseDigest, short
from cohort.delivery import manifests
from cohort.delivery.face import Bundle, Created
from cohort.delivery.manifest_fields import STABLE
from cohort.delivery.manifests import FILE_DIGEST_PREFIX, Manifest
from cohort.delivery.model import Release
from cohort.delivery.prices import day_of, priced
from cohort.storage import blobs
from cohort.storage.database import Database
from cohort.storage.schema import releases, services, tags

LIST_MAX = 1000
PART_BYTES_MIN = 256
PREFIX_DIGITS_MIN = 8
VERSIONS_NAMED_MAX = 5
_RECORD_FIELDS = {"created_by", "created_us", "manifest", "parts"}
_DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Saving:
    """`logical_bytes`: every release written out in full; `physical_bytes`: the compressed objects that hold them all."""

    releases: int
    logical_bytes: int
    physical_bytes: int

    @property
    def part(self) -> float:
        """1 - physical / logical; 0.0 where nothing is stored."""
        return 1 - self.physical_bytes / self.logical_bytes if self.logical_bytes else 0.0


class SqlRegistry:
    """`delivery.face.Registry` on the database. `changed`: called once a new service is stored, so that gateways are told."""

    def __init__(self, database: Database, clock: Clock, changed: Callable[[], object] = lambda: None) -> None:
        self._database = database
        self._clock = clock
        self._changed = changed

    def create(self, bundle: Bundle, actor: str) -> Created:
        """Validate, freeze and store; the first release of a service makes the service and is its stable.

        Raises:
            CohortError: those of `manifests.freeze` and `Database.write`.
            CohortError RELEASE_VERSION_TAKEN: this version has other content; says which release and which fields.
            CohortError RELEASE_DAMAGED: this version is there, and damaged.
        """
        manifest = manifests.freeze(bundle)
        with self._database.write() as connection:
            self._database.lock(connection, f"service {manifest.service}")
            row = connection.execute(
                _rows().where(releases.c.service == manifest.service, releases.c.version == manifest.version)
            ).one_or_none()
            if row is not None:
                found = self._existing(connection, row, manifest)
                return Created(found, False, False, self._unpriced(found))
            became_stable = self._insert(connection, manifest, actor)
            made = _load(connection, _row(connection, manifest.digest))
        if became_stable:
            self._changed()
        return Created(made, True, became_stable, self._unpriced(made))

    def _unpriced(self, release: Release) -> tuple[str, ...]:
        routes = priced(manifests.release_routes(release), day_of(self._clock.now_us())).routes if "routes" in release.manifest else ()
        return tuple(route.name for route in routes if route.price is None)

    def list(self, service: str | None = None) -> Sequence[Release]:
        """Newest first, at most `LIST_MAX`. Raises RELEASE_DAMAGED when one of them is."""
        query = _rows().order_by(releases.c.created_us.desc(), releases.c.digest).limit(LIST_MAX)
        with self._database.read() as connection:
            rows = connection.execute(query if service is None else query.where(releases.c.service == service)).all()
            return [_load(connection, row) for row in rows]

    def find(self, ref: str, service: str | None = None) -> Release:
        """By digest, unique digest prefix, `service@version`, or within `service` by version or tag.

        Raises:
            CohortError RELEASE_UNKNOWN, RELEASE_AMBIGUOUS, RELEASE_DAMAGED.
        """
        if service is None and "@" in ref:
            service, _, ref = ref.partition("@")
        with self._database.read() as connection:
            return _load(connection, _one(_candidates(connection, ref, service), connection, ref, service))

    def verify(self, digest: ReleaseDigest) -> None:
        """Re-read every object of the release and its row against its digest.

        Raises:
            CohortError RELEASE_DAMAGED: names the object; also when the row is gone, as whoever holds a digest has seen the release.
        """
        try:
            with self._database.read() as connection:
                _load(connection, _row(connection, digest))
        except CohortError as error:
            if error.code == "DATABASE_DAMAGED":
                _damaged(digest, "the database", error.message)
            raise

    def saving(self) -> Saving:
        """What sharing and compression save. Reads, and so checks, every release."""
        with self._database.read() as connection:
            rows = connection.execute(_rows()).all()
            logical = sum(_written_out_bytes(_load(connection, row)) for row in rows)
            return Saving(len(rows), logical, blobs.stored(connection).physical_bytes)

    def _existing(self, connection: Connection, row: Row[Any], manifest: Manifest) -> Release:
        release = _load(connection, row)
        if release.digest == manifest.digest:
            return release
        differing = _differing(release.manifest, manifests.shown(manifest.body))
        raise CohortError(
            "RELEASE_VERSION_TAKEN",
            f"{manifest.service} {manifest.version} is {short(release.digest)} already, with other content: {', '.join(differing)}",
            field="version",
            hint="Choose a new version.",
            digest=release.digest,
            fields=differing,
        )

    def _insert(self, connection: Connection, manifest: Manifest, actor: str) -> bool:
        """Everything of a new release; True when it is the first of its service."""
        now_us = self._clock.now_us()
        record = self._put_record(connection, manifest, now_us, actor)
        row = {"digest": manifest.digest, "service": manifest.service, "version": manifest.version, "kind": manifest.kind}
        connection.execute(releases.insert().values(**row, manifest=record, created_us=now_us, created_by=actor))
        made = connection.execute(
            self._database.upsert(services)
            .values(name=manifest.service, stable=manifest.digest, revision=1, created_us=now_us, changed_us=now_us)
            .on_conflict_do_nothing(index_elements=["name"])
            .returning(services.c.name)
        ).one_or_none()
        if made is not None:
            connection.execute(tags.insert().values(service=manifest.service, tag=STABLE, digest=manifest.digest, changed_us=now_us))
        return made is not None

    def _put_record(self, connection: Connection, manifest: Manifest, now_us: int, actor: str) -> str:
        inline: dict[str, Any] = {}
        parts: dict[str, str] = {}
        for name, value in manifest.body.items():
            data = canonical_json(value)
            if len(data) >= PART_BYTES_MIN:
                parts[name] = blobs.put(self._database, connection, data)
            else:
                inline[name] = value
        if manifest.prompt is not None:
            blobs.put(self._database, connection, manifest.prompt.encode())
        record = {"created_by": actor, "created_us": now_us, "manifest": inline, "parts": parts}
        return blobs.put(self._database, connection, canonical_json(record))


def _rows() -> Select[Any]:
    is_stable = select(services.c.name).where(services.c.name == releases.c.service, services.c.stable == releases.c.digest).exists()
    return select(releases, is_stable.label("is_stable"))


def _row(connection: Connection, digest: str) -> Row[Any]:
    row = connection.execute(_rows().where(releases.c.digest == digest)).one_or_none()
    return row if row is not None else _damaged(digest, "its row", "it is gone")


def _candidates(connection: Connection, ref: str, service: str | None) -> Sequence[Row[Any]]:
    """Rows that `ref` may mean: one when it is found, more when it is ambiguous."""
    found: dict[str, Row[Any]] = {}
    if service is not None:
        tagged = connection.execute(select(tags.c.digest).where(tags.c.service == service, tags.c.tag == ref)).scalar_one_or_none()
        if tagged is not None:
            found[tagged] = _row(connection, tagged)
        versions = connection.execute(_rows().where(releases.c.service == service, releases.c.version == ref)).all()
        found |= {row.digest: row for row in versions}
    digits = ref.removeprefix("rel_")
    if not found and len(digits) >= PREFIX_DIGITS_MIN and _DIGITS.issuperset(digits):
        query = _rows().where(releases.c.digest.startswith("rel_" + digits, autoescape=True)).limit(2)
        found = {row.digest: row for row in connection.execute(query if service is None else query.where(releases.c.service == service))}
    return list(found.values())


def _one(rows: Sequence[Row[Any]], connection: Connection, ref: str, service: str | None) -> Row[Any]:
    if len(rows) == 1:
        return rows[0]
    if rows:
        meant = ", ".join(f"{row.service}@{row.version} ({short(row.digest)})" for row in rows)
        raise CohortError("RELEASE_AMBIGUOUS", f"{ref} may be {meant}", hint="Name it by a longer digest.")
    if service is None:
        raise CohortError("RELEASE_UNKNOWN", f"there is no release {ref}", hint="Name it as SERVICE@VERSION or by its digest.")
    query = select(releases.c.version).where(releases.c.service == service).order_by(releases.c.created_us.desc()).limit(VERSIONS_NAMED_MAX)
    newest = connection.execute(query).scalars().all()
    hint = f"Its newest versions are: {', '.join(newest)}." if newest else "Create its first release with `cohort release create FILE`."
    raise CohortError("RELEASE_UNKNOWN", f"{service} has no release {ref}" if newest else f"there is no service {service}", hint=hint)


def _load(connection: Connection, row: Row[Any]) -> Release:
    """The release of `row`, with every byte of it checked."""
    record = _json(row, "its record", _object(connection, row, "its record", row.manifest))
    if not isinstance(record, dict) or record.keys() != _RECORD_FIELDS:
        _damaged(row.digest, "its record", "it is not a record")
    body = _body(connection, row, record)
    _check_row(row, record, body)
    named = body.get("prompt")
    prompt = None if named is None else _object(connection, row, "its prompt", named.removeprefix(FILE_DIGEST_PREFIX)).decode()
    named_by = select(tags.c.tag).where(tags.c.service == row.service, tags.c.digest == row.digest).order_by(tags.c.tag)
    return Release(
        digest=ReleaseDigest(row.digest),
        service=row.service,
        version=row.version,
        kind=row.kind,
        manifest=manifests.shown(body),
        prompt=prompt,
        created_us=row.created_us,
        created_by=row.created_by,
        tags=tuple(connection.execute(named_by).scalars()),
        stable=bool(row.is_stable),
    )


def _body(connection: Connection, row: Row[Any], record: Mapping[str, Any]) -> dict[str, Any]:
    parts = {name: _json(row, name, _object(connection, row, name, digest)) for name, digest in record["parts"].items()}
    return {**record["manifest"], **parts}


def _check_row(row: Row[Any], record: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    if manifests.identity(body) != row.digest:
        _damaged(row.digest, "its row", "the digest is not that of the content")
    said = {name: body[name] for name in ("service", "version", "kind")} | {name: record[name] for name in ("created_us", "created_by")}
    for name, value in said.items():
        if row._mapping[name] != value:
            _damaged(row.digest, "its row", f"{name} is not what the record says")


def _object(connection: Connection, row: Row[Any], name: str, digest: str) -> bytes:
    try:
        return blobs.get(connection, digest)
    except blobs.BlobDamaged as error:
        _damaged(row.digest, name, f"{error}")


def _json(row: Row[Any], name: str, data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        _damaged(row.digest, name, f"it is not JSON: {error}")


def _damaged(digest: str, name: str, why: str) -> NoReturn:
    hint = "Restore the database from a backup, or create the release again under a new version."
    raise CohortError(
        "RELEASE_DAMAGED", f"release {short(str(digest))} is damaged: {name}: {why}", hint=hint, digest=str(digest), object=name
    )


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The top-level fields that differ; `routes` also when only their order does."""
    names = sorted({*old, *new})
    return [name for name in names if orjson.dumps(old.get(name)) != orjson.dumps(new.get(name))]


def _written_out_bytes(release: Release) -> int:
    return len(canonical_json(dict(release.manifest))) + len((release.prompt or "").encode())
