"""The token endpoint as OAuth clients use it, and every way of asking wrongly."""

from __future__ import annotations

import base64

import httpx2
import jwt
import pytest

from cohort.kernel.face import NewAgent
from cohort.kernel.ports import AUDIENCE
from cohort.surfaces.http.routes_tokens import ACCESS_TOKEN, EXCHANGE
from cohort.surfaces.http.serve import hosts_for
from support_delivery import ADMIN_KEY, VIEWER_KEY
from support_mcp import opened


@pytest.fixture
def place(sqlite_database, tmp_path):
    with opened(sqlite_database, tmp_path) as found:
        yield found


def ask(place, headers=None, **form):
    return httpx2.post(f"{place.url}/api/v1/oauth/token", data=form, headers=headers or {})


def by_key(place, **more):
    return ask(place, **({"grant_type": "client_credentials", "client_id": "scribe", "client_secret": place.key} | more))


def test_a_key_gets_a_token_and_a_refresh_token(place):
    answer = by_key(place, scope="files.read files.write:src/**", task="report")
    body = answer.json()
    assert (answer.status_code, body["token_type"], body["scope"]) == (200, "Bearer", "files.read files.write:src/**")
    assert 899 <= body["expires_in"] <= 900
    assert answer.headers["cache-control"] == "no-store"
    key = jwt.PyJWK(httpx2.get(f"{place.url}/.well-known/jwks.json").json()["keys"][0]).key
    assert jwt.decode(body["access_token"], key, algorithms=["EdDSA"], audience=AUDIENCE)["sid"] == body["session"]
    again = ask(place, grant_type="refresh_token", refresh_token=body["refresh_token"]).json()
    assert (again["session"], again["scope"]) == (body["session"], body["scope"])
    replayed = ask(place, grant_type="refresh_token", refresh_token=body["refresh_token"])
    assert (replayed.status_code, replayed.json()["error"], replayed.json()["code"]) == (400, "invalid_grant", "TOKEN_REPLAYED")


@pytest.mark.parametrize("name", ["scribe", "agent's id", ""])
def test_the_key_may_come_as_basic_authentication(place, name):
    named = place.offices.room.agents.find("scribe").id if name == "agent's id" else name
    text = base64.b64encode(f"{named}:{place.key}".encode()).decode()
    assert ask(place, {"Authorization": f"Basic {text}"}, grant_type="client_credentials").status_code == 200


def test_a_token_is_exchanged_for_one_of_another_agent(place):
    agents = place.offices.room.agents
    agents.grant("scribe", ["agents.delegate", "network.http"], "maria")
    agents.register(NewAgent("helper", ("network.http",)), "maria")
    token = by_key(place).json()["access_token"]
    asked = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN, "agent": "helper", "scope": "network.http"}
    body = ask(place, **asked).json()
    assert (body["issued_token_type"], body["scope"]) == (ACCESS_TOKEN, "network.http")
    assert "refresh_token" not in body
    assert place.offices.room.identities.authenticate(body["access_token"], AUDIENCE).agent.name == "helper"
    for change, error in (
        ({"scope": "files.read"}, "invalid_scope"),
        ({"scope": ""}, "invalid_request"),
        ({"agent": "nobody"}, "invalid_target"),
        ({"subject_token": "x.y.z"}, "invalid_grant"),
        ({"subject_token_type": "urn:other"}, "invalid_request"),
    ):
        refused = ask(place, **(asked | change))
        assert (refused.status_code, refused.json()["error"]) == (400, error)


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"client_secret": "ak_wrong"}, 401, "invalid_client"),
        ({"client_secret": ""}, 401, "invalid_client"),
        ({"client_id": "somebody"}, 401, "invalid_client"),
        ({"scope": "root"}, 400, "invalid_scope"),
        ({"scope": "network.http"}, 400, "invalid_scope"),
        ({"scope": "files.read:../x"}, 400, "invalid_scope"),
        ({"resource": "https://elsewhere.example/mcp"}, 400, "invalid_target"),
        ({"audience": "elsewhere"}, 400, "invalid_target"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": "authorization_code"}, 400, "unsupported_grant_type"),
        ({"grant_type": ""}, 400, "invalid_request"),
        ({"grant_type": "refresh_token"}, 400, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": "ar_x"}, 400, "invalid_grant"),
        ({"task": "t" * 201}, 400, "invalid_request"),
    ],
)
def test_a_wrong_request_is_refused_as_the_standard_says(place, form, status, error):
    refused = by_key(place, **form)
    assert (refused.status_code, refused.json()["error"]) == (status, error)
    assert refused.json()["hint"]
    assert place.key not in refused.text


def test_a_refused_basic_authentication_is_asked_for_again(place):
    text = base64.b64encode(b"scribe:ak_wrong").decode()
    refused = ask(place, {"Authorization": f"Basic {text}"}, grant_type="client_credentials")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Basic realm="cohort"')
    assert ask(place, {"Authorization": "Basic ?"}, grant_type="client_credentials").status_code == 401


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"grant_type": "client_credentials"}', "application/json"),
        (b"grant_type=client_credentials&grant_type=client_credentials", "application/x-www-form-urlencoded"),
        (b"&".join(b"a%d=b" % number for number in range(30)), "application/x-www-form-urlencoded"),
        (b"grant_type=\xff", "application/x-www-form-urlencoded"),
        (b"grant_type=%ff", "application/x-www-form-urlencoded"),
        (b"", "application/x-www-form-urlencoded"),
    ],
)
def test_what_is_no_form_is_refused(place, body, kind):
    refused = httpx2.post(f"{place.url}/api/v1/oauth/token", content=body, headers={"Content-Type": kind})
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")


