"""Questions posted to a real HTTP server, and signed replies: forged, stale, repeated and reflected ones."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cohort.base.errors import CohortError, Retry
from cohort.base.settings_kernel import WebhookSettings
from cohort.kernel.approvals.limits import NOTE_CHARS_MAX
from cohort.kernel.approvals.signatures import TOLERANCE_S, Secret, check, signed
from cohort.kernel.approvals.webhook import BACKOFF_S, REPLY_BYTES_MAX, ApprovalWebhook
from cohort.kernel.approvals.webhook_http import Address, is_public, post
from cohort.kernel.model import ApprovalState
from support_approvals import POLICY, MemoryAudit, action, desk, question, writing

SECRET_TEXT = "whsec_" + base64.b64encode(b"k" * 32).decode()
SECRET = Secret.parse(SECRET_TEXT)


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent, and answers with `status`."""

    daemon_threads = True

    def __init__(self):
        self.status = 204
        self.received = []
        self.arrived = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request, client_address):
        """A client that goes away, because it does not trust this server."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.send_header("location", "http://127.0.0.1:1/")
        self.send_header("content-length", "0")
        self.end_headers()
        self.server.arrived.set()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def receiver():
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def approvals(sqlite_database, clock):
    return desk(sqlite_database, clock, MemoryAudit())


@pytest.fixture
def webhook(approvals, clock, receiver):
    settings = WebhookSettings(f"http://localhost:{receiver.server_port}/hook?x=1", "env:SECRET", "chat", allow_private=True)
    return ApprovalWebhook(settings, SECRET_TEXT, approvals, clock, lambda host, port: ["127.0.0.1"])


def error_of(call, *arguments):
    with pytest.raises(CohortError) as caught:
        call(*arguments)
    return caught.value


def reply_to(asked, clock, answer="approve", *, secret=SECRET, message_id="re_1", at_s=None, **more):
    data = {"approval": asked.id, "digest": asked.digest, "answer": answer, **more}
    body = json.dumps({"type": "approval.answered", "data": data}).encode()
    return signed(secret, message_id, clock.now_us() // 1_000_000 if at_s is None else at_s, body), body


def test_the_signature_is_the_one_of_standard_webhooks():
    secret = Secret.parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signed(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_question_is_posted_signed_and_once(approvals, webhook, receiver, clock):
    asked = approvals.ask(question(action(), why="because"))
    assert webhook.step() == 1
    assert webhook.step() == 0
    [(path, headers, body)] = receiver.received
    assert path == "/hook?x=1"
    assert check(SECRET, headers, body, clock.now_us() // 1_000_000) == f"msg_{asked.id}"
    data = json.loads(body)["data"]
    assert (data["approval"], data["digest"], data["plain"], data["why"]) == (asked.id, asked.digest, asked.plain, "because")
    assert data["reply"] == "/api/v1/approvals/reply"


def test_a_receiver_whose_name_no_approver_could_have_is_refused(approvals, clock):
    settings = WebhookSettings("https://example.com/", "env:SECRET", "x" * 56)
    error = error_of(lambda: ApprovalWebhook(settings, SECRET_TEXT, approvals, clock))
    assert (error.code, error.field) == ("CONFIG_INVALID", "kernel.approval_webhook.approver")


def test_a_question_is_sent_again_with_longer_pauses_and_not_for_ever(approvals, webhook, receiver, clock):
    receiver.status = 500
    approvals.ask(question(action()))
    sent = []
    for _ in range(14 * 60 // 5):
        webhook.step()
        sent.append(len(receiver.received))
        clock.advance(5)
    assert sent[-1] == len(BACKOFF_S) + 1
    assert [sent.index(number) for number in (1, 2, 3, 4, 5)] == [0, 1, 4, 16, 52]
    assert len({headers["webhook-id"] for _, headers, _ in receiver.received}) == 1


@pytest.mark.parametrize("status", [410, 200])
def test_a_receiver_that_took_it_or_is_gone_is_left_alone(approvals, webhook, receiver, clock, status):
    receiver.status = status
    approvals.ask(question(action()))
    for _ in range(3):
        webhook.step()
        clock.advance(200)
    assert len(receiver.received) == 1


def test_a_redirect_is_not_followed(approvals, webhook, receiver):
    receiver.status = 307
    approvals.ask(question(action()))
    assert webhook.step() == 0
    assert len(receiver.received) == 1


def test_a_question_is_sent_in_the_background_as_soon_as_it_is_asked(approvals, webhook, receiver):
    approvals.listen(webhook.notify)
    webhook.start()
    approvals.ask(question(action()))
    assert receiver.arrived.wait(20)
    webhook.stop()


def test_a_receiver_that_is_away_or_silent_stops_nothing(approvals, clock):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        settings = WebhookSettings(f"http://localhost:{taken.getsockname()[1]}/", "env:SECRET", allow_private=True)
        webhook = ApprovalWebhook(settings, SECRET_TEXT, approvals, clock, lambda host, port: ["127.0.0.1"])
        approvals.ask(question(action()))
        assert webhook.step() == 0


@pytest.mark.parametrize(("answer", "state"), [("approve", ApprovalState.APPROVED), ("deny", ApprovalState.DENIED)])
def test_a_signed_reply_decides(approvals, webhook, clock, answer, state):
    asked = approvals.ask(question(action()))
    decided = webhook.reply(*reply_to(asked, clock, answer, note="ok", looked_ms=1500))
    assert (decided.state, decided.approvers, decided.note) == (state, ("webhook:chat",), "ok")
    assert (approvals.consume(action(), POLICY, None) is not None) is (answer == "approve")


def test_a_forged_stale_or_changed_reply_decides_nothing(approvals, webhook, clock):
    asked = approvals.ask(question(action()))
    now_s = clock.now_us() // 1_000_000
    headers, body = reply_to(asked, clock)
    wrong = [
        reply_to(asked, clock, secret=Secret(b"x" * 32)),
        reply_to(asked, clock, at_s=now_s - TOLERANCE_S - 1),
        reply_to(asked, clock, at_s=now_s + TOLERANCE_S + 1),
        (headers, body.replace(b"approve", b"deny")),
        ({**headers, "webhook-id": "re_2"}, body),
        ({**headers, "webhook-id": ""}, body),
        ({**headers, "webhook-id": "é"}, body),
        ({**headers, "webhook-timestamp": str(now_s + 1)}, body),
        ({**headers, "webhook-timestamp": "now"}, body),
        ({**headers, "webhook-signature": headers["webhook-signature"].replace("v1,", "v1a,")}, body),
        ({**headers, "webhook-signature": "v1,"}, body),
        ({**headers, "webhook-signature": "v1,\ud800"}, body),
        ({}, body),
    ]
    for given in wrong:
        assert error_of(webhook.reply, *given).code == "KEY_INVALID"
    assert approvals.find(asked.id) == asked
    several = {**headers, "Webhook-Signature": "v1,AAAA v2,x " + headers["webhook-signature"]}
    several.pop("webhook-signature")
    assert webhook.reply(several, body).state is ApprovalState.APPROVED


def test_our_own_question_sent_back_is_no_answer(approvals, webhook, receiver):
    asked = approvals.ask(question(action()))
    webhook.step()
    [(_, headers, body)] = receiver.received
    assert error_of(webhook.reply, headers, body).code == "DOCUMENT_INVALID"
    assert approvals.find(asked.id) == asked


def test_a_reply_counts_once_and_for_its_own_action(approvals, webhook, clock):
    asked, other = approvals.ask(question(action())), approvals.ask(question(writing("a")))
    confused = json.dumps(
        {"type": "approval.answered", "data": {"approval": other.id, "digest": asked.digest, "answer": "approve"}}
    ).encode()
    headers = signed(SECRET, "re_2", clock.now_us() // 1_000_000, confused)
    assert error_of(webhook.reply, headers, confused).code == "APPROVER_REFUSED"
    given = reply_to(asked, clock)
    webhook.reply(*given)
    assert error_of(webhook.reply, *given).code == "KEY_INVALID"
    assert error_of(webhook.reply, *reply_to(asked, clock, "deny", message_id="re_3")).code == "APPROVAL_DECIDED"


def test_a_reply_that_could_not_be_recorded_may_be_sent_again(sqlite_database, clock):
    class Away(MemoryAudit):
        def append(self, record):
            if self.away:
                raise CohortError("AUDIT_UNAVAILABLE", "the log cannot be written", retry=Retry.SAFE)
            return super().append(record)

    audit = Away()
    approvals = desk(sqlite_database, clock, audit)
    webhook = ApprovalWebhook(WebhookSettings("https://example.com/", "env:SECRET"), SECRET_TEXT, approvals, clock)
    asked = approvals.ask(question(action()))
    given = reply_to(asked, clock)
    audit.away = True
    assert error_of(webhook.reply, *given).code == "AUDIT_UNAVAILABLE"
    audit.away = False
    assert webhook.reply(*given).state is ApprovalState.APPROVED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"\xff",
        b'{"type":"approval.answered"}',
        b'{"type":"approval.answered","data":{"approval":1,"digest":"x","answer":"approve"}}',
        b'{"type":"approval.answered","data":{"approval":"ap_1","digest":"x","answer":"yes"}}',
        b'{"type":"approval.answered","data":{"approval":"ap_1","digest":"x","answer":"approve","note":5}}',
        b'{"type":"approval.answered","data":{"approval":"ap_1","digest":"x","answer":"approve","looked_ms":true}}',
        b'{"type":"approval.answered","data":{"approval":"ap_1","digest":"x","answer":"approve","note":"%s"}}'
        % (b"n" * (NOTE_CHARS_MAX + 1)),
        b" " * (REPLY_BYTES_MAX + 1),
    ],
)
def test_a_signed_body_that_is_no_answer_is_refused(webhook, clock, body):
    assert error_of(webhook.reply, signed(SECRET, "re_9", clock.now_us() // 1_000_000, body), body).code == "DOCUMENT_INVALID"


# --- where it may post ---


IPV4 = ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"]
IPV6 = ["::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1"]
WRONG = ["https://", "ftp://example.com/", "https://user:secret@example.com/", "https://example.com/#x", "x", "", "http://example.com/"]
UNREADABLE = ["https://example.com:99999/", "https://exa mple.com/", "https://example.com/\n", "https://[::1/", "https://a.b/" + "x" * 2000]


@pytest.mark.parametrize("address", [*IPV4, *IPV6])
def test_an_address_that_is_not_public_is_refused(address):
    assert is_public(address) is False
    place = Address.parse("https://example.com/", False)
    assert error_of(post, place, {}, b"", False, lambda host, port: ["93.184.216.34", address]).code == "EGRESS_REFUSED"


def test_public_addresses_are_public():
    assert is_public("93.184.216.34")
    assert is_public("2606:2800:220:1:248:1893:25c8:1946")


@pytest.mark.parametrize("url", [*WRONG, *UNREADABLE])
def test_a_url_that_cannot_be_posted_to_is_refused_without_repeating_it(url):
    error = error_of(Address.parse, url, False)
    assert (error.code, error.field) == ("CONFIG_INVALID", "kernel.approval_webhook.url")
    assert "secret" not in str(error.problem())


@pytest.mark.parametrize("text", ["short", "whsec_!!", "whsec_c2hvcnQ="])
def test_a_weak_secret_is_refused_and_none_is_shown(text):
    error = error_of(Secret.parse, text)
    assert error.code == "CONFIG_INVALID"
    assert text not in str(error.problem())
    assert "kkkk" not in repr(SECRET)


def test_a_name_without_an_address_or_a_resolver_that_fails_is_no_answer():
    place = Address.parse("https://example.com/", False)
    assert error_of(post, place, {}, b"", False, lambda host, port: []).code == "EGRESS_FAILED"

    def fails(host, port):
        raise socket.gaierror("no such name")

    assert error_of(post, place, {}, b"", False, fails).code == "EGRESS_FAILED"


def self_signed(folder, name):
    """A certificate for `name`, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = folder / f"{name}.pem"
    file.write_bytes(plain + made.public_bytes(Encoding.PEM))
    return file


@pytest.mark.parametrize(("host", "status"), [("hook.test", 204), ("other.test", None)])
def test_over_tls_the_certificate_has_to_be_the_hosts_though_its_address_is_dialled(receiver, tmp_path, monkeypatch, host, status):
    certificate = self_signed(tmp_path, "hook.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True, do_handshake_on_connect=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # where OpenSSL looks for whom to trust
    place = Address.parse(f"https://{host}:{receiver.server_port}/", True)
    if status is None:
        error = error_of(post, place, {}, b"{}", True, lambda host, port: ["127.0.0.1"])
        assert (error.code, "certificate" in error.message.lower()) == ("EGRESS_FAILED", True)
        assert receiver.received == []
    else:
        assert post(place, {}, b"{}", True, lambda host, port: ["127.0.0.1"]) == status
