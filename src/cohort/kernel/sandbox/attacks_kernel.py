"""Attacks on the kernel's own doors: mounts, namespaces, keys, rare calls, foreign ways of calling."""

from __future__ import annotations

from cohort.kernel.sandbox.attacks_row import FILES_UP, Attack, Oracle

MOUNT = Attack(
    "mount",
    "mount a file system over its workspace",
    "no capability, no new user namespace, the filter refuses the call",
    """
os.makedirs('mnt-' + told['token'], exist_ok=True)
if libc.mount(b'none', ('mnt-' + told['token']).encode(), b'tmpfs', 0, b'size=4096') == 0:
    got('mounted')
""",
    Oracle.REPORT,
    FILES_UP,
    as_root=True,
)
REMOUNT = Attack(
    "remount",
    "make a read-only mount writable again",
    "no capability; the filter refuses the call",
    """
MS_REMOUNT, MS_BIND = 32, 4096
for path in told['remount']:
    if libc.mount(None, path.encode(), None, MS_REMOUNT | MS_BIND, None) == 0:
        got(path)
""",
    Oracle.REPORT,
    FILES_UP,
    as_root=True,
)
NESTED = Attack(
    "nested-namespaces",
    "become root of a new user namespace, by unshare, clone or clone3",
    "no user namespaces inside; the filter refuses unshare and the flags of clone, clone3 does not exist",
    """
NEWUSER, SIGCHLD = 0x10000000, 17
if call('unshare', NEWUSER)[0] == 0:
    got('unshare')
child, _ = call('clone', NEWUSER | SIGCHLD, 0, 0, 0, 0)
if child == 0:
    os._exit(0)
if child > 0:
    got('clone')
record = ctypes.create_string_buffer(struct.pack('8Q', NEWUSER, 0, 0, 0, SIGCHLD, 0, 0, 0))
child, _ = call('clone3', record, 64)
if child == 0:
    os._exit(0)
if child > 0:
    got('clone3')
""",
    Oracle.REPORT,
    FILES_UP,
)
KEYRING = Attack(
    "keyring",
    "keep a secret in the kernel's key ring, beyond the sandbox's life",
    "the filter refuses the calls; keys know no namespace but the user's",
    """
SESSION = -3
key, _ = call('add_key', ctypes.c_char_p(b'user'), ctypes.c_char_p(told['token'].encode()), ctypes.c_char_p(b'x'), 1, SESSION)
if key > 0:
    got(f'key {key}')
""",
    Oracle.REPORT,
    FILES_UP,
)
TERMINAL = Attack(
    "tiocsti",
    "type into a terminal by TIOCSTI",
    "the filter refuses the request; a session of its own without the caller's terminal",
    """
import fcntl, pty, termios
ours, theirs = pty.openpty()
fcntl.ioctl(theirs, 0x5412, b'x')
fcntl.ioctl(theirs, 0x5412, b'\\n')
import select
if select.select([theirs], [], [], 1)[0]:
    got('typed ' + os.read(theirs, 10).decode())
""",
    Oracle.REPORT,
    FILES_UP,
    as_root=True,
)
RISKY = Attack(
    "risky-syscalls",
    "reach 15 system calls with a history of holes",
    "the filter refuses them before the kernel looks at their arguments",
    """
CALLS = ('bpf', 'perf_event_open', 'userfaultfd', 'io_uring_setup', 'open_tree', 'fsopen', 'fspick', 'name_to_handle_at', 'kcmp', 'quotactl',
         'swapon', 'init_module', 'delete_module', 'kexec_load', 'pivot_root')
for name in CALLS:
    result, error = call(name, -1, -1, -1, -1, -1, -1)
    if result >= 0 or error not in (errno.EPERM, errno.ENOSYS, errno.EACCES):
        got(f'{name}: {errno.errorcode.get(error, result)}')
""",
    Oracle.REPORT,
    FILES_UP,
)
INT_80 = Attack(
    "int-0x80",
    "call the kernel by its 32-bit door, whose numbers a filter may not know",
    "the filter kills what comes through another architecture's door",
    """
import mmap
area = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
area.write(bytes.fromhex('53' 'b814000000' 'cd80' '5b' 'c3'))
address = ctypes.addressof(ctypes.c_char.from_buffer(area))
if MACHINE == 'x86_64' and ctypes.CFUNCTYPE(ctypes.c_int)(address)() == os.getpid():
    got('getpid')
""",
    Oracle.REPORT,
    FILES_UP,
)
X32 = Attack(
    "x32",
    "call the kernel by x32 numbers, which a filter may not know",
    "the filter answers that they do not exist",
    """
if MACHINE == 'x86_64' and call(0x40000000 | 39)[0] == os.getpid():
    got('getpid')
""",
    Oracle.REPORT,
    FILES_UP,
)
RELEASE_AGENT = Attack(
    "release-agent",
    "have root run a program by a cgroup's release_agent",
    "no control groups are mounted, and none can be",
    """
import glob
for path in [*glob.glob('/sys/fs/cgroup/*/release_agent'), *glob.glob('/sys/fs/cgroup/cgroup.procs'), *glob.glob('/sys/fs/cgroup/*/cgroup.procs')]:
    try:
        os.close(os.open(path, os.O_WRONLY))
        got(path)
    except OSError:
        pass
""",
    Oracle.REPORT,
    FILES_UP,
    as_root=True,
)
HOSTNAME = Attack(
    "hostname-reboot",
    "rename the machine; reach the call that restarts it (with arguments that it refuses)",
    "no capability, a name of its own; the filter refuses both calls",
    """
if libc.sethostname(told['token'].encode(), len(told['token'])) == 0:
    got('named')
if call('reboot', 0, 0, 0, 0)[1] == errno.EINVAL:
    got('reboot reached')
""",
    Oracle.REPORT,
    FILES_UP,
    as_root=True,
)

ROWS = (MOUNT, REMOUNT, NESTED, KEYRING, TERMINAL, RISKY, INT_80, X32, RELEASE_AGENT, HOSTNAME)
