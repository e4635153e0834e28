"""Attacks on files: reading what is not the agent's, writing where it may not."""

from __future__ import annotations

from cohort.kernel.sandbox.attacks_row import FILES_UP, LIMITS_UP, NAMESPACED, Attack, Oracle

HOME_SECRET = Attack(
    "home-secret",
    "read a private key of the user who runs Cohort",
    "home directories are not in the mount namespace; Landlock names no path there",
    "got(read(told['home_secret']))",
    Oracle.SECRET,
    FILES_UP,
)
SHADOW_FILE = Attack(
    "shadow-file",
    "read a file only root may read",
    "a private uid, never 0; the file is not in the mount namespace",
    "got(read(told['shadow']))",
    Oracle.SECRET,
    FILES_UP,
    as_root=True,
)
TENANT_LISTING = Attack(
    "tenant-listing",
    "list the workspaces of other agents and read one",
    "only the agent's own workspace is mounted",
    """
for name in os.listdir(told['tenants']):
    got(name)
    got(read(os.path.join(told['tenants'], name, 'plan')))
""",
    Oracle.SECRET,
    FILES_UP,
)
WRITE_USR = Attack(
    "write-usr",
    "write below /usr, into a directory whose permissions allow it",
    "/usr is mounted read-only; Landlock allows only reading there",
    "open(os.path.join(told['usr'], told['token']), 'w').write('x')",
    Oracle.STATE,
    FILES_UP,
)
DOTDOT = Attack(
    "dotdot",
    "climb out of the workspace with ..",
    "above the workspace there is only the sandbox's own root",
    """
for depth in range(1, 12):
    try:
        got(read('../' * depth + told['home_secret'].lstrip('/')))
    except OSError:
        pass
""",
    Oracle.SECRET,
    FILES_UP,
)
SYMLINK = Attack(
    "symlink",
    "read and overwrite through a symbolic link in the workspace",
    "the link is followed in the sandbox's own tree, where its target does not exist",
    """
os.symlink(told['home_secret'], 'link-' + told['token'])
got(read('link-' + told['token']))
""",
    Oracle.SECRET,
    FILES_UP,
)
HARD_LINK = Attack(
    "hard-link",
    "make a second name for a file outside, inside the workspace",
    "the file cannot be named, and a link cannot cross a mount",
    "os.link(told['home_secret'], 'hard-' + told['token'])",
    Oracle.STATE,
    FILES_UP,
)
PROC_ROOT = Attack(
    "proc-root",
    "look at the host's files through /proc/PID/root and /proc/PID/cwd",
    "a pid namespace: no process outside has a number inside",
    """
for pid in [str(told['victim']), *[name for name in os.listdir('/proc') if name.isdigit()]]:
    for way in ('root', 'cwd'):
        try:
            got(read(f"/proc/{pid}/{way}/" + told['home_secret'].lstrip('/')))
        except OSError:
            pass
""",
    Oracle.SECRET,
    FILES_UP,
)
ENVIRON = Attack(
    "environ",
    "find secrets in its environment, its parents' and everybody's",
    "an empty environment for bubblewrap itself, four variables for the command",
    """
got(dict(os.environ))
for name in os.listdir('/proc'):
    if name.isdigit():
        try:
            if told['environ_mark'] in (found := read(f"/proc/{name}/environ", 1 << 20)):
                got(found[found.index(told['environ_mark']):])
        except OSError:
            pass
""",
    Oracle.SECRET,
    FILES_UP,
)
DESCRIPTORS = Attack(
    "descriptors",
    "read from descriptors that were open when it was started",
    "every descriptor but three is closed before the command",
    """
for number in range(3, 256):
    try:
        got(os.pread(number, 4096, 0).decode(errors='replace'))
    except OSError:
        pass
""",
    Oracle.SECRET,
    LIMITS_UP,
)
KERNEL_KNOBS = Attack(
    "kernel-knobs",
    "open kernel settings for writing",
    "/proc is read-only, and the uid is not 0 outside either",
    """
for path in ('/proc/sys/kernel/core_pattern', '/proc/sys/vm/overcommit_memory', '/proc/sys/kernel/modprobe', '/proc/sysrq-trigger',
             '/sys/kernel/uevent_helper', '/sys/kernel/mm/ksm/run'):
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
SETUID = Attack(
    "setuid",
    "become root with a set-uid program",
    "no new privileges, mounts without set-uid, a user namespace where root is nobody",
    """
import subprocess
got(subprocess.run([told['setuid_program'], '-u'], capture_output=True, text=True, timeout=3).stdout.strip())
""",
    Oracle.SECRET,
    FILES_UP,
)
DEVICE_NODES = Attack(
    "device-nodes",
    "make a device node in the workspace and read from the device",
    "no CAP_MKNOD, mounts without devices, the filter refuses mknod of devices",
    """
os.mknod('device-' + told['token'], 0o600 | stat.S_IFCHR, os.makedev(1, 5))
with open('device-' + told['token'], 'rb', buffering=0) as device:
    got('read ' + device.read(4).hex())
""",
    Oracle.REPORT,
    FILES_UP,
    as_root=True,
)
HANDLE = Attack(
    "open-by-handle",
    "open a file outside by its file handle, without a path",
    "no CAP_DAC_READ_SEARCH; the filter refuses the call",
    """
kind, handle = told['handle']
data = bytes.fromhex(handle)
record = ctypes.create_string_buffer(struct.pack('Ii', len(data), kind) + data)
mount = os.open('.', os.O_RDONLY)
descriptor, _ = call('open_by_handle_at', mount, record, os.O_RDONLY)
if descriptor >= 0:
    got(os.read(descriptor, 4096).decode())
""",
    Oracle.SECRET,
    FILES_UP,
    as_root=True,
)
MEMFD_EXEC = Attack(
    "memfd-exec",
    "execute a program that is in memory and never was in a file",
    "the filter allows memory files only sealed against execution",
    """
program = open('/usr/bin/echo', 'rb').read()
for flags in (0, 0x10, 1):
    descriptor, _ = call('memfd_create', ctypes.c_char_p(b'x'), flags)
    if descriptor >= 0:
        os.write(descriptor, program)
        child = os.fork()
        if child == 0:
            os.execve(f'/proc/self/fd/{descriptor}', ['echo', 'GOT ' + told['token']], {})
        os.waitpid(child, 0)
""",
    Oracle.REPORT,
    FILES_UP,
)
MOUNTINFO = Attack(
    "mountinfo",
    "learn names of other agents and their workspaces from the list of mounts",
    "a mount namespace with nothing of others; opaque names of workspaces",
    "got(''.join(line for line in open('/proc/self/mountinfo') if told['tenant_mark'] in line))",
    Oracle.SECRET,
    NAMESPACED,
)
PROTECTED_NAME = Attack(
    "protected-name",
    "plant a hook in .git/hooks of its own workspace, which somebody else will run",
    "protected names are mounted read-only, and a directory with a mount in it cannot be moved",
    """
def plant(folder):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, 'pre-commit'), 'w') as file:
        file.write(told['token'])
