"""Servers on this machine's loopback address, a proxy for them, and a network namespace to look out of."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

WAIT_S = 10


@dataclass
class Served:
    """A server that notes what it received and answers with `reply`. `port`: where."""

    port: int
    received: list[bytes] = field(default_factory=list)


@contextlib.contextmanager
def serving(handle: Callable[[socket.socket, Served], None]) -> Iterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0))
    served = Served(listener.getsockname()[1])
    threads: list[threading.Thread] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(WAIT_S)
                threads.append(threading.Thread(target=_one, args=(handle, connection, served)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield served
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in [acceptor, *threads]:
            thread.join(WAIT_S)


def _one(handle: Callable[[socket.socket, Served], None], connection: socket.socket, served: Served) -> None:
    with connection, contextlib.suppress(OSError):
        handle(connection, served)


def answering(reply: bytes) -> Callable[[socket.socket, Served], None]:
    """Read one head (and whatever came with it), answer, close."""

    def handle(connection: socket.socket, served: Served) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                break
            data += more
        served.received.append(data)
        connection.sendall(reply)

    return handle


def tls_echo(folder: Path) -> Callable[[socket.socket, Served], None]:
    """TLS with a certificate for localhost; sends back what it gets until the client ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(folder))

    def handle(connection: socket.socket, served: Served) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            while data := secure.recv(65536):
                served.received.append(data)
                secure.sendall(data)

    return handle


def certificate(folder: Path) -> Path:
    """A self-signed one for localhost, with its key, in one file."""
    path = folder / "localhost.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def ask(port: int, request: bytes) -> bytes:
    """Everything the proxy answers to one request, until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as client:
        client.sendall(request)
        answer = b""
        while more := client.recv(65536):
            answer += more
    return answer


@contextlib.contextmanager
def tunnel(port: int, target: str) -> Iterator[socket.socket]:
    """A connection after the proxy has said yes to CONNECT."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as client:
        client.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            more = client.recv(1)
            if not more:
                break
            answer += more
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        yield client


_LOOPBACK = """
import fcntl, socket, struct, sys
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, struct.pack("16sH14x", b"lo", 1))
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def own_network() -> Iterator[int | None]:
    """The pid of a process in a user and network namespace of its own; None when this machine does not allow them."""
    process = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-I", "-S", "-c", _LOOPBACK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.pid if process.stdout.readline() == b"ready\n" else None
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(WAIT_S)
