"""Anchors: a file, a witness, the system's log; receipts, and what happens when a place is gone or contradicts."""

from __future__ import annotations

import base64
import json
import re
import secrets
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from cohort.base.clock import ManualClock
from cohort.base.errors import CohortError
from cohort.kernel.audit.anchor_witness import WitnessAnchor
from cohort.kernel.audit.anchors import parse_anchor
from cohort.kernel.audit.notes import parse_note, parse_vkey
from cohort.kernel.audit.store import Rows
from cohort.kernel.audit.witness import WitnessServer, open_witness
from cohort.kernel.face import AuditQuery
from support_audit import ORIGIN, change, fill, open_room


@contextmanager
def served(folder, vkey, clock, port=0):
    """A witness on a port of its own."""
    witness = open_witness(folder, "witness.example/w1", [vkey], clock, secrets.token_bytes)
    server = WitnessServer("127.0.0.1", port, witness)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def url_of(server):
    return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def room(sqlite_database, tmp_path, clock):
    room = open_room(sqlite_database, tmp_path, clock, [f"file:{tmp_path}/anchor"])
    fill(room, 10)
    return room


@pytest.fixture
def witness(room, tmp_path, clock):
    with served(tmp_path / "witness", room.desk.vkey, clock) as server:
        yield server


def witnessed(sqlite_database, tmp_path, clock, server, pin=True):
    key = f"#{server.witness.vkey}" if pin else ""
    return open_room(sqlite_database, tmp_path, clock, [f"{url_of(server)}{key}"])


def test_a_file_gets_a_line_for_each_checkpoint_and_the_log_a_receipt(room, tmp_path):
    results = room.desk.anchor()
    assert [(one["ok"], one["size"]) for one in results] == [(True, 10)]
    assert json.loads((tmp_path / "anchor").read_text())["note"].split("\n")[:2] == [ORIGIN, "10"]
    assert (tmp_path / "anchor").stat().st_mode & 0o777 == 0o600
    receipt = room.desk.search(AuditQuery(kind="checkpoint"))[0].body["body"]
    assert (receipt["anchor"], receipt["size"]) == (f"file:{tmp_path}/anchor", 10)
    answer = room.desk.verify()
    assert (answer.integrity, answer.size, answer.anchored_size) == ("verified", 11, 10)
    assert answer.anchors == (f"file:{tmp_path}/anchor vouches for 10 records",)
    assert room.desk.verify(full=False).anchored_size == 10


def test_a_line_cut_off_by_a_crash_is_no_checkpoint_and_the_next_one_stands_alone(room, tmp_path):
    room.desk.anchor()
    with (tmp_path / "anchor").open("a") as file:
        file.write('{"at_us": 1, "no')
    assert room.desk.verify().anchored_size == 10
    assert room.desk.anchor()[0]["ok"]
    assert room.desk.verify().anchored_size == 11


def test_a_line_that_somebody_wrote_is_no_checkpoint_and_said(room, tmp_path):
    (tmp_path / "anchor").write_text("{}\n")
    assert not room.desk.anchor()[0]["ok"]
    assert "holds a line that is not a checkpoint" in room.desk.verify().anchors[0]


def test_a_place_that_is_gone_is_trouble_and_not_in_the_way(sqlite_database, tmp_path, clock):
    room = open_room(sqlite_database, tmp_path, clock, [f"file:{tmp_path}/gone/anchor", "http://127.0.0.1:9"])
    fill(room, 3)
    assert [one["ok"] for one in room.desk.anchor()] == [False, False]
    assert len(room.desk.trouble) == 2
    answer = room.desk.verify()
    assert (answer.integrity, answer.anchored_size) == ("verified", 0)
    assert "cannot be reached" in answer.anchors[1]
    (tmp_path / "gone").mkdir()
    assert room.desk.anchor()[0]["ok"]
    assert len(room.desk.trouble) == 1


def test_nothing_is_sent_in_the_background_while_there_is_no_news(room, tmp_path):
    assert len(room.anchors.send(only_new=True)) == 1
    assert room.anchors.send(only_new=True) == []
    fill(room, 1, 10)
    assert len(room.anchors.send(only_new=True)) == 1
    assert len((tmp_path / "anchor").read_text().splitlines()) == 2


