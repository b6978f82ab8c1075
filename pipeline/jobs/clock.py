"""What a command costs."""

import platform
import resource
import time
from pathlib import Path


class Clock:
    """Wall seconds since it was made; CPU seconds and peak memory of this process, and of those it has waited for.

    In a child of the warm server, CPU counts from the fork; memory includes what it shares with the server.
    """

    def __init__(self) -> None:
        self._wall = time.perf_counter()

    def read(self) -> dict[str, float]:
        """Seconds, and mebibytes of resident memory."""
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        # ru_maxrss is in KiB on Linux, in bytes on macOS.
        unit = 1 if platform.system() == "Darwin" else 1024
        return {
            "wall_seconds": round(time.perf_counter() - self._wall, 3),
            "cpu_seconds": round(sum(usage.ru_utime + usage.ru_stime for usage in usages), 3),
            "peak_memory_mib": round(max(usage.ru_maxrss for usage in usages) * unit / 2**20, 1),
        }

    def __str__(self) -> str:
        cost = self.read()
        wall, cpu, peak = (cost[name] for name in ("wall_seconds", "cpu_seconds", "peak_memory_mib"))
        return f"{wall:.3f} s wall, {cpu:.3f} s CPU, {peak:.0f} MiB"


def own_memory() -> float | None:
    """Mebibytes that are this process's alone, now, and as much more as all of its memory has been; None if not known.

    Linux knows what is private of the memory at this moment, but only of the whole how much it was at its peak. The sum
    is an upper bound of the largest that was private, unless shared libraries were first read after the peak. It takes
    some milliseconds, in which every page is looked at.
    """
    try:
        with Path("/proc/self/smaps_rollup").open(encoding="ascii") as file:
            sizes = dict(line.split()[:2] for line in file if line.endswith(" kB\n"))
    except OSError:  # another system
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    private = sum(int(sizes[name]) for name in ("Private_Clean:", "Private_Dirty:", "Swap:"))
    return round((private + max(peak - int(sizes["Rss:"]), 0)) / 2**10, 1)
