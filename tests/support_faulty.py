"""The faulty upstream of the examples as a process, and what a client of a gateway before it meets."""

from __future__ import annotations

import datetime
import ipaddress
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support_gateway import GatewayProcess

PROGRAM = Path(__file__).parents[1] / "examples" / "upstreams" / "faulty.py"


@contextmanager
def faulty_upstream(*options: str) -> Iterator[str]:
    """Its base URL, while it runs."""
    process = subprocess.Popen([sys.executable, str(PROGRAM), "--port", "0", *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait(10)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and localhost that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1)).add_extension(names, critical=False)
    made = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    cert_file, key_file = folder / "certificate.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_file.write_bytes(key.private_bytes(*form))
    return cert_file, key_file


def two_routes(fault: str, base_url: str, good_url: str, **extra: Any) -> dict[str, Any]:
    """A release whose first route has a fault and whose second works."""
    routes = [
        {"name": "main", "provider": "openai", "base_url": base_url, "model": fault},
        {"name": "backup", "provider": "openai", "base_url": good_url, "model": "well"},
    ]
    return {"digest": f"rel_{fault}_2", "version": f"v-{fault}-2", "routes": routes, **extra}


def met(gateway: GatewayProcess, service: str, stream: bool) -> str:
    """What a client meets, in the words of the table in docs/reference/reliability.md."""
    status, headers, body = gateway.chat(service, stream=stream)
    if status != 200:
        return f"{status} `{json.loads(body)['error']['code']}`"
    if "x-cohort-degraded" in headers:
        assert headers["x-cohort-route"] == "backup"
        return "degraded"
    if not stream:
        assert json.loads(body)["choices"]
        return "200"
    if b"upstream_stream_interrupted" in body:
        assert b"[DONE]" not in body
        return "interrupted"
    return "200" if body.endswith(b"data: [DONE]\n\n") and b"{not" not in body else "passed on"


def table_of(page: str, first_cell: str) -> list[Sequence[str]]:
    """The rows of the table whose head begins with `first_cell`."""
    lines = iter(page.splitlines())
    for line in lines:
        if line.startswith(f"| {first_cell} |"):
            next(lines)
            break
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows
