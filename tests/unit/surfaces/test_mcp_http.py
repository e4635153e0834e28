"""/mcp with the SDK's own client, over a real port, in the protocol's two eras."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from cohort.surfaces.http.ports import ACTION_BODY_BYTES_MAX
from support_mcp import client, opened

ERAS = ["legacy", "2026-07-28"]


CONNECTED_S_MAX = 60
"""Of a client on a machine with much else to do; the first one loads what serves MCP."""


@pytest.fixture
def place(sqlite_database, tmp_path):
    with opened(sqlite_database, tmp_path) as found:
        yield found


@pytest.fixture
def hasty(sqlite_database, tmp_path):
    """Where calls wait for a person only a moment."""
    with opened(sqlite_database, tmp_path, wait_s=0.3) as found:
        yield found


def ask(place, era, *calls, token=None, **options):
    """Connect, make each call, and give the answers."""

    async def run():
        async with client(place, era, token, **options) as found:
            return [await found.call_tool(name, arguments) for name, arguments in calls]

    return anyio.run(run)


@pytest.mark.parametrize("era", [*ERAS, "auto"])
def test_the_tools_are_the_operations_that_the_token_permits(place, era):
    async def run(token):
        async with client(place, era, token) as found:
            return (await found.list_tools()).tools, found.server_info

    tools, server = anyio.run(run, None)
    assert [tool.name for tool in tools] == ["files_read", "files_write", "files_delete", "terminal_run"]
    assert server is None or server.name == "cohort"
    read, write = tools[0], tools[1]
    assert (read.annotations.read_only_hint, read.annotations.destructive_hint) == (True, False)
    assert (write.annotations.read_only_hint, write.annotations.destructive_hint) == (False, True)
    assert set(write.input_schema["properties"]) == {"path", "content", "append", "mode", "why"}
    assert write.input_schema["required"] == ["path", "content"]
    fewer, _ = anyio.run(run, place.token(scope="files.read")["access_token"])
    assert [tool.name for tool in fewer] == ["files_read"]


@pytest.mark.parametrize("era", ERAS)
def test_a_call_is_an_action_and_its_answer_is_structured_and_text(place, era):
    (answer,) = ask(place, era, ("terminal_run", {"argv": ["ls", "-l"], "why": "to see what is there"}))
    assert not answer.is_error
    assert answer.structured_content["outcome"] == "done"
    assert answer.structured_content["result"]["stdout"] == "ls -l\n"
    assert answer.structured_content["action"].startswith("act_")
    assert answer.content[0].text == "ls -l\n"
    asked = place.actions.requests[-1]
    assert (asked.operation, dict(asked.arguments), asked.why) == ("terminal.run", {"argv": ["ls", "-l"]}, "to see what is there")


@pytest.mark.parametrize("era", ERAS)
def test_a_refusal_is_an_error_that_says_why_and_what_to_do(place, era):
    (answer,) = ask(place, era, ("files_delete", {"path": "x"}))
    assert answer.is_error
    assert (answer.structured_content["outcome"], answer.structured_content["code"]) == ("refused", "SCOPE_REFUSED")
    assert answer.content[0].text == "Refused (SCOPE_REFUSED): scribe has no scope files.delete. Ask for the scope."


@pytest.mark.parametrize("era", ERAS)
def test_a_tool_that_is_not_there_is_an_error_of_the_protocol(place, era):
    with pytest.raises((MCPError, ExceptionGroup)) as caught:
        ask(place, era, ("files_explode", {}))
    assert "there is no tool" in repr(caught.value)


@pytest.mark.parametrize("era", ERAS)
def test_a_call_waits_for_a_person_and_then_goes_on(place, era):
    with ThreadPoolExecutor(1) as pool:
        person = pool.submit(place.answer, "approve")
        (answer,) = ask(place, era, ("files_write", {"path": "a.txt", "content": "x", "why": "the report"}))
        approval = person.result()
    assert answer.structured_content["outcome"] == "done"
    assert place.kernel.approvals.find(approval).why == "the report"
    assert place.kernel.approvals.find(approval).state.value == "consumed"


@pytest.mark.parametrize("era", ERAS)
def test_a_no_comes_back_with_the_person_s_words(place, era):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(place.answer, "deny")
        (answer,) = ask(place, era, ("files_write", {"path": "a.txt", "content": "x"}))
    assert answer.is_error
    assert (answer.structured_content["code"], answer.structured_content["reason"]) == ("APPROVAL_DENIED", "a person said no: because")


@pytest.mark.parametrize("era", ERAS)
def test_what_nobody_answers_in_time_goes_on_waiting_and_says_where(hasty, era):
    (answer,) = ask(hasty, era, ("files_write", {"path": "a.txt", "content": "x"}))
    assert answer.is_error
    assert answer.structured_content["outcome"] == "waiting"
    assert answer.structured_content["approve_at"] == f"{hasty.url}/approvals/{answer.structured_content['approval']}"
    assert "Nothing was executed" in answer.content[0].text


class Shown:
    """A client's person, or whoever sits in their place: sees what is asked, and gives `action` as the answer."""

    def __init__(self, action: str) -> None:
        self.action = action
        self.seen: list[types.ElicitRequestParams] = []

    async def __call__(self, context, params):
        self.seen.append(params)
        return types.ElicitResult(action=self.action, content={} if self.action == "accept" else None)