def test_the_background_sends_at_once_and_ends_when_told(room, tmp_path):
    (tmp_path / "anchor").touch()
    room.start(every_s=1000)
    room.stop()
    assert len((tmp_path / "anchor").read_text().splitlines()) == 1
    with pytest.raises(CohortError) as caught:
        fill(room, 1)
    assert caught.value.code == "AUDIT_UNAVAILABLE"


def test_an_empty_log_has_nothing_to_anchor(sqlite_database, tmp_path, clock):
    room = open_room(sqlite_database, tmp_path, clock, [f"file:{tmp_path}/anchor"])
    assert room.desk.anchor() == []


@pytest.mark.parametrize("pin", [True, False])
def test_a_witness_cosigns_what_continues(room, sqlite_database, tmp_path, clock, witness, pin):
    room = witnessed(sqlite_database, tmp_path, clock, witness, pin)
    for size in (10, 40, 300):
        fill(room, size - room.desk.size())
        assert room.desk.anchor()[0]["detail"] == "cosigned"
    receipt = room.desk.search(AuditQuery(kind="checkpoint"))[0].body["body"]["receipt"]
    note = parse_note(receipt)
    assert parse_vkey(witness.witness.vkey).verify(note.text, note.signatures[-1])
    answer = room.desk.verify()
    assert (answer.integrity, answer.anchored_size) == ("verified", 300)


def test_a_witness_remembers_across_restarts_and_a_client_catches_up(room, sqlite_database, tmp_path, clock):
    with served(tmp_path / "witness", room.desk.vkey, clock) as server:
        port = server.server_address[1]
        assert witnessed(sqlite_database, tmp_path, clock, server).desk.anchor()[0]["ok"]
    with served(tmp_path / "witness", room.desk.vkey, clock, port) as server:
        fill(room, 20, 10)
        assert witnessed(sqlite_database, tmp_path, clock, server).desk.anchor()[0]["ok"]
        assert server.witness.checkpoint("0" * 64).status == 404


def test_a_witness_does_not_sign_for_a_log_it_does_not_know(sqlite_database, tmp_path, clock):
    room = open_room(sqlite_database, tmp_path, clock)
    fill(room, 3)
    stranger = open_witness(tmp_path / "other", "x", [], clock, secrets.token_bytes).vkey
    with served(tmp_path / "witness", stranger.replace("x+", "x+", 1), clock) as server:
        result = witnessed(sqlite_database, tmp_path, clock, server).desk.anchor()[0]
    assert not result["ok"]
    assert "does not know this log" in result["detail"]


def test_somebody_in_the_witness_s_place_is_not_believed(room, sqlite_database, tmp_path, clock, witness):
    with served(tmp_path / "impostor", room.desk.vkey, clock) as impostor:
        anchor = f"{url_of(impostor)}#{witness.witness.vkey}"
        result = open_room(sqlite_database, tmp_path, clock, [anchor]).desk.anchor()[0]
    assert not result["ok"]
    assert "did not sign with its key" in result["detail"]


def test_a_log_that_was_changed_and_signed_again_is_refused_by_the_witness_and_sealed(room, sqlite_database, tmp_path, clock, witness):
    room = witnessed(sqlite_database, tmp_path, clock, witness)
    assert room.desk.anchor()[0]["ok"]
    change(
        sqlite_database, *[(f"DELETE FROM {table}", []) for table in ("audit_entries", "audit_nodes", "audit_checkpoints", "audit_anchors")]
    )
    forged = witnessed(sqlite_database, tmp_path, clock, witness)
    fill(forged, 30, 100)
    assert not forged.desk.anchor()[0]["ok"]
    assert forged.log.trouble.code == "AUDIT_BROKEN"
    assert forged.desk.verify().integrity == "broken"


def body(old, proof, note):
    return f"old {old}\n" + "".join(f"{line}\n" for line in proof) + f"\n{note}"


