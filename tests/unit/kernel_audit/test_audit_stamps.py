"""Checkpoints stamped by a real time-stamping authority: `openssl ts` behind a small HTTP server."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.audit import anchor_stamp
from cohort.kernel.audit.anchors import parse_anchor
from cohort.kernel.face import AuditQuery
from support_audit import ORIGIN, change, fill, open_room

CONFIG = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[stamper]
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[tsa]
default_tsa = tsa_config
[tsa_config]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/stamper.pem
signer_key = {folder}/stamper.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
"""


def openssl(*words, **options):
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, timeout=60, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def made(folder):
    """An authority: its root certificate, and a certificate for stamping under it."""
    if shutil.which("openssl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("the Debian package openssl is missing")
        pytest.skip("the Debian package openssl is missing")
    folder.mkdir()
    config = folder / "config"
    config.write_text(CONFIG.format(folder=folder))
    (folder / "serial").write_text("01\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-config", config]
    openssl("req", "-x509", *key, "-keyout", folder / "ca.key", "-out", folder / "ca.pem", "-subj", "/CN=root", "-extensions", "authority")
    openssl("req", "-new", *key, "-keyout", folder / "stamper.key", "-out", folder / "stamper.csr", "-subj", "/CN=stamper")
    under = ["-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial"]
    extensions = ["-extfile", config, "-extensions", "stamper"]
    openssl("x509", "-req", "-in", folder / "stamper.csr", *under, *extensions, "-out", folder / "stamper.pem")
    return folder


class Authority(ThreadingHTTPServer):
    """Stamps what is sent to it. `spoil`: what it does to its answer; `queries`: what it was sent."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.queries, self.status = folder, [], 200
        self.spoil = bytes

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/tsr?of=tests"

    def stamp(self, query):
        asked = self.folder / f"query-{threading.get_ident()}"
        asked.write_bytes(query)
        return openssl("ts", "-reply", "-config", self.folder / "config", "-queryfile", asked)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        query = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.queries.append((self.path, self.headers["Content-Type"], query))
        answer = self.server.spoil(self.server.stamp(query))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def authority(tmp_path):
    server = Authority(made(tmp_path / "tsa"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def setting(authority):
    return f"rfc3161:{authority.url}#{authority.folder}/ca.pem"


@pytest.fixture
def room(sqlite_database, tmp_path, clock, setting):
    room = open_room(sqlite_database, tmp_path, clock, [setting])
    fill(room, 10)
    return room


def test_a_checkpoint_is_stamped_and_the_stamp_is_verified_without_the_authority(room, authority):
    result = room.desk.anchor()[0]
    assert result["ok"]
    assert re.fullmatch(r"stamped at 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", result["detail"])
    assert [(path, kind) for path, kind, _ in authority.queries] == [("/tsr?of=tests", "application/timestamp-query")]
    authority.shutdown()
    answer = room.desk.verify()
    assert (answer.integrity, answer.anchored_size) == ("verified", 10)
    assert re.search(r"stamped 10 records at 20\d\d-", answer.anchors[0])


def test_openssl_verifies_what_was_kept(room, authority, sqlite_database, tmp_path):
    note = room.desk.checkpoint()
    room.desk.anchor()
    with sqlite_database.read() as connection:
        receipt = json.loads(connection.exec_driver_sql("SELECT receipt FROM audit_anchors").scalar())
    assert receipt["note"] == note
    (tmp_path / "note").write_text(note)
    (tmp_path / "token").write_bytes(base64.b64decode(receipt["token"]))
    said = openssl("ts", "-verify", "-data", tmp_path / "note", "-in", tmp_path / "token", "-CAfile", authority.folder / "ca.pem")
    assert said == b"Verification: OK\n"


def test_the_log_records_the_hash_of_the_token_and_not_all_of_it(room):
    room.desk.anchor()
    body = room.desk.search(AuditQuery(kind="checkpoint"))[0].body["body"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", body["receipt"])


def test_a_log_that_the_stamped_checkpoint_does_not_fit_is_broken(room, sqlite_database):
    room.desk.anchor()
    change(sqlite_database, ("UPDATE audit_entries SET entry = replace(entry, 'number 3', 'Number 3') WHERE idx = 3", []))
    assert room.desk.verify().first_bad == 3
    change(sqlite_database, ("DELETE FROM audit_entries WHERE idx >= 5", []), ("DELETE FROM audit_checkpoints", []))
    assert room.desk.verify().integrity == "broken"


def halved(token):
    return token[: len(token) // 2]


@pytest.mark.parametrize("spoil", [lambda _: b"", lambda _: b"nonsense", halved, lambda token: token[:-40] + bytes(40)])
def test_an_answer_that_is_no_token_is_not_kept(room, authority, spoil):
    authority.spoil = spoil
    result = room.desk.anchor()[0]
    assert (result["ok"], "gave no time stamp to believe" in result["detail"]) == (False, True)
    assert room.desk.verify().anchored_size == 0
    assert room.log.trouble is None


def test_the_stamp_of_another_checkpoint_or_question_is_not_taken(room, authority):
    room.desk.anchor()
    old = authority.stamp(authority.queries[0][2])
    authority.spoil = lambda _: old
    assert not room.desk.anchor()[0]["ok"], "another checkpoint: the receipt itself is a record"
    same = authority.queries[-1][2]
    assert same != authority.queries[0][2]


def test_a_stamp_for_the_same_note_and_another_question_is_not_taken(room, authority, setting, clock, sqlite_database):
    anchor = parse_anchor(setting, ORIGIN, clock, "host", sqlite_database)
    anchor.send("a note\n", 1, None)
    old = authority.stamp(authority.queries[0][2])
    authority.spoil = lambda _: old
    with pytest.raises(CohortError, match="Nonce mismatch"):
        anchor.send("a note\n", 1, None)


def test_a_token_by_somebody_else_is_not_believed(room, authority, tmp_path):
    other = made(tmp_path / "other")
    authority.folder = other
    assert "gave no time stamp" in room.desk.anchor()[0]["detail"]


@pytest.mark.parametrize("status", [404, 500])
def test_an_authority_that_refuses_is_said_to(room, authority, status):
    authority.status = status
    assert f"answered {status}" in room.desk.anchor()[0]["detail"]


def test_an_answer_without_end_is_not_read(room, authority):
    authority.spoil = lambda _: bytes(anchor_stamp.TOKEN_BYTES_MAX + 1)
    assert f"answered 200 with {anchor_stamp.TOKEN_BYTES_MAX + 1} bytes" in room.desk.anchor()[0]["detail"]


@pytest.mark.parametrize("column", ["token", "note"])
def test_a_token_that_was_changed_here_does_not_count_and_is_said(room, sqlite_database, column):
    room.desk.anchor()
    with sqlite_database.read() as connection:
        receipt = json.loads(connection.exec_driver_sql("SELECT receipt FROM audit_anchors").scalar())
    receipt[column] = receipt[column][:-8] + "AAAAAAA\n" if column == "note" else base64.b64encode(bytes(99)).decode()
    change(sqlite_database, ("UPDATE audit_anchors SET receipt = ?", [json.dumps(receipt)]))
    answer = room.desk.verify()
    assert (answer.integrity, answer.anchored_size) == ("verified", 0)
    assert "does not verify" in answer.anchors[0]


def test_stamps_are_asked_for_once_an_hour_unless_somebody_asks(room, authority, clock):
    assert room.anchors.send(only_new=True)[0]["ok"]
    fill(room, 5, 20)
    clock.advance(anchor_stamp.PAUSE_S - 1)
    assert room.anchors.send(only_new=True) == []
    assert room.desk.anchor()[0]["ok"]
    fill(room, 5, 30)
    clock.advance(anchor_stamp.PAUSE_S)
    assert room.anchors.send(only_new=True)[0]["ok"]
    assert len(authority.queries) == 3


@pytest.mark.parametrize("spoilt", ["ftp://x", "http:///path", "", "https://tsa.example#/nowhere/ca.pem", "https://tsa.example"])
def test_a_setting_that_cannot_work_is_refused_at_the_start(tmp_path, clock, spoilt):
    with pytest.raises(CohortError) as caught:
        parse_anchor(f"rfc3161:{spoilt}", ORIGIN, clock, "host", None)
    assert caught.value.code == "CONFIG_INVALID"


def test_a_file_without_a_root_is_refused(authority, clock):
    with pytest.raises(CohortError, match="no certificate that signs itself"):
        parse_anchor(f"rfc3161:{authority.url}#{authority.folder}/stamper.pem", ORIGIN, clock, "host", None)
