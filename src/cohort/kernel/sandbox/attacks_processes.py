"""Attacks on other processes, and on the network."""

from __future__ import annotations

from cohort.kernel.sandbox.attacks_row import FILES_UP, LIMITS_UP, NAMESPACED, Attack, Oracle

PTRACE = Attack(
    "ptrace",
    "read another process's memory by ptrace, process_vm_readv and /proc/PID/mem",
    "a pid namespace; the filter refuses both calls",
    """
class Part(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
size = 64
buffer = ctypes.create_string_buffer(size)
local, remote = Part(ctypes.addressof(buffer), size), Part(told['victim_address'], size)
call('process_vm_readv', told['victim'], ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
got(buffer.raw.decode(errors='replace'))
PTRACE_SEIZE = 0x4206
libc.ptrace.argtypes = [ctypes.c_long] * 4
if libc.ptrace(PTRACE_SEIZE, told['victim'], 0, 0) == 0:
    with open(f"/proc/{told['victim']}/mem", 'rb', buffering=0) as memory:
        memory.seek(told['victim_address'])
        got(memory.read(size).decode(errors='replace'))
""",
    Oracle.SECRET,
    FILES_UP,
)
SIGNALS = Attack(
    "signals",
    "end another process of the same user",
    "a pid namespace; Landlock keeps signals inside",
    "os.kill(told['target'], 15)",
    Oracle.STATE,
    FILES_UP,
)
PROCESSES = Attack(
    "process-listing",
    "see other processes and their command lines",
    "a pid namespace with a /proc of its own",
    """
for name in os.listdir('/proc'):
    if name.isdigit():
        try:
            if told['process_mark'] in (found := read(f'/proc/{name}/cmdline')):
                got(found[found.index(told['process_mark']):])
        except OSError:
            pass
""",
    Oracle.SECRET,
    NAMESPACED,
)
ORPHAN = Attack(
    "orphan-daemon",
    "leave a process behind when the command ends",
    "the pid namespace ends with the command; without one, whatever is left is adopted and killed",
    """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(0, 64):
            try:
                os.close(number)
            except OSError:
                pass
        os.execv('/usr/bin/python3', ['python3', '-I', '-c', 'import time; time.sleep(8)', told['orphan_mark']])
    os._exit(0)
os.wait()
""",
    Oracle.STATE,
    LIMITS_UP,
)
SYSV = Attack(
    "sysv-memory",
    "read System V shared memory of another process of the same user",
    "an ipc namespace",
    """
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(told['shm_key'], 0, 0)
if segment >= 0:
    got(ctypes.string_at(libc.shmat(segment, None, 0o10000), 64).split(b'\\0')[0].decode())
""",
    Oracle.SECRET,
    NAMESPACED,
)
ABSTRACT = Attack(
    "abstract-socket",
    "talk to a daemon by an abstract socket, which no file permission guards",
    "a network namespace; the filter refuses AF_UNIX; Landlock keeps abstract sockets inside",
    """
with socket.socket(socket.AF_UNIX) as client:
    client.connect('\\0' + told['abstract'])
    client.sendall(b'abstract ' + told['token'].encode())
""",
    Oracle.STATE,
    FILES_UP,
)
PATHNAME = Attack(
    "pathname-socket",
    "talk to a daemon by a socket file that lies in the workspace",
    "the filter refuses AF_UNIX, wherever the file is",
    """
with socket.socket(socket.AF_UNIX) as client:
    client.connect(told['socket_name'])
    client.sendall(b'pathname ' + told['token'].encode())
""",
    Oracle.STATE,
    FILES_UP,
)
TCP_LOOPBACK = Attack(
    "tcp-loopback",
    "reach a service on the host's loopback address",
    "a network namespace with a loopback of its own; Landlock allows TCP only to the proxy's port",
    """
with socket.create_connection(('127.0.0.1', told['tcp_port']), timeout=1) as client:
    client.sendall(b'loopback ' + told['token'].encode())
""",
    Oracle.STATE,
    FILES_UP,
)
METADATA = Attack(
    "metadata-internet",
    "reach another address than loopback, such as a cloud's metadata service or the internet",
    "a network namespace without a route; Landlock allows TCP only to the proxy's port",
    """
with socket.create_connection((told['address'], told['address_port']), timeout=1) as client:
    client.sendall(b'address ' + told['token'].encode())
""",
    Oracle.STATE,
    FILES_UP,
)
UDP = Attack(
    "udp",
    "send datagrams, as a name look-up would",
    "a network namespace with a loopback of its own; where there is none, the filter refuses datagrams",
    """
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.sendto(b'udp ' + told['token'].encode(), ('127.0.0.1', told['udp_port']))
""",
    Oracle.STATE,
    FILES_UP,
)
FAMILIES = Attack(
    "socket-families",
    "open sockets of rare families: netlink, packet, vsock, crypto, CAN, TIPC and others",
    "the filter allows IPv4 and IPv6 only",
    """
for family in (16, 17, 40, 38, 29, 30, 15, 31, 21, 44, 45, 9):
    for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        try:
            socket.socket(family, kind, 0).close()
            got(f'family {family}')
        except OSError:
            pass
""",
    Oracle.REPORT,
    FILES_UP,
)

ROWS = (PTRACE, SIGNALS, PROCESSES, ORPHAN, ABSTRACT, PATHNAME, TCP_LOOPBACK, METADATA, UDP, FAMILIES)
ADDED = (SYSV,)
