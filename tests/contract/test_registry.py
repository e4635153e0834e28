"""The registry of releases, on each store."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import delete, select, update

from cohort.base.canonical import sha256_hex
from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.base.ids import ReleaseDigest
from cohort.delivery.face import Registry
from cohort.delivery.registry import SqlRegistry
from cohort.storage.database import open_database
from cohort.storage.schema import blobs, releases, services, tags
from manifest_texts import MANIFEST, bundle


@pytest.fixture
def registry(database, clock: ManualClock) -> SqlRegistry:
    return SqlRegistry(database, clock)


def error_of(call, *arguments, **named):
    with pytest.raises(CohortError) as caught:
        call(*arguments, **named)
    return caught.value


def test_it_is_the_registry_that_surfaces_call(registry):
    face: Registry = registry
    assert face.list() == []


def test_the_first_release_makes_the_service_and_is_its_stable(registry, database, clock):
    created = registry.create(bundle(), "alice")
    assert (created.created, created.became_stable) == (True, True)
    release = created.release
    assert (release.service, release.version, release.kind) == ("support", "4.1.0", "model")
    assert (release.created_us, release.created_by) == (clock.now_us(), "alice")
    assert (release.tags, release.stable) == (("stable",), True)
    assert release.prompt == "You are kind.\n"
    assert list(release.manifest["routes"]) == ["main", "backup"]
    assert release.manifest["limits"]["timeout_s"] == 60
    with database.read() as connection:
        assert connection.execute(select(services.c.stable, services.c.revision)).one() == (release.digest, 1)


def test_gateways_are_told_of_a_new_service_once_it_is_stored(database, clock):
    seen = []
    registry = SqlRegistry(database, clock, changed=lambda: seen.append([release.version for release in registry.list()]))
    for version in ("4.1.0", "4.1.0", "4.2.0"):
        registry.create(bundle(version=version), "alice")
    assert seen == [["4.1.0"]]


def test_routes_whose_price_nobody_knows_yet_are_named(registry, clock):
    assert registry.create(bundle(), "alice").unpriced_routes == ("backup",)
    assert registry.create(bundle(), "alice").unpriced_routes == ("backup",)
    listed = MANIFEST.replace("http://127.0.0.1:9102/v1", "https://api.openai.com/v1").replace("model: small", "model: gpt-5-mini")
    assert registry.create(bundle(listed, version="4.2.0"), "alice").unpriced_routes == ("backup",)
    clock.advance(5 * 365 * 86400)  # its list price has a first day
    assert registry.create(bundle(listed, version="4.2.0"), "alice").unpriced_routes == ()


def test_a_later_release_leaves_stable_alone(registry, clock):
    first = registry.create(bundle(), "alice").release
    clock.advance(1)
    later = registry.create(bundle(version="4.2.0"), "bob")
    assert (later.created, later.became_stable) == (True, False)
    assert (later.release.tags, later.release.stable) == ((), False)
    assert registry.find("stable", "support").digest == first.digest


def test_the_same_content_again_is_the_same_release(registry, clock):
    first = registry.create(bundle(), "alice")
    clock.advance(60)
    again = registry.create(bundle(source="other-name.yaml"), "bob")
    assert (again.created, again.became_stable) == (False, False)
    assert again.release == first.release


def test_the_same_version_with_other_content_is_refused_and_the_difference_named(registry):
    first = registry.create(bundle(), "alice").release
    text = MANIFEST.replace("temperature: 0.2", "temperature: 0.3").replace("timeout_s: 60", "timeout_s: 30")
    error = error_of(registry.create, bundle(text, prompt="You are curt."), "bob")
    assert error.code == "RELEASE_VERSION_TAKEN"
    assert first.digest[:16] in error.message
    assert error.details == {"digest": first.digest, "fields": ["limits", "parameters", "prompt"]}
    assert error.field == "version"
    assert error.hint == "Choose a new version."
    assert registry.list() == [first]


def test_another_order_of_routes_is_another_release(registry):
    registry.create(bundle(), "alice")
    main, backup = [line for line in MANIFEST.splitlines(keepends=True) if line.startswith("  ") and "base_url" in line]
    error = error_of(registry.create, bundle(MANIFEST.replace(main + backup, backup + main)), "bob")
    assert error.details["fields"] == ["routes"]


def test_a_release_that_cannot_be_validated_leaves_nothing(registry, database):
    assert error_of(registry.create, bundle(MANIFEST.replace("kind: model", "kind: modle")), "alice").code == "DOCUMENT_INVALID"
    with database.read() as connection:
        assert connection.execute(select(blobs.c.digest)).all() == []


@pytest.mark.parametrize("ref", ["{digest}", "{digest:.12}", "{digits:.8}", "support@4.1.0", "support@stable", "support@{digest:.16}"])
def test_a_release_is_found_by_digest_prefix_version_and_tag(registry, ref):
    release = registry.create(bundle(), "alice").release
    registry.create(bundle(version="4.2.0"), "alice")
    assert registry.find(ref.format(digest=release.digest, digits=release.digest[4:])) == release


@pytest.mark.parametrize("ref", ["4.1.0", "stable"])
def test_within_a_service_version_and_tag_are_enough(registry, ref):
    release = registry.create(bundle(), "alice").release
    assert registry.find(ref, "support") == release
    assert registry.find(ref, service="support") == release


@pytest.mark.parametrize(
    ("ref", "service", "hint"),
    [
        ("9.9.9", "support", "4.1.0"),
        ("4.1.0", None, "SERVICE@VERSION"),
        ("4.1.0", "nobody", "release create"),
        ("rel_0000000", None, "SERVICE@VERSION"),
        ("00000000", None, "SERVICE@VERSION"),
        ("rel_%", None, "SERVICE@VERSION"),
        ("", "support", "4.1.0"),
        ("@", None, "release create"),
    ],
)
def test_what_is_not_there_is_unknown_and_the_hint_goes_on(registry, ref, service, hint):
    registry.create(bundle(), "alice")
    error = error_of(registry.find, ref, service)
    assert error.code == "RELEASE_UNKNOWN"
    assert hint in error.hint


def test_a_version_and_a_tag_that_disagree_are_ambiguous(registry, database):
    first = registry.create(bundle(), "alice").release
    second = registry.create(bundle(version="4.2.0"), "alice").release
    with database.write() as connection:
        connection.execute(tags.insert().values(service="support", tag="4.2.0", digest=first.digest, changed_us=1))
    error = error_of(registry.find, "support@4.2.0")
    assert error.code == "RELEASE_AMBIGUOUS"
    assert "4.1.0" in error.message
    assert second.digest[:12] in error.message


def test_releases_are_listed_newest_first(registry, clock):
    for number in range(3):
        registry.create(bundle(version=f"1.{number}"), "alice")
        clock.advance(1)
    registry.create(bundle(service="other"), "alice")
    assert [release.version for release in registry.list("support")] == ["1.2", "1.1", "1.0"]
    assert registry.list()[0].service == "other"
    assert registry.list("nobody") == []


def test_a_whole_release_verifies(registry):
    registry.verify(registry.create(bundle(), "alice").release.digest)


@pytest.mark.parametrize("column", ["service", "version", "kind", "manifest", "created_us", "created_by"])
def test_a_changed_row_is_damage_and_the_row_is_named(registry, database, column):
    digest = registry.create(bundle(), "alice").release.digest
    value = 5 if column == "created_us" else "changed"
    with database.write() as connection:
        connection.execute(update(releases).values({column: value}))
    for call in (registry.verify, registry.find):
        error = error_of(call, digest)
        assert error.code == "RELEASE_DAMAGED"
        assert error.details["digest"] == digest
        assert error.details["object"] == ("its record" if column == "manifest" else "its row")


def test_a_changed_digest_is_damage_for_whoever_holds_the_true_one(registry, database):
    digest = registry.create(bundle(), "alice").release.digest
    with database.write() as connection:
        connection.execute(update(releases).values(digest="rel_" + "0" * 64))
    assert error_of(registry.verify, digest).code == "RELEASE_DAMAGED"
    assert error_of(registry.find, "support@stable").code == "RELEASE_DAMAGED"
    assert error_of(registry.list).code == "RELEASE_DAMAGED"


def test_a_missing_part_is_damage_and_the_part_is_named(registry, database):
    release = registry.create(bundle(), "alice").release
    prompt = sha256_hex(release.prompt.encode())
    with database.write() as connection:
        connection.execute(delete(blobs).where(blobs.c.digest == prompt))
    error = error_of(registry.verify, release.digest)
    assert error.code == "RELEASE_DAMAGED"
    assert error.details["object"] == "its prompt"


def test_an_unknown_digest_does_not_verify(registry):
    assert error_of(registry.verify, ReleaseDigest("rel_" + "0" * 64)).code == "RELEASE_DAMAGED"


@pytest.mark.parametrize("same", [True, False])
def test_two_creators_at_once_are_one_after_the_other(database, url, clock, same):
    opened = [open_database(url) for _ in range(4)]
    barrier, answers = threading.Barrier(len(opened)), []

    def create(number):
        registry = SqlRegistry(opened[number], clock)
        barrier.wait()
        try:
            answers.append(registry.create(bundle(prompt="Same." if same else f"Number {number}."), f"creator-{number}"))
        except CohortError as error:
            answers.append(error.code)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(len(opened))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in opened:
        each.close()
    winners = [answer for answer in answers if not isinstance(answer, str) and answer.created]
    losers = [answer for answer in answers if answer not in winners]
    assert len(winners) == 1
    assert winners[0].became_stable
    if same:
        assert {answer.release.digest for answer in losers} == {winners[0].release.digest}
    else:
        assert losers == ["RELEASE_VERSION_TAKEN"] * 3
    with database.read() as connection:
        assert connection.execute(select(services.c.stable)).scalars().all() == [winners[0].release.digest]


def test_a_hundred_versions_with_small_edits_are_stored_in_a_quarter_of_their_size(registry, clock):
    prompt = "\n".join(
        f"Rule {number}: answer question {number * 7919 % 1000} with care, and cite source {number}." for number in range(60)
    )
    for number in range(100):
        clock.advance(1)
        temperature = f"temperature: {number / 100}"
        registry.create(bundle(MANIFEST.replace("temperature: 0.2", temperature), version=f"1.{number}", prompt=prompt), "alice")
    saving = registry.saving()
    assert saving.releases == 100
    assert saving.part >= 0.75


def test_an_empty_registry_saves_nothing(registry):
    assert registry.saving().part == 0.0
