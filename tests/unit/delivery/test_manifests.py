"""Release manifests: what is taken, what is refused with which words, and what their identity depends on."""

from __future__ import annotations

import json

import pytest
import yaml

from cohort.base.canonical import sha256_hex
from cohort.base.errors import CohortError
from cohort.delivery import manifests
from cohort.delivery.face import Bundle
from cohort.delivery.manifests import files_named, freeze, release_routes, shown
from cohort.delivery.model import Release
from cohort.gateway.contract import Route
from cohort.gateway.contract_price import Price
from manifest_texts import MANIFEST, bundle

HTTP = """\
service: website
version: "1"
kind: http
routes: {a: {base_url: "http://10.0.0.1:8080/"}}
"""
SMALLEST = """\
service: s
version: v1
kind: model
routes: {only: {provider: openai, base_url: "http://h", model: m}}
"""


def refused(text: str, **named) -> CohortError:
    with pytest.raises(CohortError) as caught:
        freeze(bundle(text, **named))
    return caught.value


def swapped(old: str, new: str) -> str:
    assert old in MANIFEST
    return MANIFEST.replace(old, new)


def release_of(frozen: manifests.Manifest) -> Release:
    return Release(frozen.digest, frozen.service, frozen.version, frozen.kind, shown(frozen.body), frozen.prompt, 1, "test")


def test_a_manifest_is_frozen_whole():
    frozen = freeze(bundle())
    assert (frozen.service, frozen.version, frozen.kind, frozen.prompt) == ("support", "4.1.0", "model", "You are kind.\n")
    written = yaml.safe_load(MANIFEST) | {"prompt": "sha256:" + sha256_hex(b"You are kind.\n")}
    assert shown(frozen.body) == written
    assert frozen.digest.startswith("rel_")
    assert len(frozen.digest) == 68


def test_the_gateway_gets_its_routes_in_the_order_written():
    routes = release_routes(release_of(freeze(bundle())))
    assert routes.routes == (
        Route("main", "openai", "http://127.0.0.1:9101/v1", "big", "env:MAIN_KEY", Price(2.5, 10)),
        Route("backup", "openai", "http://127.0.0.1:9102/v1", "small"),
    )
    assert (routes.version, routes.prompt, routes.timeout_s) == ("4.1.0", "You are kind.\n", 60.0)
    assert routes.parameters == {"temperature": 0.2, "max_output_tokens": 800}


def test_the_smallest_manifest_has_a_time_limit():
    frozen = freeze(bundle(SMALLEST))
    assert set(frozen.body) == {"service", "version", "kind", "routes", "limits"}
    assert release_routes(release_of(frozen)).timeout_s == 60.0


def test_an_http_service_is_taken():
    frozen = freeze(bundle(HTTP))
    assert frozen.kind == "http"
    assert release_routes(release_of(frozen)).routes == (Route("a", "http", "http://10.0.0.1:8080", ""),)


def test_an_agent_is_taken():
    assert freeze(bundle(swapped("kind: model", "kind: agent"))).kind == "agent"


def test_json_is_the_same_release_as_yaml():
    text = json.dumps(yaml.safe_load(MANIFEST), indent=2)
    assert freeze(bundle(text)).digest == freeze(bundle()).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("limits: {timeout_s: 60, budget_usd_per_day: 50}", "limits: {budget_usd_per_day: 50.0}"),
        ("9101/v1", "9101/v1/"),
        ("{temperature: 0.2, max_output_tokens: 800}", "{max_output_tokens: 800, temperature: 0.20}"),
        ("kind: model", "kind: model   # as before"),
    ],
)
def test_the_same_meaning_is_the_same_release(old, new):
    assert freeze(bundle(swapped(old, new))).digest == freeze(bundle()).digest


