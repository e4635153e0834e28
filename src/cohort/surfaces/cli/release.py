"""`cohort release`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cohort.base.errors import CohortError, Exit
from cohort.surfaces.cli.lazy import Verbs
from cohort.surfaces.cli.options import api_options, examples, with_session
from cohort.surfaces.cli.session import Session

FILE_BYTES_MAX = 1 << 20


@click.group(
    "release",
    cls=Verbs,
    epilog=examples(
        """
cohort release create releases/support-v2.yaml
cohort release list
"""
    ),
)
def command() -> None:
    """Create, list and show releases: immutable bundles named by their digest."""


@command.command("create", epilog=examples("cohort release create releases/support-v2.yaml"))
@click.argument("file", type=click.Path(path_type=Path))
@api_options
@with_session
def create(session: Session, file: Path) -> int:
    """Validate the manifest FILE and the files it names, freeze them and store them.

    The first release of a service becomes its stable release. The very same release again changes nothing and is not an error.
    """
    from cohort.surfaces.cli.api import Api

    bundle = read_bundle(file)
    created = Api(session).post("/releases", bundle)
    if session.json:
        session.data(created)
    else:
        _created(session, created)
    return Exit.DONE


@command.command("list", epilog=examples("cohort release list\ncohort release list --service support --json"))
@click.option("--service", help="Only of this service.")
@api_options
@with_session
def list_(session: Session, service: str | None) -> int:
    """Releases, newest first."""
    from cohort.base.ids import short
    from cohort.surfaces.cli.api import Api
    from cohort.surfaces.cli.render import moment, table

    page = Api(session).get("/releases", {"service": service})
    if session.json:
        session.data(page)
        return Exit.DONE
    headings = ("service", "version", "digest", "kind", "tags", "created", "by")
    rows = [
        (
            item["service"],
            item["version"],
            short(item["digest"]),
            item["kind"],
            ", ".join(item["tags"]),
            moment(item["created_us"]),
            item["created_by"],
        )
        for item in page["items"]
    ]
    table(session, headings, rows)
    return Exit.DONE


@command.command("show", epilog=examples("cohort release show support@2.0.0\ncohort release show stable --service support"))
@click.argument("ref")
@click.option("--service", help="The service, when REF is a version or a tag.")
@api_options
@with_session
def show(session: Session, ref: str, service: str | None) -> int:
    """One release. REF is a digest, 8 digits or more of one, SERVICE@VERSION, or with --service a version or tag."""
    from cohort.surfaces.cli.api import Api, part

    item = Api(session).get(f"/releases/{part(ref)}", {"service": service})
    if session.json:
        session.data(item)
    else:
        _show(session, item)
    return Exit.DONE


def read_bundle(file: Path) -> dict[str, Any]:
    """The manifest and every file it names, as the API takes them.

    Raises:
        CohortError FILE_MISSING, FILE_TOO_LARGE, DOCUMENT_INVALID: a file that cannot be read, or that is not under the manifest's folder.
    """
    from cohort.delivery.manifests import files_named

    manifest = _read(file, str(file))
    folder = file.absolute().parent
    files = {name: _read(_inside(folder, name, file), f"{file}: prompt: {name}") for name in files_named(manifest, str(file))}
    return {"source": str(file), "manifest": manifest, "files": files}


def _inside(folder: Path, name: str, manifest: Path) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        what = f"{manifest}: prompt: {name} is outside {folder}"
        raise CohortError("DOCUMENT_INVALID", what, field="prompt", hint="Keep the files of a release in or below the manifest's folder.")
    return path


def _read(path: Path, what: str) -> str:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise CohortError("FILE_TOO_LARGE", f"{what} is larger than {FILE_BYTES_MAX} bytes", hint="Keep every file under 1 MiB.")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CohortError("FILE_MISSING", f"{what} cannot be read: {error.strerror} ({path})", hint="Correct the path.") from error
    except UnicodeDecodeError as error:
        raise CohortError("DOCUMENT_INVALID", f"{what} is not UTF-8 text", hint="Save it as UTF-8.") from error


def _created(session: Session, created: dict[str, Any]) -> None:
    from cohort.surfaces.cli.render import release

    item = created["release"]
    word = "created" if created["created"] else "was there already:"
    session.text(f"{word} {item['service']} {release(item)}")
    if created["became_stable"]:
        session.text(f"It is the first release of {item['service']} and serves it now.")
    if unpriced := ", ".join(created["unpriced_routes"]):
        session.say(
            f"note: no price is known for {unpriced}: budgets refuse such calls; write `price` into the route, zeros where it is free"
        )
    if created["created"] and not created["became_stable"]:
        session.say(f"next: cohort rollout start {item['service']} --to {item['version']} --plan shadow-5-25-100")


def _show(session: Session, item: dict[str, Any]) -> None:
    import json

    from cohort.surfaces.cli.render import moment

    session.text(f"{item['service']} {item['version']}{' (stable)' if item['stable'] else ''}")
    session.text(f"digest   {item['digest']}")
    session.text(f"created  {moment(item['created_us'])} by {item['created_by']}")
    session.text(f"tags     {', '.join(item['tags']) or '-'}")
    session.text("manifest")
    for line in json.dumps(item["manifest"], indent=2, ensure_ascii=False).splitlines():
        session.text(f"  {line}")
    if item["prompt"] is not None:
        session.text("prompt")
        for line in item["prompt"].splitlines():
            session.text(f"  {line}")
