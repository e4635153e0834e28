"""The token endpoint of agents (OAuth 2.0: RFC 6749, 8414, 8693, 8707, 9728), and what clients find it by."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import anyio.to_thread
import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from cohort.base.errors import CohortError
from cohort.kernel.face import KernelFace, TokenPair
from cohort.kernel.ports import AUDIENCE
from cohort.kernel.scopes import SCOPES
from cohort.surfaces.http.callers import Idempotency, Kernel, KeyKeeper
from cohort.surfaces.http.encoding import json_response
from cohort.surfaces.http.repeats import once
from cohort.surfaces.mcp.addresses import MCP_PATH, METADATA_PATH, REVOKE_PATH, TOKEN_PATH

FIELDS_MAX = 20
CLIENT_CHARS_COUNTED = 64
FORM = "application/x-www-form-urlencoded"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105
GRANTS = ("client_credentials", "refresh_token", EXCHANGE)

_ERRORS = {
    "KEY_INVALID": "invalid_client",
    "TOKEN_INVALID": "invalid_grant",
    "TOKEN_EXPIRED": "invalid_grant",
    "TOKEN_REPLAYED": "invalid_grant",
    "SESSION_REVOKED": "invalid_grant",
    "AGENT_SUSPENDED": "unauthorized_client",
    "AGENT_REVOKED": "unauthorized_client",
    "SCOPE_REFUSED": "invalid_scope",
    "SCOPE_UNKNOWN": "invalid_scope",
    "AGENT_UNKNOWN": "invalid_target",
    "POLICY_DENIED": "unauthorized_client",
    "APPROVAL_NEEDED": "unauthorized_client",
}


@dataclass(frozen=True, slots=True)
class NewTokenKey:
    """`kid`: the key's RFC 7638 thumbprint."""

    kid: str


router = APIRouter()
well_known = APIRouter(include_in_schema=False)


@router.post("/oauth/token", summary="A token for an agent: by its key, by a refresh token, or by delegation", response_class=Response)
async def token(request: Request, kernel: Kernel) -> Response:
    """A form, as OAuth 2.0 has it. Answers `access_token`, `expires_in`, `scope` and, for a session of a key, `refresh_token`.

    `grant_type` is `client_credentials` (the client's id is the agent's name, its secret the agent's key), `refresh_token`, or
    `urn:ietf:params:oauth:grant-type:token-exchange` with `subject_token`, `agent` and `scope`.
    """
    body = await request.body()
    source = request.client.host if request.client else ""
    try:
        asked = _Asked.of(request, body)
        pair, exchanged = await anyio.to_thread.run_sync(partial(_granted, kernel, asked, base_of(request), source))
    except CohortError as error:
        return _refused(error, "authorization" in request.headers)
    now_us = request.app.state.control.clock.now_us()
    return json_response(_answer(pair, exchanged, now_us), headers={"pragma": "no-cache"})


@router.post("/oauth/revoke", summary="End the session of a token or refresh token", response_class=Response)
async def revoke(request: Request, kernel: Kernel) -> Response:
    """RFC 7009: a form with `token`. Whoever holds a token may end its session; one that is not in force is no error."""
    body = await request.body()
    try:
        token = _Asked.of(request, body).field("token")
        await anyio.to_thread.run_sync(kernel.tokens.sign_out, token)
    except CohortError as error:
        return _refused(error, basic=False)
    return Response(status_code=200)


@router.post("/oauth/keys", status_code=201, responses={201: {"model": NewTokenKey}}, summary="Sign tokens with a new key")
def rotate(request: Request, kernel: Kernel, caller: KeyKeeper, key: Idempotency = None) -> Response:
    """Tokens of the key before stay good; those of an older one do not."""
    return once(request, caller, key, None, lambda: json_response(NewTokenKey(kernel.tokens.rotate(caller.name)), 201))


@well_known.get("/.well-known/jwks.json")
def jwks(kernel: Kernel) -> Response:
    """The public keys that tokens are signed with."""
    return json_response(kernel.tokens.jwks(), headers={"cache-control": "public, max-age=60"})


@well_known.get("/.well-known/oauth-authorization-server")
def authorization_server(request: Request, _: Kernel) -> Response:
    """RFC 8414. There is no way for a client to register itself: people register agents."""
    base = base_of(request)
    return json_response(
        {
            "issuer": base,
            "token_endpoint": base + TOKEN_PATH,
            "revocation_endpoint": base + REVOKE_PATH,
            "jwks_uri": f"{base}/.well-known/jwks.json",
            "grant_types_supported": GRANTS,
            "response_types_supported": (),
            "token_endpoint_auth_methods_supported": ("client_secret_basic", "client_secret_post"),
            "scopes_supported": SCOPES,
        }
    )


@well_known.get(METADATA_PATH)
@well_known.get(METADATA_PATH + MCP_PATH)
def protected_resource(request: Request, _: Kernel) -> Response:
    """RFC 9728, of /mcp."""
    base = base_of(request)
    return json_response(
        {
            "resource": base + MCP_PATH,
            "resource_name": "Cohort",
            "authorization_servers": (base,),
            "scopes_supported": SCOPES,
            "bearer_methods_supported": ("header",),
        }
    )


def base_of(request: Request) -> str:
    """The address that the caller reached us by; the Host header was checked before. Who comes by the host of the public address came by that."""
    host, public = request.headers.get("host", ""), request.app.state.public_url
    if public is not None and host.rpartition(":")[0 if ":" in host else 2].lower() == urlsplit(public).hostname:
        return str(public)
    return f"{request.url.scheme}://{host}"


