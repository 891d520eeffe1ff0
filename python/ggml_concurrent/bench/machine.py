"""Facts about the machine that numbers have to be given with."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ..info import information

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

#: Taken for the largest cache where the system does not tell.
_CACHE_GUESS = 64 << 20


def describe() -> dict[str, str]:
    """Processor, system, and what exactly was measured, for a reader."""
    facts = information()
    names = ("version", "ggml", "cpu module", "python", "platform")
    return {
        "processor": processor(),
        "processors": str(usable_processors()),
        "largest cache": f"{largest_cache() / 2**20:g} MiB",
        "load average": f"{os.getloadavg()[0]:.2f}",
        **{name: str(facts[name]) for name in names},
        "commit": commit() or "unknown",
    }


def usable_processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name as the system tells it."""
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def largest_cache() -> int:
    """Bytes of the largest cache; a guess where the system does not tell."""
    sizes = [size for path in _CACHES.glob("index*/size") for size in _lines(path)]
    known = [int(s[:-1]) * _UNITS[s[-1]] for s in sizes if s[-1:] in _UNITS and s[:-1].isdigit()]
    return max(known, default=_CACHE_GUESS)


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping; None where the system does not tell."""
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def commit() -> str | None:
    """The commit of the source folder that this package runs from, with "+" if it was changed."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head, status = (
            subprocess.run([*git, *arguments], capture_output=True, text=True, check=True).stdout
            for arguments in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", ".."])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.strip() + "+" * bool(status.strip())


class Load:
    """Watches, from its making on, what other processes than `pids` take of the processors."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._before = self._read()

    def others(self) -> float | None:
        """Their share of all processors' time, 0 to 1; None where the system does not tell."""
        now = self._read()
        if now is None or self._before is None:
            return None
        total, busy, ours = (n - b for n, b in zip(now, self._before, strict=True))
        return min(1.0, max(0.0, busy - ours) / total) if total > 0 else 0.0

    def _read(self) -> tuple[int, int, int] | None:
        """Ticks so far: of all processors, of these not idle, of these taken by `pids`."""
        try:
            ticks = [int(n) for n in _lines(Path("/proc/stat"))[0].split()[1:9]]
            own = [_own_ticks(Path(f"/proc/{pid}/stat")) for pid in self._pids]
        except (IndexError, ValueError):
            return None
        idle = ticks[3] + ticks[4]
        return sum(ticks), sum(ticks) - idle, sum(own)


def _own_ticks(path: Path) -> int:
    """Ticks of one process: fields 14 and 15, counted past its name, which may hold spaces."""
    fields = "".join(_lines(path)).rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