@pytest.mark.parametrize("era", ERAS)
def test_a_client_that_says_yes_approves_nothing(hasty, era):
    shown = Shown("accept")
    (answer,) = ask(hasty, era, ("files_write", {"path": "a.txt", "content": "x"}), elicitation_callback=shown)
    assert answer.structured_content["outcome"] == "waiting"
    (approval,) = hasty.kernel.approvals.list()
    assert approval.state.value == "pending"
    assert f"{hasty.url}/approvals/{approval.id}" in shown.seen[0].message
    assert getattr(shown.seen[0], "url", f"{hasty.url}/approvals/{approval.id}") == f"{hasty.url}/approvals/{approval.id}"


@pytest.mark.parametrize("era", ERAS)
def test_a_client_whose_person_declines_waits_no_longer(place, era):
    shown = Shown("decline")
    (answer,) = ask(place, era, ("files_write", {"path": "a.txt", "content": "x"}), elicitation_callback=shown)
    assert answer.structured_content["outcome"] == "waiting"
    assert len(shown.seen) == 1
    assert place.kernel.approvals.list()[0].state.value == "pending"


@pytest.mark.parametrize("era", ERAS)
def test_an_approval_from_elsewhere_counts_while_the_client_still_asks(place, era):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(place.answer, "approve")
        (answer,) = ask(place, era, ("files_write", {"path": "a.txt", "content": "x"}), elicitation_callback=Shown("accept"))
    assert answer.structured_content["outcome"] == "done"


@pytest.mark.parametrize("era", ERAS)
def test_waiting_is_told_as_progress(place, era):
    notes = []

    async def note(progress, total, message):
        notes.append((progress, total, message))

    async def run():
        async with client(place, era) as found:
            return await found.call_tool("files_write", {"path": "a.txt", "content": "x"}, progress_callback=note)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: place.answer("approve", after=lambda: bool(notes)))
        anyio.run(run)
    assert "waiting for a person's approval at http://" in notes[0][2]


@pytest.mark.parametrize("era", ERAS)
def test_a_session_that_is_revoked_meanwhile_ends_at_the_next_call(place, era):
    async def run():
        async with client(place, era, pair["access_token"]) as found:
            first = await found.call_tool("files_read", {"path": "a"})
            place.offices.room.agents.revoke_session(pair["session"], "maria", "enough")
            return first, await found.call_tool("files_read", {"path": "a"})

    pair = place.token()
    with pytest.raises((MCPError, ExceptionGroup, httpx2.HTTPStatusError)):
        anyio.run(run)
    assert len(place.actions.requests) == 1


def post(place, token=None, **headers):
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    said = {"Accept": "application/json, text/event-stream"} | ({"Authorization": f"Bearer {token}"} if token else {}) | headers
    return httpx2.post(place.mcp, json=message, headers=said)