def test_the_witness_answers_as_the_specification_says(room, sqlite_database, tmp_path, witness, clock):
    ask = witness.witness.add_checkpoint
    ten = room.desk.checkpoint()
    fill(room, 10, 10)
    twenty = room.desk.checkpoint()
    with sqlite_database.read() as connection:
        path = [base64.b64encode(one).decode() for one in Rows(connection).tree().consistency(10, 20)]
    other = room.desk.vkey
    assert ask("nonsense").status == 400
    assert ask(body("01", [], ten)).status == 400
    assert ask(body(0, ["AAAA"], ten)).status == 400
    assert ask(body(0, [], ten.replace(ORIGIN, "unknown.example"))).status == 404
    assert ask(body(0, [], ten.replace("\n10\n", "\n11\n"))).status == 403
    assert ask(body(0, [], re.sub("— .*\n", "— a AAAAAAAAAAAA\n", ten))).status == 403
    assert ask(body(11, [], ten)).status == 400
    answer = ask(body(3, [], ten))
    assert (answer.status, answer.body, answer.kind) == (409, "0\n", "text/x.tlog.size")
    assert ask(body(0, path, ten)).status == 422
    assert ask(body(0, [], ten)).status == 200
    assert ask(body(10, [], ten)).status == 200
    assert ask(body(10, path[:-1], twenty)).status == 422
    assert ask(body(0, [], twenty)).body == "10\n"
    assert ask(body(10, path, twenty)).status == 200
    assert ask(body(10, path, twenty)).body == "20\n"
    assert parse_vkey(other).name == ORIGIN


def test_the_witness_refuses_a_request_without_bounds(witness):
    with socket.create_connection(("127.0.0.1", witness.server_address[1])) as channel:
        channel.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
        assert channel.recv(100).startswith(b"HTTP/1.0 413")


@pytest.mark.parametrize("path", ["/", "/vkey/x", "/add-checkpoint", f"/{'0' * 64}/checkpoint"])
def test_the_witness_has_nothing_else(witness, path):
    anchor = WitnessAnchor("w", url_of(witness), ORIGIN, None)
    assert anchor._ask("GET", path, None)[0] == 404


def test_the_witness_runs_by_itself_and_ends_when_told(room, tmp_path, sqlite_database, clock):
    command = [sys.executable, "-m", "cohort.kernel.audit.witness", "--listen", "127.0.0.1:0", "--state", str(tmp_path / "w")]
    with subprocess.Popen([*command, "--log", room.desk.vkey], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            address, key = re.fullmatch(r"listening on (\S+), key (\S+)\n", process.stdout.readline()).groups()
            assert open_room(sqlite_database, tmp_path, clock, [f"http://{address}#{key}"]).desk.anchor()[0]["ok"]
        finally:
            process.terminate()
        assert process.wait(10) == 0


def test_the_system_s_log_gets_one_message_with_the_whole_checkpoint(sqlite_database, tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)
        room = open_room(sqlite_database, tmp_path, ManualClock(), [f"syslog://127.0.0.1:{listener.getsockname()[1]}"])
        fill(room, 2)
        assert room.desk.anchor()[0]["ok"]
        message = listener.recv(65536).decode()
    assert re.match(r"<109>1 2023-11-14T22:13:20\.000000Z \S+ cohort \d+ checkpoint - test\.example/audit \| 2 \| ", message)
    answer = room.desk.verify()
    assert answer.anchored_size == 0
    assert answer.anchors[0].endswith("cannot be asked")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file:relative",
        "ftp://host",
        "http://",
        "http://user@host",
        "http://host:port",
        "syslog:host",
        "http://h#x",
        "file:/" + "x" * 200,
    ],
)
def test_an_anchor_that_is_none_is_a_wrong_setting(text, clock):
    with pytest.raises(CohortError) as caught:
        parse_anchor(text, ORIGIN, clock, "host", None)
    assert (caught.value.code, caught.value.field) == ("CONFIG_INVALID", "kernel.anchors")


@pytest.mark.parametrize("text", ["file:/a/b", "http://h:1", "https://h", "syslog:", "syslog", "syslog://h:1", "syslog://h"])
def test_the_known_kinds_of_anchors(text, clock):
    assert parse_anchor(text, ORIGIN, clock, "host", None).name.startswith(text.split(":")[0])


def test_anchoring_in_the_background_ends_when_told(room, sqlite_database, tmp_path, clock):
    room = open_room(sqlite_database, tmp_path, clock, [f"file:{tmp_path}/elsewhere"])
    room.anchors.start(3600)
    room.anchors.stop()
    assert not room.anchors._thread.is_alive()
    assert (tmp_path / "elsewhere").exists(), "what was new at the start was sent"
