"""Attacks that use things up. Each has a ceiling, and writes only to a file system that is small enough or of which it was told."""

from __future__ import annotations

from cohort.kernel.sandbox.attacks_row import FILES_UP, FULL_ONLY, LIMITS_UP, SOFTLY, Attack, Oracle

_FILL = """
def fill(folder, ceiling, known):
    '''Bytes written into `folder` before it was full, `ceiling` at most. On a large file system of which nobody told us that it is ours
    to fill, nothing is written: that it can be written to and is that large is the answer.'''
    path, written = os.path.join(folder, 'fill-' + told['token']), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        about = os.fstatvfs(descriptor)
        size = about.f_blocks * about.f_frsize
        if size > ceiling and os.fstat(descriptor).st_dev not in known:
            return size
        while written < ceiling:
            written += os.write(descriptor, bytes(1 << 18))
    except OSError:
        pass
    finally:
        os.close(descriptor)
        os.unlink(path)
    return written
"""

FORK_BOMB = Attack(
    "fork-bomb",
    "start more processes than it may, up to a ceiling",
    "RLIMIT_NPROC, set inside the user namespace, and the cgroup's pids; without one it counts all processes of the uid",
    """
held, children = os.pipe(), []
try:
    for _ in range(told['forks']):
        child = os.fork()
        if child == 0:
            os.close(held[1])
            os.read(held[0], 1)
            os._exit(0)
        children.append(child)
except OSError:
    pass
got(len(children))
os.close(held[1])
for child in children:
    os.waitpid(child, 0)
""",
    Oracle.REPORT,
    LIMITS_UP,
    alone=True,
)
MEMORY_BOMB = Attack(
    "memory-bomb",
    "use more memory than it may, in several processes, up to a ceiling",
    "the cgroup; without one, a watchdog that may be too late",
    """
parts, step = 4, 1 << 20
ready, go = os.pipe(), os.pipe()
def eat():
    os.close(go[1])
    kept = [bytearray(os.urandom(64)) * (step // 64) for _ in range(told['memory_bytes'] // parts // step)]
    os.close(ready[1])
    os.read(go[0], 1)
    with open(f"eaten-{told['token']}-{os.getpid()}", 'w') as file:
        file.write(str(len(kept) * step))
    os._exit(0)
children = []
for _ in range(parts):
    child = os.fork()
    if child == 0:
        eat()
    children.append(child)
os.close(ready[1])
os.read(ready[0], 1)  # until each of them has all of its part, or is gone
os.close(go[1])
for child in children:
    os.waitpid(child, 0)
""",
    Oracle.STATE,
    FULL_ONLY,
    alone=True,
    soft_at=SOFTLY,
)
WORKSPACE_FILL = Attack(
    "workspace-fill",
    "write more into its workspace than it may, in many files",
    "a file system of its own for each workspace",
    """
written = 0
try:
    for number in range(told['workspace_bytes'] >> 20):
        with open(f"full-{told['token']}-{number}", 'wb', buffering=0) as file:
            written += file.write(bytes(1 << 20))
except OSError:
    pass
got(written)
""",
    Oracle.STATE,
    FULL_ONLY,
    alone=True,
)
TMP_FILL = Attack(
    "tmp-fill",
    "fill /tmp",
    "a sized file system of its own; without one, it cannot be written to",
    _FILL + "got(fill(told['tmp'], told['tmp_bytes'], told['ours']))",
    Oracle.REPORT,
    FILES_UP,
    alone=True,
)
DEV_FILL = Attack(
    "dev-fill",
    "fill /dev and /dev/shm",
    "/dev is read-only, /dev/shm a sized file system of its own; without one, neither can be written to",
    _FILL
    + """
for folder in told['dev']:
    try:
        got(fill(folder, told['tmp_bytes'], told['ours']))
    except OSError:
        pass
""",
    Oracle.REPORT,
    FILES_UP,
    alone=True,
)
INODE_FLOOD = Attack(
    "inode-flood",
    "make more files in its workspace than it may",
    "a file system of its own for each workspace, with so many inodes",
    """
made = 0
os.mkdir('flood-' + told['token'])
try:
    for number in range(told['files']):
        os.close(os.open(f"flood-{told['token']}/{number}", os.O_CREAT | os.O_WRONLY, 0o600))
        made += 1
except OSError:
    pass
got(made)
""",
    Oracle.STATE,
    FULL_ONLY,
    alone=True,
)

ROWS = (FORK_BOMB, MEMORY_BOMB, WORKSPACE_FILL, TMP_FILL, DEV_FILL, INODE_FLOOD)
