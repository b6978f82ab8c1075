"""A program that tells what it was given, run cold or by a warm server: `python warm_probe.py serve|run …`."""

import atexit
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipeline.jobs import warm  # noqa: E402

SEEN = []


def main(arguments: list[str]) -> int:
    action, *rest = arguments
    if action == "facts":
        facts = {
            "arguments": sys.argv[1:],
            "folder": os.getcwd(),
            "environment": {name: value for name, value in os.environ.items() if name != warm.ADDRESS},
            "stdin": sys.stdin.read(),
            "handlers": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)],
            "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            "descriptors": sorted(set(os.listdir("/proc/self/fd")) & {"0", "1", "2", "3"}),
        }
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="replace")  # as a stage does
        print(json.dumps(facts, sort_keys=True))
        print("to the error stream", file=sys.stderr)
        atexit.register(print, "at exit")
        return int(rest[0])
    if action == "exit":
        sys.exit(json.loads(rest[0]))
    if action == "raise":
        raise ValueError("of the probe")
    if action == "kill":
        os.kill(os.getpid(), int(rest[0]))
    if action == "remember":
        print(SEEN, os.environ.get("PROBE"), os.getcwd(), flush=True)
        SEEN.append(1)
        os.environ["PROBE"] = "1"
        os.chdir("/")
    if action == "wait":
        try:
            with Path(rest[0]).open("a") as file:
                print(os.getpid(), file=file)
            for _ in range(round(20 * float(rest[1]))):  # a signal just before a long sleep would be seen after it
                time.sleep(0.05)
        except KeyboardInterrupt:
            print("interrupted")
            return 130
        print("done")
    if action == "warm":
        print(os.getppid() == int(rest[0]))
    return 0


def serve(folder: Path, threads: int) -> None:
    """As `warm.start` does, with this program's `main`."""
    folder.mkdir(mode=0o700)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(folder / "socket"))
    listener.listen()
    for _ in range(threads):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    warm.serve(str(folder), listener, os.getppid(), lambda: main)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        sys.argv[1:] = sys.argv[2:]
        status = warm.call(sys.argv[1:])
        sys.exit(main(sys.argv[1:]) if status is None else status)