try:
    plant('.git/hooks')
except OSError:
    os.rename('.git', 'moved-' + told['token'])
    plant('.git/hooks')
""",
    Oracle.STATE,
    NAMESPACED,
)

SET_ID_FILE = Attack(
    "set-id-file",
    "leave a set-uid program in its workspace, by which others would run with its owner's rights",
    "the filter refuses modes with set-uid and set-gid bits",
    """
name = 'set-id-' + told['token']
def tries():
    yield lambda: os.chmod(name, 0o4755)
    yield lambda: os.chmod(name, 0o2755)
    yield lambda: os.close(os.open(name + '-o', os.O_CREAT | os.O_WRONLY, 0o4755))
    yield lambda: os.mknod(name + '-m', 0o4755 | stat.S_IFREG)
    yield lambda: os.fchmod(os.open(name, os.O_RDONLY), 0o4755)
open(name, 'w').close()
for one in tries():
    try:
        one()
    except OSError:
        pass
record = struct.pack('QQQ', os.O_CREAT | os.O_WRONLY, 0o4755, 0)
call(437, -100, ctypes.c_char_p((name + '-2').encode()), ctypes.c_char_p(record), len(record))
""",
    Oracle.STATE,
    FILES_UP,
)

ROWS = (
    HOME_SECRET,
    SHADOW_FILE,
    TENANT_LISTING,
    WRITE_USR,
    DOTDOT,
    SYMLINK,
    HARD_LINK,
    PROC_ROOT,
    ENVIRON,
    DESCRIPTORS,
    KERNEL_KNOBS,
    SETUID,
    DEVICE_NODES,
    HANDLE,
    MEMFD_EXEC,
    MOUNTINFO,
)
DATA_KEYS = Attack(
    "data-directory-keys",
    "read the keys in the data directory of the Cohort that runs it, as the same user",
    "the data directory is not in the mount namespace; Landlock names no path there",
    """
for name in os.listdir(told['data_secrets']):
    got(read(os.path.join(told['data_secrets'], name)))
""",
    Oracle.SECRET,
    FILES_UP,
)
AUDIT_FILE = Attack(
    "audit-log-file",
    "write into the file of the audit log, as the same user",
    "the data directory is not in the mount namespace; Landlock names no path there",
    """
with open(told['audit_log'], 'r+b') as log:
    log.write(told['token'].encode())
""",
    Oracle.STATE,
    FILES_UP,
)
ADDED = (PROTECTED_NAME, SET_ID_FILE, DATA_KEYS, AUDIT_FILE)