@dataclass(frozen=True, slots=True)
class _Asked:
    """The form, and the client's id and secret wherever they came."""

    form: Mapping[str, str]
    client: str | None
    secret: str | None

    @classmethod
    def of(cls, request: Request, body: bytes) -> _Asked:
        """Errors: FIELD_INVALID, KEY_INVALID."""
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != FORM:
            raise CohortError("FIELD_INVALID", "the body is not a form", field="body", hint=f"Send it as {FORM}.")
        try:
            pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
        except ValueError as error:
            raise CohortError(
                "FIELD_INVALID", "the form cannot be read", field="body", hint=f"Send at most {FIELDS_MAX} fields."
            ) from error
        form = dict(pairs)
        if len(form) != len(pairs):
            raise CohortError("FIELD_INVALID", "a field comes twice", field="body", hint="Send every field once.")
        basic = _basic(request.headers.get("authorization"))
        client, secret = basic or (form.get("client_id"), form.get("client_secret"))
        return cls(form, client, secret)

    def field(self, name: str) -> str:
        """Errors: FIELD_INVALID."""
        value = self.form.get(name, "")
        if not value:
            raise CohortError("FIELD_INVALID", f"the form has no {name}", field=name, hint=f"Send {name}.")
        return value


def _granted(kernel: KernelFace, asked: _Asked, base: str, source: str) -> tuple[TokenPair, bool]:
    """The tokens, and whether they are by exchange."""
    grant, tokens = asked.field("grant_type"), kernel.tokens
    audience = _audience(asked.form, base)
    if grant == "client_credentials":
        if not asked.secret:
            raise CohortError("KEY_INVALID", "no key came", hint="Send the agent's name and key as the client's id and secret.")
        scopes = asked.form.get("scope", "").split() or None
        named = asked.client or None
        attempts = (
            f"{source} {(named or '')[:CLIENT_CHARS_COUNTED]}"  # one agent with a wrong key does not lock out the others of its machine
        )
        return tokens.sign_in(asked.secret, scopes, audience, task=asked.form.get("task"), source=attempts, agent=named), False
    if grant == "refresh_token":
        return tokens.refresh(asked.field("refresh_token")), False
    if grant == EXCHANGE:
        if asked.field("subject_token_type") != ACCESS_TOKEN:
            raise CohortError(
                "FIELD_INVALID", "subject_token_type: not one of ours", field="subject_token_type", hint=f"Send {ACCESS_TOKEN}."
            )
        return tokens.exchange(asked.field("subject_token"), asked.field("agent"), asked.field("scope").split(), audience), True
    raise CohortError("FIELD_INVALID", f"grant_type: {grant[:100]!r} is not supported", field="grant_type", hint=f"Use one of {GRANTS}.")


def _audience(form: Mapping[str, str], base: str) -> str:
    """Errors: FIELD_INVALID."""
    wanted = form.get("resource") or form.get("audience") or AUDIENCE
    if wanted.removesuffix("/") not in (AUDIENCE, base + MCP_PATH):
        raise CohortError(
            "FIELD_INVALID", f"{wanted[:200]!r} is no place here", field="resource", hint=f"Use {base}{MCP_PATH} or {AUDIENCE}."
        )
    return wanted.removesuffix("/")


def _answer(pair: TokenPair, exchanged: bool, now_us: int) -> dict[str, Any]:
    body: dict[str, Any] = {
        "access_token": pair.token,
        "token_type": "Bearer",
        "expires_in": max(0, (pair.expires_us - now_us) // 1_000_000),
        "scope": " ".join(pair.scopes),
        "session": pair.session,
    }
    if pair.refresh is not None:
        body["refresh_token"] = pair.refresh
    return body | ({"issued_token_type": ACCESS_TOKEN} if exchanged else {})


def _refused(error: CohortError, basic: bool) -> Response:
    """RFC 6749, section 5.2, with our code and hint beside it."""
    name = _ERRORS.get(error.code) or _named(error)
    status = error.http_status if name == "temporarily_unavailable" else 401 if name == "invalid_client" else 400
    body = {"error": name, "error_description": error.message, "code": error.code, "hint": error.hint, "retry": error.retry.value}
    headers = {"www-authenticate": 'Basic realm="cohort"'} if status == 401 and basic else {}
    if status in (429, 503):
        headers["retry-after"] = str(error.details.get("wait_s", 1))
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


def _named(error: CohortError) -> str:
    if error.field == "grant_type" and "supported" in error.message:
        return "unsupported_grant_type"
    if error.field in ("resource", "audience"):
        return "invalid_target"
    if error.field == "scopes":
        return "invalid_scope"
    return "invalid_request" if error.http_status < 429 else "temporarily_unavailable"


def _basic(header: str | None) -> tuple[str, str] | None:
    """RFC 6749, section 2.3.1: both halves are form-encoded. Errors: KEY_INVALID."""
    scheme, _, text = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, secret = base64.b64decode(text.strip(), validate=True).decode("ascii").partition(":")
    except (binascii.Error, ValueError) as error:
        raise CohortError("KEY_INVALID", "the Authorization header cannot be read", hint="Send `Basic` and base64 of id:key.") from error
    return (unquote_plus(name), unquote_plus(secret)) if colon else None
