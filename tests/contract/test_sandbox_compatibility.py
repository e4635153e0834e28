"""What has to work inside: the tools an agent uses, in the full profile (spec/kernel.md 5.2.9), cold and warm."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from cohort.kernel.model import Command, Place
from cohort.kernel.ports import Sandbox
from cohort.kernel.sandbox.spawner import Spawner
from support_sandbox import BACKENDS, LIMITS, missing_package, need, parts, place, put

PYTHON = "/usr/bin/python3"

THREADS = """
import threading
found = []
threads = [threading.Thread(target=found.append, args=(n,)) for n in range(8)]
[one.start() for one in threads]; [one.join() for one in threads]
print(sorted(found))
"""
POOL = """
import multiprocessing
def square(n): return n * n
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        print(pool.map(square, range(5)))
"""
SHARED = """
import multiprocessing.shared_memory
made = multiprocessing.shared_memory.SharedMemory(create=True, size=100)
made.buf[0] = 7; print(made.buf[0]); made.close(); made.unlink()
"""
ASYNC = """
import asyncio
async def main():
    process = await asyncio.create_subprocess_exec("echo", "hello", stdout=asyncio.subprocess.PIPE)
    print((await process.communicate())[0].decode().strip())
asyncio.run(main())
"""
SQLITE = """
import sqlite3
made = sqlite3.connect("x.db")
print(made.execute("PRAGMA journal_mode=WAL").fetchone()[0])
made.execute("CREATE TABLE t (n)"); made.execute("INSERT INTO t VALUES (5)"); made.commit()
print(sqlite3.connect("x.db").execute("SELECT n FROM t").fetchone()[0])
"""
LOOPBACK = """
import http.server, threading, urllib.request
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen(f"http://localhost:{server.server_port}/", timeout=5).status)
"""
TLS = "import ssl; print(ssl.create_default_context().verify_mode.name)"
NAMES = """
import os, pwd, grp, socket, tempfile
print(pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name, socket.gethostbyname("localhost"), os.path.expanduser("~"))
with tempfile.NamedTemporaryFile() as file: print(file.name.startswith("/tmp/"))
"""
TERMINAL = """
import os, pty
pid, fd = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", "test -t 0 && echo terminal"])
print(os.read(fd, 100).decode().strip()); os.waitpid(pid, 0)
"""
PROGRAMS = [
    ("threads", THREADS, "[0, 1, 2, 3, 4, 5, 6, 7]"),
    ("a pool of processes", POOL, "[0, 1, 4, 9, 16]"),
    ("shared memory", SHARED, "7"),
    ("a subprocess of asyncio", ASYNC, "hello"),
    ("SQLite with a write-ahead log", SQLITE, "wal\n5"),
    ("a server on loopback", LOOPBACK, "200"),
    ("a TLS context", TLS, "CERT_REQUIRED"),
    ("names of users, groups, hosts and folders", NAMES, "agent agent 127.0.0.1 /workspace\nTrue"),
    ("a pseudo-terminal", TERMINAL, "terminal"),
]


@pytest.fixture(scope="module", params=["bubblewrap, cold", "bubblewrap, warm"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    need(request.param)
    spawner = Spawner()
    yield BACKENDS[request.param](parts(spawner))
    spawner.close()


@pytest.fixture
def here(sandbox: Sandbox) -> Iterator[Place]:
    with place() as made:
        yield made
        sandbox.close(made)


@pytest.mark.parametrize(("program", "wanted"), [row[1:] for row in PROGRAMS], ids=[row[0] for row in PROGRAMS])
def test_python_works(sandbox: Sandbox, here: Place, program: str, wanted: str) -> None:
    put(here, "program.py", program)
    done = sandbox.run(here, LIMITS, Command((PYTHON, "program.py")))
    assert (done.stdout.decode().strip(), done.exit_code) == (wanted, 0), done.stderr.decode()


def script(sandbox: Sandbox, here: Place, program: str, text: str) -> str:
    if not os.path.exists(f"/usr/bin/{program}"):
        missing_package(f"{program} is not installed")
    done = sandbox.run(here, LIMITS, Command(("sh", "-ec", text)))
    assert done.exit_code == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def test_git_works(sandbox: Sandbox, here: Place) -> None:
    text = "git init -q .; git config user.email a@b; git config user.name a; echo 1 > f; git add f; git commit -qm one; git log --format=%s; git status -s"
    assert script(sandbox, here, "git", text) == "one"


def test_a_compiler_works(sandbox: Sandbox, here: Place) -> None:
    put(here, "x.c", '#include <stdio.h>\nint main(void) { puts("compiled"); return 0; }\n')
    assert script(sandbox, here, "gcc", "gcc -O1 -o x x.c && ./x") == "compiled"


def test_a_virtual_environment_works(sandbox: Sandbox, here: Place) -> None:
    text = "/usr/bin/python3 -m venv --without-pip env && env/bin/python -c 'import sys; print(sys.prefix)'"
    assert script(sandbox, here, "python3", text) == "/workspace/env"


def test_perl_works(sandbox: Sandbox, here: Place) -> None:
    assert script(sandbox, here, "perl", "perl -e 'print 6*7'") == "42"


def test_node_works(sandbox: Sandbox, here: Place) -> None:
    if not os.path.exists("/usr/bin/node"):
        pytest.skip("node is not installed")
    assert script(sandbox, here, "node", "node -e 'console.log(6*7)'") == "42"
