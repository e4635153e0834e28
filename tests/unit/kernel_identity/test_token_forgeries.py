"""Tokens that are not ours, no longer ours, or not for here: each is refused by its code, and a mutated one always."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cohort.base.errors import CohortError
from cohort.kernel.identity.signing import SigningKeys, thumbprint
from cohort.kernel.ports import AUDIENCE
from support_identity import Entropy, Offices, TurnedClock

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.fixture
def offices(sqlite_database, tmp_path) -> Offices:
    return Offices(sqlite_database, TurnedClock(), tmp_path / "tokens")


@pytest.fixture
def token(offices) -> str:
    registered = offices.register("smoke-1", "files.read")
    return offices.room.tokens.sign_in(registered.key, None, AUDIENCE).token


def newest(offices):
    return SigningKeys(offices.folder, Entropy()).newest()


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


def header_of(token):
    return jwt.get_unverified_header(token)


def encoded(part) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def signed(offices, token, header=None, **claims) -> str:
    """The token with other claims, signed with the real key; a claim of None is left out."""
    said = {name: value for name, value in {**claims_of(token), **claims}.items() if value is not None}
    return jwt.encode(said, newest(offices).private, "EdDSA", header_of(token) | (header or {}))


def code(offices, token, audience=AUDIENCE) -> str:
    return offices.code(offices.room.identities.authenticate, token, audience)


def test_the_token_that_the_forgeries_start_from_is_good(offices, token):
    assert offices.room.identities.authenticate(token, AUDIENCE).agent.name == "smoke-1"
    assert offices.room.identities.authenticate(signed(offices, token), AUDIENCE).agent.name == "smoke-1"


def test_every_changed_character_is_refused(offices, token):
    for place in range(len(token)):
        for other in {ALPHABET[(ALPHABET.find(token[place]) + 1) % 64], "A", ".", "=", "é"} - {token[place]}:
            assert code(offices, token[:place] + other + token[place + 1 :]) == "TOKEN_INVALID", (place, other)


@pytest.mark.parametrize("cut", [0, 1, 10, 86, 87, 200])
def test_a_part_of_a_token_is_none(offices, token, cut):
    assert code(offices, token[cut + 1 :]) == "TOKEN_INVALID"
    assert code(offices, token[: -cut - 1]) == "TOKEN_INVALID"


def test_no_other_algorithm_is_believed(offices, token):
    said, key = claims_of(token), newest(offices)
    public = key.public.public_bytes_raw()
    strange = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    unsigned = f"{encoded(header_of(token) | {'alg': 'none'})}.{token.split('.')[1]}."
    for forged in (
        unsigned,
        unsigned + "AA",
        jwt.encode(said, public, "HS256", header_of(token) | {"alg": "HS256"}),
        jwt.encode(said, strange, "RS256", header_of(token) | {"alg": "RS256"}),
        f"{encoded(header_of(token) | {'alg': 'eddsa'})}.{token.split('.', 1)[1]}",
        f"{encoded(header_of(token) | {'alg': 'Ed448'})}.{token.split('.', 1)[1]}",
    ):
        assert code(offices, forged) == "TOKEN_INVALID"


def test_a_foreign_key_is_refused_whatever_it_calls_itself(offices, token):
    foreign = Ed25519PrivateKey.generate()
    own_name = thumbprint(foreign.public_key())
    jwk = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(foreign.public_key()))
    for header in (header_of(token), {"typ": "at+jwt", "kid": own_name}, {"typ": "at+jwt", "kid": own_name, "jwk": jwk}, {"typ": "at+jwt"}):
        assert code(offices, jwt.encode(claims_of(token), foreign, "EdDSA", header)) == "TOKEN_INVALID"


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "../../etc/passwd"},
        {"kid": ""},
        {"typ": "JWT"},
        {"crit": ["exp"]},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example"},
        {"zip": "DEF"},
    ],
)
def test_a_header_of_another_kind_is_refused_even_when_we_signed_it(offices, token, header):
    assert code(offices, signed(offices, token, header)) == "TOKEN_INVALID"


def test_a_token_without_the_name_of_its_key_is_refused(offices, token):
    assert code(offices, jwt.encode(claims_of(token), newest(offices).private, "EdDSA", {"typ": "at+jwt"})) == "TOKEN_INVALID"


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "iat", "exp", "jti", "sid", "scope"])
def test_a_claim_that_is_missing_is_refused(offices, token, name):
    assert code(offices, signed(offices, token, **{name: None})) == "TOKEN_INVALID"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "spiffe://other.example"},
        {"iss": "spiffe://test.example.evil"},
        {"sub": "spiffe://other.example/agent/ag_x"},
        {"sub": "smoke-1"},
        {"sub": 7},
        {"aud": "elsewhere"},
        {"aud": ["elsewhere"]},
        {"aud": [7]},
        {"aud": []},
        {"exp": "tomorrow"},
        {"exp": -1},
        {"exp": True},
        {"iat": 1e12},
        {"sid": ["se_x"]},
        {"scope": "root"},
        {"scope": 7},
        {"act": {"sub": "spiffe://test.example/agent/ag_other"}},
        {"act": []},
        {"act": "x"},
        {"cnf": {"cohort": "elsewhere"}},
        {"cnf": {}},
    ],
)
def test_a_claim_that_is_wrong_is_refused_even_when_we_signed_it(offices, token, claims):
    assert code(offices, signed(offices, token, **claims)) == "TOKEN_INVALID"


def test_a_session_that_nobody_knows_is_refused(offices, token):
    assert code(offices, signed(offices, token, sid="se_aaaaaaaaaaaaaaaa")) == "SESSION_REVOKED"


def test_a_token_of_another_agent_s_session_is_refused(offices, token):
    other = offices.register("other", "files.read")
    session = claims_of(offices.room.tokens.sign_in(other.key, None, AUDIENCE).token)["sid"]
    assert code(offices, signed(offices, token, sid=session)) == "TOKEN_INVALID"


def test_scopes_that_were_added_are_not_there(offices, token):
    more = signed(offices, token, scope="files.read files.write system.execute")
    assert [scope.name for scope in offices.room.identities.authenticate(more, AUDIENCE).scopes] == ["files.read"]


@pytest.mark.parametrize(("ahead_s", "refused"), [(5, False), (6, True), (3600, True)])
def test_a_token_from_the_future_is_refused(offices, token, ahead_s, refused):
    said = claims_of(token)
    moved = signed(offices, token, iat=said["iat"] + ahead_s, nbf=said["iat"] + ahead_s, exp=said["exp"] + ahead_s)
    assert (code(offices, moved) == "TOKEN_INVALID") if refused else offices.room.identities.authenticate(moved, AUDIENCE)


def test_an_expired_token_is_refused_by_its_own_code(offices, token):
    assert code(offices, signed(offices, token, exp=claims_of(token)["iat"])) == "TOKEN_EXPIRED"


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "\x00", "\ud800", "Bearer x.y.z", "a" * 8193, "a." * 5000, "é.é.é", " ", "[]"])
def test_text_that_is_no_token_is_refused(offices, text):
    assert code(offices, text) == "TOKEN_INVALID"


def test_deeply_nested_json_is_refused(offices, token):
    deep = base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("=")
    assert code(offices, f"{deep}.{token.split('.', 1)[1]}") == "TOKEN_INVALID"


def test_the_form_of_a_token_is_the_one_documented(offices, token):
    agent = offices.room.agents.find("smoke-1")
    said, now_s = claims_of(token), offices.clock.now_us() // 1_000_000
    assert header_of(token) == {"alg": "EdDSA", "typ": "at+jwt", "kid": newest(offices).kid}
    assert (said["iss"], said["sub"]) == ("spiffe://test.example", f"spiffe://test.example/agent/{agent.id}")
    assert (said["aud"], said["iat"], said["nbf"], said["exp"]) == ([AUDIENCE], now_s, now_s, now_s + 900)
    assert (said["ws"], said["scope"]) == (agent.workspace, f"files.read:{agent.workspace}/**")


def test_a_delegated_token_names_whom_it_acts_for_as_rfc_8693_does(offices):
    registered = offices.register("lead", "agents.delegate")
    offices.register("helper", "agents.delegate")
    pair = offices.room.tokens.sign_in(registered.key, None, AUDIENCE)
    first = offices.room.tokens.exchange(pair.token, "helper", ["agents.delegate"], AUDIENCE)
    second = offices.room.tokens.exchange(first.token, "lead", ["agents.delegate"], AUDIENCE)
    lead, helper = (f"spiffe://test.example/agent/{offices.room.agents.find(name).id}" for name in ("lead", "helper"))
    said = claims_of(second.token)
    assert (said["sub"], said["act"]) == (lead, {"sub": lead, "act": {"sub": helper}})
    found = offices.room.identities.authenticate(second.token, AUDIENCE)
    assert (found.agent.name, len(found.actors)) == ("lead", 2)


def test_the_key_before_is_believed_and_the_one_before_that_is_not(offices, token):
    first = newest(offices).kid
    offices.room.tokens.rotate("tester")
    assert [key["kid"] for key in offices.room.tokens.jwks()["keys"]][1:] == [first]
    assert offices.room.identities.authenticate(token, AUDIENCE)
    offices.room.tokens.rotate("tester")
    assert first not in [key["kid"] for key in offices.room.tokens.jwks()["keys"]]
    assert code(offices, token) == "TOKEN_INVALID"
    assert len(list(offices.folder.iterdir())) == 2
    assert offices.audit.events().count("token_key") == 3


def test_another_process_sees_a_rotation(offices, token):
    other = offices.opened()
    offices.room.tokens.rotate("tester")
    fresh = offices.room.tokens.sign_in(offices.room.agents.new_key("smoke-1", "tester").key, None, AUDIENCE)
    assert other.identities.authenticate(fresh.token, AUDIENCE).agent.name == "smoke-1"
    assert other.tokens.jwks() == offices.room.tokens.jwks()


def test_the_public_keys_are_as_rfc_8037_says_and_hold_no_secret(offices):
    (key,) = offices.room.tokens.jwks()["keys"]
    assert set(key) == {"kty", "crv", "x", "kid", "alg", "use"}
    assert (key["kty"], key["crv"], key["alg"], key["use"], key["kid"]) == ("OKP", "Ed25519", "EdDSA", "sig", newest(offices).kid)


def test_a_thumbprint_is_the_one_of_rfc_8037():
    seed = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    assert thumbprint(Ed25519PrivateKey.from_private_bytes(seed).public_key()) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_a_public_tool_verifies_a_token(offices, token):
    (key,) = offices.room.tokens.jwks()["keys"]
    said = jwt.decode(token, jwt.PyJWK(key).key, algorithms=["EdDSA"], audience=AUDIENCE, options={"verify_exp": False})
    assert said["sid"].startswith("se_")


def the_file(folder: Path) -> Path:
    return next(path for path in folder.iterdir() if path.suffix == ".pem")


def test_the_files_of_keys_are_their_owner_s_alone(offices):
    assert stat.S_IMODE(offices.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(the_file(offices.folder).stat().st_mode) == 0o600


def opening_fails(offices) -> str:
    with pytest.raises(CohortError) as caught:
        offices.opened()
    assert caught.value.code == "CONFIG_INVALID"
    return caught.value.message


def test_a_key_that_others_may_read_is_not_used(offices):
    the_file(offices.folder).chmod(0o640)
    assert "others may read it" in opening_fails(offices)


def test_a_damaged_or_exchanged_key_is_not_used(offices):
    path = the_file(offices.folder)
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    assert "damaged" in opening_fails(offices)
    other = SigningKeys(offices.folder.with_name("other"), Entropy(9))
    other.adopt(other.draw())
    path.write_bytes(the_file(offices.folder.with_name("other")).read_bytes())
    assert "not what its name says" in opening_fails(offices)
    path.write_bytes(whole)
    offices.opened()


def test_what_else_lies_in_the_folder_is_no_key(offices):
    (offices.folder / ".0000000009-x.pem.123").write_text("half a key")
    (offices.folder / "README").write_text("keys of tokens")
    assert len(offices.opened().tokens.jwks()["keys"]) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_keeps_the_key_it_had(offices):
    before = offices.room.tokens.jwks()
    offices.folder.chmod(0o500)
    try:
        assert offices.code(offices.room.tokens.rotate, "tester") == "DISK_FULL"
    finally:
        offices.folder.chmod(0o700)
    assert offices.room.tokens.jwks() == before


def test_a_token_with_more_scopes_than_fit_is_refused_when_asked_for(offices):
    scopes = tuple(f"files.read:{'d' * 200}{number}/**" for number in range(60))
    registered = offices.register("wide", *scopes)
    assert offices.code(offices.room.tokens.sign_in, registered.key, None, AUDIENCE) == "FIELD_INVALID"
    assert offices.room.tokens.sign_in(registered.key, scopes[:3], AUDIENCE).scopes == scopes[:3]