@pytest.mark.parametrize("prompt", ["You are kind.\r\n", "\ufeffYou are kind.\n"])
def test_a_checkout_on_windows_is_the_same_release(prompt):
    assert freeze(bundle(prompt=prompt)).digest == freeze(bundle()).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("temperature: 0.2", "temperature: 0.3"),
        ("model: big", "model: bigger"),
        ("kind: model", "kind: agent"),
        ("[files.read, terminal.run]", "[terminal.run, files.read]"),
        ("version: 4.1.0", "version: 4.1.1"),
        ("service: support", "service: support-2"),
        ("risk_max_auto: 0.3", "risk_max_auto: 0.4"),
    ],
)
def test_another_meaning_is_another_release(old, new):
    text = swapped(old, new)
    assert freeze(Bundle("m.yaml", text, {"prompts/support.md": "You are kind.\n"})).digest != freeze(bundle()).digest


def test_another_prompt_is_another_release_whatever_its_file_is_called():
    assert freeze(bundle(prompt="You are curt.")).digest != freeze(bundle()).digest
    moved = Bundle("m.yaml", swapped("prompts/support.md", "p.md"), {"p.md": "You are kind.\n"})
    assert freeze(moved).digest == freeze(bundle()).digest


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("kind: model", "kind: modle", "support.yaml:3: kind: unknown kind, found 'modle'", "model, agent, http"),
        ("kind: model", "kindd: model", "support.yaml:3: kindd: unknown field", "Did you mean `kind`?"),
        ("kind: model\n", "", "support.yaml:1: kind: missing", "model, agent, http"),
        ("kind: model", "kind: [model]", "support.yaml:3: kind: unknown kind", "model, agent, http"),
        ("temperature", "stream", "support.yaml:8: parameters: `stream` is not a parameter; it comes from the client", "Remove `stream`"),
        ("tools:", "tool:", "support.yaml:9: tool: unknown field", "Did you mean `tools`?"),
        ("service: support\n", "", "support.yaml:1: service: missing", "Add `service`."),
        ("env:MAIN_KEY", "env:COHORT_KEY", "support.yaml:5: routes.main.api_key: names a variable of Cohort itself", "another variable"),
        ("timeout_s: 60", "timeout_s: 0", "support.yaml:12: limits.timeout_s: input should be greater than 0, found 0", "limits.timeout_s"),
        ("timeout_s: 60", "timeout_s: 1h", "support.yaml:12: limits.timeout_s: input should be a valid number", "limits.timeout_s"),
        ("risk_max_auto: 0.3", "risk_max_auto: 1.3", "support.yaml:11: autonomy.risk_max_auto", "autonomy.risk_max_auto"),
        ("input_usd_per_mtok: 2.5", "input_usd_per_mtok: -1", "support.yaml:5: routes.main.price.input_usd_per_mtok", "Correct"),
        ("input_usd_per_mtok: 2.5, ", "", "support.yaml:5: routes.main.price.input_usd_per_mtok: missing", "Add `input_usd_per_mtok`."),
        ("{timeout_s: 60, budget_usd_per_day: 50}", "true", "support.yaml:12: limits: must be a section of fields", "limits: {field: value}"),
        ("model: small", "modell: small", "support.yaml:6: routes.backup.modell: unknown field", "Did you mean `model`?"),
        ("[files.read, terminal.run]", "[a, a]", "support.yaml:9: tools: `a` is given twice", "Keep one"),
        ("[files.read, terminal.run]", '["a b"]', "support.yaml:9: tools[0]: not a name", "letters"),
        ("auto_apply: false", "auto_apply: [1]", "support.yaml:10: flags.self_improvement.auto_apply: not the value of a flag", "object"),
        ("auto_apply: false", "auto_apply: null", "support.yaml:10: flags.self_improvement.auto_apply: not the value of a flag", "object"),
        ("auto_apply: false", "auto_apply: no", "support.yaml:10: flags.self_improvement.auto_apply: this value is ambiguous", "true or false"),
        ("prompts/support.md", "/etc/passwd", "support.yaml:7: prompt: not the relative path of a file", "from the manifest's folder"),
        ("{timeout_s: 60, budget_usd_per_day: 50}", "{timeout_s: true}", "support.yaml:12: limits.timeout_s: input should be a valid number, found true", "Correct"),
        ("9101/v1", "9101/v1/chat/completions", "support.yaml:5: routes.main.base_url: holds the path of a call, `/chat/completions`", "`http://127.0.0.1:9101/v1`."),
        ("9101/v1", "9101/v1/messages/", "support.yaml:5: routes.main.base_url: holds the path of a call, `/messages`", "`http://127.0.0.1:9101/v1`."),
        ("prompts/support.md", "[a]", "support.yaml:7: prompt: input should be a valid string", "prompt"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_line_and_fix(old, new, message, hint):
    error = refused(swapped(old, new))
    assert error.code == "DOCUMENT_INVALID"
    assert error.message.startswith(message)
    assert hint in error.hint


@pytest.mark.parametrize("name", ["Support", "-a", "a-", "a b", "a/b", "a@b", "ä", "x" * 64, '""'])
def test_a_service_has_a_name_that_fits_everywhere(name):
    assert "service: not a service name" in refused(swapped("service: support", f"service: {name}")).message


@pytest.mark.parametrize("name", ["a", "a-b_c.d", "0", "x" * 63])
def test_these_are_names_of_services(name):
    assert freeze(bundle(swapped("service: support", f'service: "{name}"'))).service == name


@pytest.mark.parametrize("label", ["a b", "@", "-1", ".1", "x" * 64, "", "a/b", "stable"])
def test_a_version_fits_in_a_reference(label):
    assert "version: not a version" in refused(swapped("4.1.0", f'"{label}"')).message


def test_a_version_written_as_a_number_is_sent_back_for_quotes():
    error = refused(swapped("version: 4.1.0", "version: 4.10"))
    assert error.message.startswith("support.yaml:2: version: input should be a valid string, found 4.1")
    assert error.hint == "Put the value of `version` in quotes."


def test_no_route_is_no_release():
    text = SMALLEST.replace('routes: {only: {provider: openai, base_url: "http://h", model: m}}', "routes: {}")
    assert refused(text).field == "routes"


def test_an_unknown_provider_is_named_before_what_its_route_lacks():
    error = refused(SMALLEST.replace('{provider: openai, base_url: "http://h", model: m}', "{provider: bedrock, model: m}"))
    assert (error.code, error.field) == ("PROVIDER_UNKNOWN", "routes.only.provider")


def test_an_unknown_provider_is_named_with_the_known_ones():
    error = refused(swapped('{provider: openai, base_url: "http://127.0.0.1:9102', '{provider: OpenAl, base_url: "http://127.0.0.1:9102'))
    assert error.code == "PROVIDER_UNKNOWN"
    assert error.message == "support.yaml:6: routes.backup.provider: unknown provider 'OpenAl'"
    assert (error.field, error.details) == ("routes.backup.provider", {"known": ["openai", "openai-responses", "azure", "anthropic"]})
    assert error.hint == "Use one of: openai, openai-responses, azure, anthropic. Did you mean `openai`?"


@pytest.mark.parametrize(
    "url", ["example.com", "ftp://h/", "http://", "http:///v1", "http://h:99999/", "http://h:x/", "http://h /", "", "http://[::1"]
)
def test_a_bad_url_is_refused(url):
    error = refused(SMALLEST.replace("http://h", url))
    assert error.message.startswith(f"support.yaml:4: routes.only.base_url: not the address of a server, found '{url}'")
    assert "https://host:port/v1" in error.hint


@pytest.mark.parametrize("url", ["http://user:hunter2@h/", "http://hunter2@h", "http://h/?key=hunter2", "http://h/#hunter2"])
def test_a_url_with_a_secret_in_it_is_refused_and_not_repeated(url):
    error = refused(SMALLEST.replace("http://h", url))
    assert error.field == "routes.only.base_url"
    assert "api_key" in error.hint
    assert "hunter2" not in str(error.problem())


@pytest.mark.parametrize(
    "key", ["sk-hunter2", "env:", "env:1A", "env: hunter2", "file:hunter2", "file:~/hunter2", "hunter2", "ENV:hunter2", '"0x1F"', "1234"]
)
def test_a_literal_key_is_refused_and_not_repeated(key):
    error = refused(swapped('"env:MAIN_KEY"', f'"{key}"' if key[0] != '"' else key))
    assert error.code == "DOCUMENT_INVALID"
    assert error.message == "support.yaml:5: routes.main.api_key: must say where the key is, not the key itself"
    assert "env:NAME" in error.hint
    assert "hunter2" not in str(error.problem())


@pytest.mark.parametrize("key", ["0x1F", "12345", "[hunter2]", "{a: hunter2}", "yes"])
def test_a_key_that_is_not_even_text_is_not_repeated(key):
    error = refused(swapped('"env:MAIN_KEY"', key))
    assert error.field == "routes.main.api_key"
    assert key.strip("[]") not in error.message.partition("routes.main.api_key")[2]


@pytest.mark.parametrize("key", ["env:MAIN_KEY", "env:_a1", "file:/run/secrets/key"])
def test_a_key_is_named_by_where_it_is(key):
    assert release_routes(release_of(freeze(bundle(swapped("env:MAIN_KEY", key))))).routes[0].api_key == key


@pytest.mark.parametrize("old", ["{temperature: 0.2, ", "{self_improvement.auto_apply: false, "])
@pytest.mark.parametrize("name", ["api_key", "Authorization", "password", "client.secret"])
def test_secrets_do_not_belong_in_parameters_or_flags(old, name):
    if name == "client.secret":
        old, new = old, old + "extra: {headers: [{secret: hunter2}]}, "
    else:
        new = f"{old}{name}: hunter2, "
    error = refused(swapped(old, new))
    assert "looks like a secret" in error.message
    assert "hunter2" not in str(error.problem())


def test_a_missing_prompt_file_is_named_with_its_path():
    with pytest.raises(CohortError) as caught:
        freeze(Bundle("dir/support.yaml", MANIFEST, {"prompts/other.md": "x"}))
    error = caught.value
    assert error.code == "FILE_MISSING"
    assert error.message == "dir/support.yaml:7: prompt: prompts/support.md is not there"
    assert (error.field, error.details) == ("prompt", {"path": "prompts/support.md"})


@pytest.mark.parametrize(
    ("prompt", "problem"), [("", "is empty"), (" \n", "is empty"), ("a\x00b", "is not text"), ("\ud800", "is not text")]
)
def test_a_prompt_file_holds_text(prompt, problem):
    error = refused(MANIFEST, prompt=prompt)
    assert error.message == f"support.yaml:7: prompt: prompts/support.md {problem}"


def test_a_prompt_has_a_limit():
    assert refused(MANIFEST, prompt="ü" * (manifests.PROMPT_BYTES_MAX // 2 + 1)).code == "FILE_TOO_LARGE"
    freeze(bundle(prompt="x" * manifests.PROMPT_BYTES_MAX))


def test_the_files_to_send_are_known_before_they_are_read():
    assert files_named(MANIFEST, "m.yaml") == ["prompts/support.md"]
    assert files_named(SMALLEST, "m.yaml") == []
    assert files_named(HTTP, "m.yaml") == []
    with pytest.raises(CohortError, match=r"m\.yaml:3"):
        files_named(MANIFEST.replace("kind: model", "kind: x"), "m.yaml")


def test_a_prompt_for_an_http_service_is_an_unknown_field():
    assert "prompt: unknown field" in refused(HTTP + "prompt: p.md\n").message


@pytest.mark.parametrize("number", ["90071992547409931", "1e17"])
def test_a_number_beyond_exactness_is_refused(number):
    error = refused(swapped("temperature: 0.2", f"seed: {number}"))
    assert (error.code, error.field) == ("VALUE_NOT_CANONICAL", "parameters")
    assert error.message.startswith("support.yaml:8: parameters: ")