def test_a_suspended_agent_is_told_so(place):
    place.offices.room.agents.suspend("scribe", "maria", "odd")
    refused = by_key(place)
    assert (refused.status_code, refused.json()["error"], refused.json()["code"]) == (400, "unauthorized_client", "AGENT_SUSPENDED")


def test_too_many_wrong_keys_are_slowed_down(place):
    for _ in range(10):
        assert by_key(place, client_secret="ak_wrong").status_code == 401
    refused = by_key(place)
    assert (refused.status_code, refused.json()["code"]) == (429, "TOO_MANY_ATTEMPTS")
    assert int(refused.headers["retry-after"]) > 1
    assert by_key(place, client_id=place.offices.room.agents.find("scribe").id).status_code == 200


def test_without_the_audit_log_nobody_signs_in(place):
    place.offices.audit.down = True
    refused = by_key(place)
    assert (refused.status_code, refused.json()["error"]) == (503, "temporarily_unavailable")


def test_a_person_s_key_is_no_agent_s(place):
    assert by_key(place, client_secret="ck_" + "a" * 43).json()["error"] == "invalid_client"


def test_whoever_holds_a_token_may_end_its_session(place):
    body = by_key(place).json()
    revoke = f"{place.url}/api/v1/oauth/revoke"
    assert httpx2.post(revoke, data={"token": body["refresh_token"]}).status_code == 200
    assert ask(place, grant_type="refresh_token", refresh_token=body["refresh_token"]).json()["code"] == "SESSION_REVOKED"
    assert [httpx2.post(revoke, data={"token": token}).status_code for token in (body["access_token"], "x", "")] == [200, 200, 400]


def test_only_who_keeps_the_keys_rotates_the_one_that_signs(place):
    jwks = f"{place.url}/.well-known/jwks.json"
    before = httpx2.get(jwks).json()["keys"]
    rotate = f"{place.url}/api/v1/oauth/keys"
    assert httpx2.post(rotate, headers={"Authorization": f"Bearer {VIEWER_KEY}"}).status_code == 403
    made = httpx2.post(rotate, headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    assert made.status_code == 201
    after = httpx2.get(jwks).json()["keys"]
    assert [key["kid"] for key in after] == [made.json()["kid"], before[0]["kid"]]


PUBLIC = "https://cohort.example.com"


@pytest.fixture
def proxied(sqlite_database, tmp_path):
    """Control behind a proxy with TLS that passes the Host header on."""
    with opened(sqlite_database, tmp_path, hosts=hosts_for("127.0.0.1", PUBLIC), public_url=PUBLIC) as found:
        yield found


@pytest.mark.parametrize("host", ["cohort.example.com", "cohort.example.com:443", "Cohort.Example.COM"])
def test_who_comes_by_the_public_address_is_told_that_one(proxied, host):
    through = {"Host": host}
    place = httpx2.get(f"{proxied.url}/.well-known/oauth-protected-resource/mcp", headers=through).json()
    assert (place["resource"], place["authorization_servers"]) == (f"{PUBLIC}/mcp", [PUBLIC])
    server = httpx2.get(f"{proxied.url}/.well-known/oauth-authorization-server", headers=through).json()
    assert (server["issuer"], server["token_endpoint"]) == (PUBLIC, f"{PUBLIC}/api/v1/oauth/token")
    refused = httpx2.post(f"{proxied.url}/mcp", headers=through, json={})
    assert refused.status_code == 401
    assert f'resource_metadata="{PUBLIC}/.well-known/oauth-protected-resource/mcp"' in refused.headers["www-authenticate"]


def test_a_token_for_the_public_address_is_good_there_and_only_there(proxied):
    through = {"Host": "cohort.example.com"}
    form = {"grant_type": "client_credentials", "client_id": "scribe", "client_secret": proxied.key, "resource": f"{PUBLIC}/mcp"}
    token = ask(proxied, through, **form).json()["access_token"]
    assert ask(proxied, **form).json()["error"] == "invalid_target"
    by = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    begin = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}}}
    begin["params"]["clientInfo"] = {"name": "a test", "version": "1"}
    assert httpx2.post(f"{proxied.url}/mcp", headers=by | through, json=begin).status_code == 200
    assert httpx2.post(f"{proxied.url}/mcp", headers=by | through | {"Origin": PUBLIC}, json=begin).status_code == 200
    assert httpx2.post(f"{proxied.url}/mcp", headers=by | through | {"Origin": "http://cohort.example.com"}, json=begin).status_code == 403
    assert httpx2.post(f"{proxied.url}/mcp", headers=by, json=begin).status_code == 401


def test_behind_a_proxy_this_machine_and_nobody_else_is_answered_too(proxied):
    assert by_key(proxied).status_code == 200
    local = httpx2.get(f"{proxied.url}/.well-known/oauth-protected-resource/mcp").json()
    assert local["resource"] == f"{proxied.url}/mcp"
    for host in ("evil.example", "cohort.example.com.evil.example", "xcohort.example.com"):
        assert httpx2.get(f"{proxied.url}/health", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize(("host", "secure"), [("cohort.example.com", True), (None, False)])
def test_the_cookie_of_who_signs_in_by_the_public_address_stays_on_tls(proxied, host, secure):
    headers = {"Host": host} if host else {}
    signed = httpx2.post(f"{proxied.url}/login", data={"key": ADMIN_KEY, "next": "/"}, headers=headers)
    assert signed.status_code == 303
    assert ("Secure" in signed.headers["set-cookie"]) is secure
