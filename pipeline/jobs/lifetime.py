"""Processes end with the Snakemake that started them.

After `kill -9` of Snakemake that is not so by itself: its jobs run on. On Linux the kernel is asked to end them;
elsewhere nothing is done here. Its lock on the folder stays in any case: `snakemake --unlock` is the user's.
"""

import os
import signal
import sys

SNAKEMAKE = "BACKDOOR_STUDY_SNAKEMAKE"  # the process whose jobs we are
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def die_with(parent: int, number: signal.Signals) -> None:
    """Have the kernel send signal `number` to this process when its parent dies; exits if that has happened."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        sys.exit(1)


def snakemake_is_gone() -> bool:
    """Whether this process was started by a Snakemake that no longer lives. Of Linux, as all that asks."""
    try:
        process = int(os.environ[SNAKEMAKE])
        os.kill(process, 0)
        with open(f"/proc/{process}/stat", "rb") as file:  # noqa: PTH123 - pathlib would take long of a client's time
            # A zombie: dead, but for the one who should have asked how it ended.
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (ProcessLookupError, FileNotFoundError):
        return True
    except (KeyError, ValueError, PermissionError):
        return False


def end_with_snakemake() -> None:
    """Tie this process to the Snakemake that started it; no effect on a command typed by hand."""
    if sys.platform != "linux" or SNAKEMAKE not in os.environ:
        return
    if snakemake_is_gone():
        sys.exit(1)
    if os.getppid() == int(os.environ[SNAKEMAKE]):  # else something stands between them and handles signals
        die_with(os.getppid(), signal.SIGKILL)


def begin() -> None:
    """Declare this process the Snakemake whose jobs end with it."""
    os.environ[SNAKEMAKE] = str(os.getpid())
