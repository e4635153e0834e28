"""Commands that ask control: what they send, print and exit with. Control is the real application over delivery in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

import support_views as views
from cohort.base.errors import CohortError
from cohort.delivery.forecast import forecast
from cohort.delivery.model import State
from cohort.delivery.plans import PRESETS
from cohort.surfaces.cli.rollout_text import show_forecast
from cohort.surfaces.cli.session import Session
from cohort.surfaces.http.encoding import to_json
from support_command import Command
from support_delivery import ADMIN_KEY, VIEWER_KEY, House, house
from support_processes import free_ports
from support_server import serving

RUNNING = "ro_k3v9q2m7x4c8b5nt"
LISTS = ["service list", "release list", "rollout list"]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[House, str]]:
    made = house()
    with serving(made.control) as url:
        yield made, url


@pytest.fixture
def home(served: tuple[House, str]) -> House:
    """The house, as new."""
    fresh = house()
    made = served[0]
    for name in ("_rollouts", "_services", "_answers", "acts", "starts"):
        setattr(made.rollouts, name, getattr(fresh.rollouts, name))
    made.rollouts._version += 1
    made.registry.releases[:] = fresh.registry.releases
    made.registry.bundles.clear()
    return made


@pytest.fixture
def cohort(home: House, served: tuple[House, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, {"COHORT_URL": served[1], "COHORT_KEY": ADMIN_KEY}, capsys)


@pytest.mark.parametrize("line", LISTS)
def test_a_list_is_the_apis_json_unchanged_and_an_aligned_table(cohort: Command, line: str) -> None:
    answer = cohort(*line.split(), "--json")
    assert answer.code == 0
    assert answer.json["items"]
    text = cohort(*line.split())
    assert text.code == 0
    assert len(text.out.splitlines()) == len(answer.json["items"]) + 1
    assert "support" in text.out


def test_a_service_says_what_serves_and_whether_the_gateway_agrees(cohort: Command) -> None:
    text = cohort("service", "show", "support")
    assert text.code == 0
    assert "the gateway confirms this" in text.out
    assert cohort("service", "show", "support", "--json").json["name"] == "support"


def test_an_error_is_two_lines_for_people_and_a_problem_document_for_programs(cohort: Command) -> None:
    text = cohort("service", "show", "nobody")
    assert (text.code, text.out) == (1, "")
    assert text.err == "error: there is no service 'nobody'\nhint: See `cohort service list`.\n"
    problem = cohort("service", "show", "nobody", "--json")
    assert problem.code == 1
    assert problem.json["code"] == "SERVICE_UNKNOWN"


def test_a_release_is_sent_with_every_file_it_names(cohort: Command, home: House, tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "p.md").write_text("Be kind.")
    manifest = tmp_path / "r.yaml"
    manifest.write_text(
        "service: support\nversion: v9\nkind: model\nroutes:\n  main: {provider: openai, base_url: 'http://127.0.0.1:1/v1', model: m}\nprompt: prompts/p.md\n"
    )
    created = cohort("release", "create", str(manifest))
    assert (created.code, "created support v9" in created.out) == (0, True)
    assert "note: no price is known for main: budgets refuse such calls" in created.err
    priced = tmp_path / "priced.yaml"
    priced.write_text(
        manifest.read_text().replace("v9", "v10").replace("model: m}", "model: m, price: {}}").replace("prompt: prompts/p.md", "")
    )
    assert "no price is known" not in cohort("release", "create", str(priced)).err
    assert home.registry.bundles[0].files == {"prompts/p.md": "Be kind."}
    assert "was there already" in cohort("release", "create", str(manifest)).out
    (tmp_path / "prompts" / "p.md").unlink()
    gone = cohort("release", "create", str(manifest))
    assert gone.code == 2
    assert gone.err.startswith(f"error: {manifest}: prompt: prompts/p.md cannot be read")


def test_a_release_cannot_take_files_from_outside_its_folder(cohort: Command, home: House, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush")
    folder = tmp_path / "releases"
    folder.mkdir()
    (folder / "link.md").symlink_to(tmp_path / "secret")
    routes = "routes:\n  main: {provider: openai, base_url: 'http://127.0.0.1:1/v1', model: m}\n"
    for name in ("../secret", "link.md", str(tmp_path / "secret")):
        manifest = folder / "r.yaml"
        manifest.write_text(f"service: support\nversion: v9\nkind: model\n{routes}prompt: {name}\n")
        assert cohort("release", "create", str(manifest)).code == 2
    assert home.registry.bundles == []


def test_a_release_is_shown_by_version_within_its_service(cohort: Command) -> None:
    shown = cohort("release", "show", "v2", "--service", "support")
    assert (shown.code, shown.out.startswith("support v2")) == (0, True)
    assert cohort("release", "show", "nothing").code == 1


def test_a_plan_is_forecast_in_a_table(cohort: Command, tmp_path: Path) -> None:
    name = views.plan().name
    text = cohort("rollout", "plan", "support", "--plan", name, "--units-per-s", "7")
    assert text.code == 0
    assert "7 conversations/s" in text.out
    assert cohort("rollout", "plan", "support", "--plan", name, "--json").json["assumed"] is True
    assert cohort("rollout", "plan", "support", "--plan", "none-such").code == 2
    missing = cohort("rollout", "plan", "support", "--plan", str(tmp_path / "none.yaml"))
    assert (missing.code, "none.yaml" in missing.err) == (2, True)


def test_a_warning_of_a_forecast_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    scarce = forecast("support", PRESETS["fast-10-50-100"], 1.0, 0.01, 0.01, assumed=False)
    show_forecast(Session({}), orjson.loads(to_json(scarce)))
    said = capsys.readouterr()
    warnings = [line for line in said.out.splitlines() if line.startswith("warning: ")]
    assert warnings == [f"warning: {text}" for text in scarce.warnings]
    assert len(set(warnings)) == len(warnings) > 1
    assert "2x: " in said.err


def test_a_rollout_is_started_with_what_was_asked(cohort: Command, home: House, tmp_path: Path) -> None:
    plan = tmp_path / "mine.yaml"
    plan.write_text("name: mine\n")
    home.rollouts.put_service(views.idle("support"))
    options = ("--to", "v2", "--plan", str(plan), "--speed", "60", "--at", "25", "--strict", "--reason", "again")
    started = cohort("rollout", "start", "support", *options, "--json")
    assert (started.code, started.json["service"]) == (0, "support")
    asked = home.rollouts.starts[0]
    assert (asked.to, asked.plan, asked.speed, asked.at_pct, asked.strict) == ("v2", "name: mine\n", 60.0, 25.0, True)
    assert (asked.act.actor, asked.act.reason) == ("first-key", "again")
    assert asked.act.idempotency_key


def test_a_second_rollout_of_a_service_is_refused(cohort: Command) -> None:
    refused = cohort("rollout", "start", "support", "--to", "v2", "--plan", "fast-10-50-100")
    assert (refused.code, RUNNING in refused.err) == (1, True)


def test_a_rollout_is_shown_whole(cohort: Command) -> None:
    text = cohort("rollout", "show", "support")
    assert text.code == 0
    for heading in ("certificate", "towards harmful", "p95", "waits for"):
        assert heading in text.out
    assert cohort("rollout", "show", RUNNING, "--json").json["id"] == RUNNING


@pytest.mark.parametrize(
    ("verb", "state"),
    [("pause", "paused"), ("approve", "running"), ("promote", "running"), ("rollback", "rolled_back"), ("abort", "aborted")],
)
def test_a_verb_is_one_change_with_its_reason_and_revision(cohort: Command, home: House, verb: str, state: str) -> None:
    answer = cohort("rollout", verb, RUNNING, "--reason", "because", "--revision", "4", "--json")
    assert (answer.code, answer.json["state"]) == (0, state)
    (said, _, act), *more = home.rollouts.acts
    assert (said, act.reason, act.revision, more) == (verb, "because", 4, [])


def test_a_verb_on_what_has_moved_on_is_refused(cohort: Command, home: House) -> None:
    refused = cohort("rollout", "promote", RUNNING, "--reason", "x", "--revision", "1")
    assert (refused.code, home.rollouts.acts) == (1, [])
    assert "revision" in refused.err


def test_resume_goes_on_with_what_was_paused(cohort: Command) -> None:
    assert cohort("rollout", "resume", RUNNING).code == 1
    cohort("rollout", "pause", RUNNING)
    assert "running" in cohort("rollout", "resume", RUNNING).out


@pytest.mark.parametrize("verb", ["promote", "rollback", "abort"])
def test_a_dry_run_says_what_would_happen_and_changes_nothing(cohort: Command, home: House, verb: str) -> None:
    dry = cohort("rollout", verb, RUNNING, "--reason", "x", "--dry-run")
    assert (dry.code, f"{verb} would: " in dry.err) == (0, True)
    assert cohort("rollout", verb, RUNNING, "--reason", "x", "--dry-run", "--json").json["would"]
    assert home.rollouts.acts == []


def test_the_emergency_verb_asks_nothing_and_says_what_serves(cohort: Command, home: House) -> None:
    done = cohort("rollback", "support", "--reason", "smoke")
    assert (done.code, "the gateway confirms it" in done.out) == (0, True)
    assert home.rollouts.acts[0][:2] == ("rollback_service", "support")
    assert cohort("rollback", "support").code == 2


def test_replay_says_identical(cohort: Command) -> None:
    assert cohort("rollout", "replay", RUNNING).out.startswith("identical (88 verdicts from 1200 records")
    assert cohort("rollout", "replay", RUNNING, "--json").json["identical"] is True


def test_watching_an_ended_rollout_exits_by_how_it_ended(cohort: Command, home: House) -> None:
    ended = {row.state: row.id for row in home.rollouts.list() if row.ended_us}
    assert cohort("rollout", "watch", ended[State.PROMOTED]).code == 0
    rolled_back = cohort("rollout", "watch", ended[State.ROLLED_BACK])
    assert (rolled_back.code, "rolled back" in rolled_back.out) == (3, True)


def test_watching_for_programs_is_one_view_per_line(cohort: Command, home: House) -> None:
    ended = next(row.id for row in home.rollouts.list() if row.state is State.PROMOTED)
    lines = cohort("rollout", "watch", ended, "--json").out.splitlines()
    assert len(lines) == 1
    assert '"state":"promoted"' in lines[0]


@pytest.mark.parametrize("state", [State.AWAITING_APPROVAL, State.PAUSED])
def test_watching_can_end_when_a_person_is_wanted(cohort: Command, home: House, state: State) -> None:
    home.rollouts.put(replace(home.rollouts.show(RUNNING), state=state))
    assert cohort("rollout", "watch", RUNNING, "--exit-on-wait").code == 4


def test_a_viewers_key_may_look_and_not_change(cohort: Command, home: House) -> None:
    assert cohort("rollout", "list", COHORT_KEY=VIEWER_KEY).code == 0
    assert cohort("rollout", "pause", RUNNING, COHORT_KEY=VIEWER_KEY).code == 1
    assert home.rollouts.acts == []


def test_a_wrong_key_is_told_and_not_shown(cohort: Command) -> None:
    refused = cohort("service", "list", COHORT_KEY="ck_wrong_hush")
    assert (refused.code, "hush" in refused.err) == (1, False)


@pytest.mark.parametrize("key", ["ck_two\nlines", "ключ", "ck_\x00"])
def test_a_variable_that_holds_no_key_is_named_and_not_shown(cohort: Command, key: str) -> None:
    refused = cohort("service", "list", COHORT_KEY=key)
    assert (refused.code, refused.out) == (2, "")
    assert "COHORT_KEY" in refused.err
    assert key not in refused.err


def test_a_key_may_end_with_a_line_break_as_files_do(cohort: Command) -> None:
    assert cohort("service", "list", COHORT_KEY=f"{ADMIN_KEY}\n").code == 0


def test_the_local_key_is_never_sent_to_another_address(cohort: Command, tmp_path: Path) -> None:
    secrets = tmp_path / "data" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "operator.key").write_text(ADMIN_KEY)
    refused = cohort("service", "list", COHORT_KEY="")
    assert refused.code == 1
    assert "there is no key for" in refused.err
    port = cohort.environment["COHORT_URL"].rsplit(":", 1)[1]
    own = cohort.environment | {"COHORT_URL": "", "COHORT_KEY": "", "COHORT_CONTROL_PORT": port}
    assert cohort("service", "list", **own).code == 0
    (secrets / "operator.key").write_text("ck_of_another_installation")
    other = cohort("service", "list", **own)
    assert other.code == 1
    assert "another one answers there" in other.err


def test_no_control_is_not_an_empty_list(cohort: Command) -> None:
    (port,) = free_ports(1)
    gone = cohort("service", "list", "--json", COHORT_URL=f"http://127.0.0.1:{port}")
    assert (gone.code, gone.json["code"], gone.json["retry"]) == (1, "NOT_RUNNING", "safe")


def test_a_server_that_is_not_control_is_told_apart(cohort: Command) -> None:
    wrong = cohort("service", "list", "--url", cohort.environment["COHORT_URL"] + "/elsewhere")
    assert wrong.code == 1
    assert wrong.err.startswith("error: ")


def test_a_server_in_trouble_says_so_itself(cohort: Command, home: House) -> None:
    home.rollouts.down = CohortError("DATABASE_UNAVAILABLE", "the database does not answer", hint="Start it.")
    try:
        assert cohort("service", "list").err == "error: the database does not answer\nhint: Start it.\n"
    finally:
        home.rollouts.down = None


def test_a_flag_is_killed_listed_and_restored(cohort: Command, home: House) -> None:
    home.flags.kills.clear()
    assert "No flag is killed." in cohort("flag", "list").out
    killed = cohort("flag", "kill", "--prefix", "cache", "--reason", "wrong answers")
    assert (killed.code, "The gateway confirms this." in killed.err) == (0, True)
    listed = cohort("flag", "list", "--json").json
    assert [(item["flag"], item["reason"]) for item in listed["items"]] == [("cache*", "wrong answers")]
    assert "routing.adaptive" in listed["gateway"]
    assert cohort("flag", "restore", "cache").code == 1
    assert cohort("flag", "restore", "--prefix", "cache", "--json").json["items"] == []


def test_a_kill_that_the_gateway_does_not_confirm_is_not_called_done(cohort: Command, home: House) -> None:
    home.flags.confirmed = False
    try:
        killed = cohort("flag", "kill", "shadow")
    finally:
        home.flags.confirmed = True
        home.flags.kills.clear()
    assert (killed.code, "Not confirmed by the gateway yet" in killed.err) == (5, True)


def test_routing_says_how_it_stands_and_fails_when_it_has_drifted_too_far(cohort: Command, home: House) -> None:
    shown = cohort("routing", "show", "support")
    assert shown.code == 0
    for words in ("boundary 0.530 (approved 0.5)", "wanted share of big: 61%", "not clear either way", "the wanted share stays"):
        assert words in shown.out
    home.routing.drift = 0.09
    try:
        assert cohort("routing", "show", "support", "--json").code == 3
    finally:
        home.routing.drift = 0.03
    assert cohort("routing", "show", "billing").code == 1


def test_a_cache_says_its_hits_and_false_hits_and_fails_when_too_many_are_false(cohort: Command, home: House) -> None:
    shown = cohort("cache", "show", "support")
    assert shown.code == 0
    for words in (
        "switched off: cache.semantic",
        "57.9%",
        "of 3920 calls answered",
        "of 200 drawn, 4 unclear",
        "numbers 40",
        "false hits: 0.5%",
        "0.99",
        "0.85 (now)",
        "too few samples",
        "steady",
    ):
        assert words in shown.out
    home.caches.other = 20
    try:
        assert cohort("cache", "show", "support", "--json").code == 3
    finally:
        home.caches.other = 1
    home.caches.fallen = 200
    try:
        drifted = cohort("cache", "show", "support")
    finally:
        home.caches.fallen = 0
    assert (drifted.code, "drifted" in drifted.out, "-24." in drifted.out) == (3, True, True)
    home.caches.away = True
    try:
        away = cohort("cache", "show", "support")
    finally:
        home.caches.away = False
    assert (away.code, "the gateway does not answer" in away.out, "out of reach" in away.out) == (0, True, True)
    assert cohort("cache", "show", "billing").code == 1


def test_a_person_is_forgotten_or_it_is_said_where_not(cohort: Command, home: House) -> None:
    home.caches.erased.clear()
    done = cohort("cache", "erase", "--subject", "anna")
    assert (done.code, "ab" * 16 in done.out, done.out.count("done")) == (0, True, 2)
    assert cohort("cache", "erase", "--unit", "cd" * 16, "--json").json["unit"] == "cd" * 16
    assert [(person.unit, person.subject) for person, _ in home.caches.erased] == [(None, "anna"), ("cd" * 16, None)]
    assert cohort("cache", "erase").code == 2
    wrong = cohort("cache", "erase", "--unit", "zz")
    assert (wrong.code, "32 hexadecimal digits" in wrong.err, "[0-9a-f]" in wrong.err) == (2, True, False)
    assert cohort("cache", "erase", "--unit", "cd" * 16, "--subject", "anna").code == 2
    home.caches.stuck = True
    try:
        failed = cohort("cache", "erase", "--subject", "anna")
    finally:
        home.caches.stuck = False
    assert (failed.code, "the directory cannot be read" in failed.out, "did not" in failed.err) == (5, True, True)


def test_boundaries_are_compared_on_what_was_seen(cohort: Command, home: House) -> None:
    home.routing.replayed.clear()
    shown = cohort("routing", "replay", "support", "--boundary", "0.4", "--boundary", "0.6", "--weight", "code=2")
    assert (shown.code, len(shown.out.splitlines())) == (0, 4)
    assert home.routing.replayed == [([0.4, 0.6], {"code": 2.0})]
    assert cohort("routing", "replay", "support", "--weight", "code").code == 2
    assert cohort("routing", "replay", "support", "--boundary", "2").code == 2
    home.routing.samples = 0
    try:
        assert cohort("routing", "replay", "support").code == 5
    finally:
        home.routing.samples = 500


def test_a_fit_prints_what_a_manifest_takes(cohort: Command) -> None:
    assert cohort("routing", "fit", "support").out == "  weights: {bias: -2, code: 1.5}\n"
