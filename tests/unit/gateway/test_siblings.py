"""Pages of several workers as one, and workers that answer with anything else."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from cohort.gateway.siblings import Siblings, merged

OWN = b'# HELP a_total A.\n# TYPE a_total counter\na_total{worker="1"} 1\n# HELP b B.\n# TYPE b gauge\n'
OTHER = b'# HELP b B.\n# TYPE b gauge\nb{worker="2"} 3\n# HELP a_total A.\n# TYPE a_total counter\na_total{worker="2"} 2\n'


def test_each_family_stands_once_with_the_samples_of_all_behind_its_head() -> None:
    assert merged([OWN, OTHER]) == (
        b'# HELP a_total A.\n# TYPE a_total counter\na_total{worker="1"} 1\na_total{worker="2"} 2\n# HELP b B.\n# TYPE b gauge\nb{worker="2"} 3\n'
    )


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(OTHER) + OTHER, 0),
        (b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(OTHER) + 1) + OTHER, 1),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}", 1),
        (b"", 1),
        (None, 1),
    ],
)
def test_what_is_not_a_whole_page_is_left_out_and_counted(answer: bytes | None, counted: int) -> None:
    """None: a worker that is stopped takes the connection, and says nothing."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    async def ask(path: Path) -> bytes:
        async with await asyncio.start_unix_server(serve, str(path)):
            return await Siblings([path], b"Bearer tok", 0.2 if answer is None else 10.0).with_own(OWN)

    with tempfile.TemporaryDirectory(prefix="gw") as short:
        page = asyncio.run(ask(Path(short) / "s"))
        nobody = asyncio.run(Siblings([Path(short) / "none"], b"Bearer tok").with_own(OWN))
    assert page.endswith(b"\ncohort_gateway_workers_missing %d\n" % counted)
    assert (b'worker="2"' in page) == (counted == 0)
    assert nobody.endswith(b"\ncohort_gateway_workers_missing 1\n")
    assert b"\r\nauthorization: Bearer tok\r\n" in asked[0]
