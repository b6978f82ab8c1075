"""Processes end with the Snakemake that started them, and its lock ends with it.

After `kill -9` of Snakemake neither is so by itself: its jobs run on, and its lock on the folder stays. On Linux the
kernel is asked to do both; elsewhere nothing is done here, and `snakemake --unlock` is the user's.
"""

import os
import signal
import sys
from contextlib import suppress

SNAKEMAKE = "BACKDOOR_STUDY_SNAKEMAKE"  # the process whose jobs we are
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_LOCKS = ".snakemake/locks"
_CLAIM = ".snakemake/alive"


def die_with(parent: int, number: signal.Signals) -> None:
    """Have the kernel send signal `number` to this process when its parent dies; exits if that has happened."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        sys.exit(1)


def snakemake_is_gone() -> bool:
    """Whether this process was started by a Snakemake that no longer lives."""
    try:
        os.kill(int(os.environ[SNAKEMAKE]), 0)
    except ProcessLookupError:
        return True
    except (KeyError, ValueError, PermissionError):
        pass
    return False


def end_with_snakemake() -> None:
    """Tie this process to the Snakemake that started it; no effect on a command typed by hand."""
    if sys.platform != "linux" or SNAKEMAKE not in os.environ:
        return
    if snakemake_is_gone():
        sys.exit(1)
    if os.getppid() == int(os.environ[SNAKEMAKE]):  # else something stands between them and handles signals
        die_with(os.getppid(), signal.SIGKILL)


def jobs_run_elsewhere(folder: str) -> None:
    """Keep the lock of this Snakemake if it is killed: a cluster's jobs go on without it."""
    with suppress(OSError):
        os.truncate(os.path.join(folder, _CLAIM), 0)


def begin(folder: str, main: bool) -> None:
    """Declare this process a Snakemake at work in `folder`, and as `main`, not a job's, remove the lock of a dead one.

    Every Snakemake holds a shared lock of the operating system on one file until it ends, however it ends. Who gets
    it exclusively is alone, so that Snakemake's own lock files are of the dead. They are left alone where the last
    Snakemake ran on another host, since not every network file system tells one host of the other's locks, and where
    its jobs did.
    """
    import fcntl
    import platform
    import shutil

    os.environ[SNAKEMAKE] = str(os.getpid())
    if not main:
        return
    path = os.path.join(folder, _CLAIM)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Never closed: the lock is held as long as the process lives.
        claim = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            host = platform.node().encode()
            if os.pread(claim, 256, 0) == host and sys.platform == "linux":
                shutil.rmtree(os.path.join(folder, _LOCKS), ignore_errors=True)
            os.ftruncate(claim, 0)
            os.pwrite(claim, host, 0)
        fcntl.flock(claim, fcntl.LOCK_SH)
    except OSError:  # a read-only folder, or a file system without such locks: Snakemake's own lock must do
        pass
