"""Level 1 on Windows: a Job Object with hard limits. Written from its documentation and never run: no such machine was available.

The job limits memory, processes, time and cores, and ends everything in it with its last handle. The process is assigned to its job
while it is suspended. A restricted token or an AppContainer would hold files too, for level 2; neither is used, because code of that
kind that nobody has run is worth less than its claim. WSL 2 is Linux, with the levels of Linux.

Source: Microsoft Learn, "Job Objects", "JOBOBJECT_EXTENDED_LIMIT_INFORMATION", "JOBOBJECT_CPU_RATE_CONTROL_INFORMATION".
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import subprocess
from typing import Any

from cohort.base.clock import Clock
from cohort.base.errors import CohortError
from cohort.kernel.model import Command, Level, Limits, Place
from cohort.kernel.sandbox import popen
from cohort.kernel.sandbox.launched import Launched
from cohort.kernel.sandbox.spawner import OnSpawn, unavailable

GAPS = (
    "this backend was never run by its authors; its level is what it is meant to hold",
    "files are held by the user's own rights: whatever the user may read, the command may",
    "the network is open",
    "protected paths of the workspace can be written",
    "disk is limited only by what goes through the kernel's own file operations",
    "there are no signals: every signal ends the job",
)
CREATE_SUSPENDED, CREATE_NO_WINDOW = 0x4, 0x08000000
LIMIT_PROCESS_TIME, LIMIT_ACTIVE_PROCESS, LIMIT_JOB_MEMORY, LIMIT_DIE_ON_ERROR, LIMIT_KILL_ON_CLOSE = 0x2, 0x8, 0x200, 0x400, 0x2000
EXTENDED_LIMITS, CPU_RATE = 9, 15
CPU_RATE_ENABLE, CPU_RATE_HARD_CAP = 0x1, 0x4
CPU_RATE_WHOLE = 10_000
TICKS_PER_S = 10_000_000
SYSTEM_PATH = r"C:\Windows\System32;C:\Windows"
_BASIC, _COUNTERS, _REST = "<qqI4xQQI4xQII", "<6Q", "<4Q"


class JobObject(Launched):
    name = "job-object"

    def __init__(self, clock: Clock, on_spawn: OnSpawn, level: Level = Level.LIMITS) -> None:
        if platform.system() != "Windows":
            raise unavailable("job objects are Windows'", "Use the backend of this system.")
        super().__init__(clock, on_spawn, level)

    def _launch(self, place: Place, limits: Limits, command: Command) -> popen.Launch:
        job = _Job(limits)
        return popen.Launch(
            argv=command.argv,
            env=variables(place, command),
            cwd=folder(place, command),
            kill=lambda _: job.end(),
            send=lambda *_: job.end(),
            began=job.take,
            ended=job.close,
            flags=CREATE_SUSPENDED | CREATE_NO_WINDOW,
        )


class _Job:
    """One job object."""

    def __init__(self, limits: Limits) -> None:
        self._api = _api()
        self._handle = self._api.CreateJobObjectW(None, None)
        if not self._handle:
            raise unavailable("no job object can be made")
        self._set(EXTENDED_LIMITS, extended_limits(limits))
        self._set(CPU_RATE, cpu_rate(limits, os.cpu_count() or 1))

    def take(self, process: subprocess.Popen[bytes]) -> None:
        """Put the suspended process into the job, and let it go. Errors: OSError."""
        handle = ctypes.c_void_p(int(getattr(process, "_handle")))  # noqa: B009 - only there on Windows
        if not self._api.AssignProcessToJobObject(self._handle, handle):
            raise OSError("AssignProcessToJobObject failed")
        if ctypes.CDLL("ntdll").NtResumeProcess(handle) != 0:
            raise OSError("NtResumeProcess failed")

    def end(self) -> None:
        if self._handle:
            self._api.TerminateJobObject(self._handle, 1)

    def close(self) -> None:
        if self._handle:
            self._api.CloseHandle(self._handle)
            self._handle = None

    def _set(self, kind: int, data: bytes) -> None:
        if not self._api.SetInformationJobObject(self._handle, kind, data, len(data)):
            self.close()
            raise unavailable(f"a limit of the job object (class {kind}) cannot be set")


def extended_limits(limits: Limits) -> bytes:
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION on a 64-bit system."""
    flags = LIMIT_PROCESS_TIME | LIMIT_ACTIVE_PROCESS | LIMIT_JOB_MEMORY | LIMIT_DIE_ON_ERROR | LIMIT_KILL_ON_CLOSE
    ticks = int(limits.command_s * max(1.0, limits.cpu_cores) * TICKS_PER_S)
    basic = struct.pack(_BASIC, ticks, 0, flags, 0, 0, limits.processes, 0, 0, 0)
    return basic + struct.pack(_COUNTERS, *([0] * 6)) + struct.pack(_REST, 0, limits.memory_bytes, 0, 0)


def cpu_rate(limits: Limits, cores: int) -> bytes:
    """JOBOBJECT_CPU_RATE_CONTROL_INFORMATION: a hard cap, in hundredths of a percent of the whole machine."""
    share = max(1, min(CPU_RATE_WHOLE, int(limits.cpu_cores / cores * CPU_RATE_WHOLE)))
    return struct.pack("<II", CPU_RATE_ENABLE | CPU_RATE_HARD_CAP, share)


def variables(place: Place, command: Command) -> dict[str, str]:
    """What Windows' own programs need, and the workspace as home and for temporary files."""
    own = {"PATH": SYSTEM_PATH, "SystemRoot": r"C:\Windows", "USERPROFILE": place.root, "TEMP": place.root, "TMP": place.root}
    return own | dict(command.env)


def folder(place: Place, command: Command) -> str:
    """Errors: PATH_ESCAPES."""
    parts = [part for part in command.cwd.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts or any(":" in part for part in parts):
        raise CohortError("PATH_ESCAPES", f"{command.cwd!r} is not in the workspace", field="cwd", hint="Name a folder of the workspace.")
    return "\\".join([place.root.rstrip("\\/"), *parts])


def _api() -> Any:
    """kernel32, with handles as wide as they are."""
    api = ctypes.CDLL("kernel32")
    api.CreateJobObjectW.restype = ctypes.c_void_p
    api.CreateJobObjectW.argtypes = [ctypes.c_void_p, ctypes.c_wchar_p]
    api.AssignProcessToJobObject.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    api.SetInformationJobObject.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
    api.TerminateJobObject.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    api.CloseHandle.argtypes = [ctypes.c_void_p]
    return api