def test_without_a_token_the_answer_says_where_to_read_how_to_get_one(place):
    refused = post(place)
    assert (refused.status_code, refused.json()["code"]) == (401, "NOT_SIGNED_IN")
    found = refused.headers["www-authenticate"]
    assert found == f'Bearer resource_metadata="{place.url}/.well-known/oauth-protected-resource/mcp"'
    metadata = httpx2.get(found.split('"')[1]).json()
    assert (metadata["resource"], metadata["authorization_servers"]) == (place.mcp, [place.url])
    server = httpx2.get(f"{metadata['authorization_servers'][0]}/.well-known/oauth-authorization-server").json()
    assert (server["issuer"], server["token_endpoint"]) == (place.url, f"{place.url}/api/v1/oauth/token")
    assert httpx2.get(server["jwks_uri"]).json()["keys"][0]["crv"] == "Ed25519"


def test_a_token_for_elsewhere_a_key_and_nonsense_are_refused(place):
    other = place.token(resource="cohort")["access_token"]
    for token in (other, place.key, "ck_" + "a" * 43, "x.y.z", "a" * 9000):
        refused = post(place, token)
        assert (refused.status_code, refused.json()["code"]) == (401, "TOKEN_INVALID"), token
        assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    assert not place.actions.requests


def test_an_expired_token_and_a_suspended_agent_are_told_apart(place):
    token = place.token()["access_token"]
    place.offices.room.agents.suspend("scribe", "maria", "odd")
    refused = post(place, token)
    assert (refused.status_code, refused.json()["code"]) == (403, "AGENT_SUSPENDED")
    place.offices.room.agents.resume("scribe", "maria", "fine")
    place.offices.clock.advance(900)
    assert (post(place, token).status_code, post(place, token).json()["code"]) == (401, "TOKEN_EXPIRED")


def test_a_session_of_the_protocol_belongs_to_the_session_that_began_it(place):
    begin = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    headers = {"Accept": "application/json, text/event-stream"}
    first, second = (place.token()["access_token"] for _ in range(2))
    begun = httpx2.post(place.mcp, json=begin, headers=headers | {"Authorization": f"Bearer {first}"})
    session = begun.headers["mcp-session-id"]
    stolen = post(place, second, **{"mcp-session-id": session})
    assert stolen.status_code == 404
    assert post(place, first, **{"mcp-session-id": session}).status_code == 200


def test_pages_of_other_places_may_not_call(place):
    token = place.token()["access_token"]
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        assert (post(place, token, Origin=origin).status_code, post(place, token, Origin=origin).json()["code"]) == (403, "ORIGIN_REFUSED")
    assert post(place, token, Host="evil.example").status_code == 421


def test_a_body_that_is_too_large_or_no_json_is_refused(place):
    headers = {"Authorization": f"Bearer {place.token()['access_token']}", "Content-Type": "application/json", "Accept": "application/json"}
    assert httpx2.post(place.mcp, content=b"x" * (ACTION_BODY_BYTES_MAX + 1), headers=headers).status_code == 413
    assert httpx2.post(place.mcp, content=b"{", headers=headers).status_code in (400, 406)


def test_an_open_stream_does_not_hold_up_a_shutdown(sqlite_database, tmp_path):
    listening = threading.Event()

    async def listen(place, scope):
        async with client(place, "legacy"):
            listening.set()
            scope.deadline = anyio.current_time() + 2
            await anyio.sleep_forever()

    def run(place):
        with pytest.raises(TimeoutError):
            anyio.run(_for_a_while, listen, place)

    with ThreadPoolExecutor(1) as pool:
        with opened(sqlite_database, tmp_path) as place:
            running = pool.submit(run, place)
            assert listening.wait(CONNECTED_S_MAX)
            begun = anyio.run(_now)
        taken = anyio.run(_now) - begun
        running.result()
    assert taken < 5


async def _for_a_while(call, *arguments):
    """As long as it takes to connect, and what `call` then gives itself by the scope's deadline."""
    with anyio.fail_after(CONNECTED_S_MAX) as scope:
        await call(*arguments, scope)


async def _now():
    return anyio.current_time()
