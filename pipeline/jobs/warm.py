"""Warm stages: a process that has imported everything once forks a child for each call.

Importing torch and the rest takes seconds, a stage often a tenth of one. `start` puts a server beside the workflow;
`python -m pipeline …` below it is then a client: it hands over its arguments, folder, environment and streams, passes
on the signals it gets, and ends as the child ends. Where that fails, the client runs the command itself; so it does
where the project's code is no longer the code that the server has loaded.

The child holds the connection too. So when a client reads the end of it without a status, neither server nor child is
left, and nothing runs twice. A server that dies takes its children along, and Snakemake takes the server.

Linux only: other systems cannot fork safely after loading these libraries, or lack the death signal. Every job imports
this module: it does without `json` and `pathlib`, which would take a fifth of a client's time.
"""

import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

from pipeline.jobs.lifetime import die_with, snakemake_is_gone

PACKAGE = os.path.dirname(os.path.dirname(__file__))
ADDRESS = "BACKDOOR_STUDY_WARM"  # where the server listens
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_ALLOCATORS = {
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # else Arrow starts a thread when it is imported
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # large pages are fewer, which halves the time of a fork
}
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_LARGEST = 1 << 18  # bytes of a request
_COLD = b"cold"  # the answer to a call that the server cannot serve as the client would
_server = None


def start() -> None:
    """Start a server that ends with this process, and announce it to what is started from here.

    Without effect where there can be none: every call is cold then.
    """
    global _server
    import shutil
    import subprocess
    import tempfile

    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return
    folder = ""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            folder = tempfile.mkdtemp(prefix="backdoor-study-")  # mode 0700
            listener.bind(f"{folder}/socket")
            listener.listen(1024)
            _server = subprocess.Popen(
                [sys.executable, "-m", "pipeline.jobs.warm", folder, str(listener.fileno()), str(os.getpid())],
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=os.path.dirname(PACKAGE),
                env=os.environ | dict.fromkeys(_THREADS, "1") | _ALLOCATORS,
                start_new_session=True,  # Ctrl-C is for Snakemake and the clients
            )
        except OSError:  # no folder for temporary files, or its path is too long for a socket
            shutil.rmtree(folder, ignore_errors=True)
            return
    os.environ[ADDRESS] = f"{folder}/socket"


def stop() -> None:
    """End the server that `start` started, if any."""
    os.environ.pop(ADDRESS, None)
    if _server:
        _server.terminate()
        _server.wait()


def _fixed() -> list:
    """What a process cannot change after it has started: the code, and what libraries read when they are loaded."""
    python = sorted(item for item in os.environ.items() if item[0].startswith("PYTHON"))
    return [__file__, sys.prefix, *map(os.environ.get, _THREADS), *python]


def call(arguments: list[str]) -> int | None:
    """The exit status of `python -m pipeline ARGUMENTS` run by the server; None where the caller has to run it."""
    if ADDRESS not in os.environ:
        return None
    ignored = [int(number) for number in _FORWARDED if signal.getsignal(number) == signal.SIG_IGN]
    request = {
        "fixed": _fixed(),
        "arguments": arguments,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "ignored": ignored,
    }
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        try:
            server.connect(os.environ[ADDRESS])
            socket.send_fds(server, [repr(request).encode()], [0, 1, 2])
        except OSError:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            return None
        # The C level handler itself sends the number of a signal to the server: none falls into a gap.
        server.setblocking(False)
        signal.set_wakeup_fd(server.fileno(), warn_on_full_buffer=False)
        received: list[int] = []
        heard = [number for number in _FORWARDED if number not in ignored]
        handlers = {number: signal.signal(number, lambda number, _: received.append(number)) for number in heard}
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        select.select([server], [], [])
        signal.set_wakeup_fd(-1)
        try:
            answer = server.recv(16)
        except OSError:
            answer = b""
    for number, handler in handlers.items():
        signal.signal(number, handler)
    if answer in (b"", _COLD):
        for told in received:  # no child took it
            os.kill(os.getpid(), told)
        return 1 if snakemake_is_gone() else None
    (status,) = struct.unpack("i", answer)
    if status < 0:  # the child was killed: end in the same way
        with suppress(OSError):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def _files() -> list[tuple[str, int, int, int]]:
    """The project's code as it lies on the disk: every file with its size and times, ctime being one nobody sets."""
    found, folders = [], [PACKAGE]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders += [entry.path] if entry.name != "__pycache__" else []
                elif entry.name.endswith((".py", ".sql")):
                    status = entry.stat()
                    found.append((entry.path, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return sorted(found)


class _Server:
    """Forks a child per request and tells each client how its child ended. One thread, one loop."""

    def __init__(self, listener: socket.socket, main: Callable[[list[str]], int], loaded: list):
        import selectors

        self.listener, self.main, self.loaded = listener, main, loaded
        self.selector = selectors.DefaultSelector()
        self.children: dict[socket.socket, tuple[int, int]] = {}  # connection: process, descriptor of it
        self.selector.register(listener, selectors.EVENT_READ, self.accept)

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select():
                if self.selector.get_map().get(key.fd) is key:  # else ended by an event before it
                    key.data()

    def accept(self) -> None:
        connection, _ = self.listener.accept()
        _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user != os.getuid():
            connection.close()
            return
        self.selector.register(connection, 1, lambda: self.hear(connection))

    def hear(self, connection: socket.socket) -> None:
        """A request, a signal to pass on, or the end of a client."""
        import ast

        streams: list[int] = []
        try:
            message, streams, _, _ = socket.recv_fds(connection, _LARGEST, 3)
        except OSError:
            message = b""
        if connection in self.children:
            process, _ = self.children[connection]
            with suppress(ProcessLookupError):
                os.kill(process, message[0] if message else signal.SIGKILL)
            if not message:
                self.selector.unregister(connection)
            return
        try:
            request = ast.literal_eval(message.decode())
            served = request["fixed"] == _fixed() and len(streams) == 3 and self.loaded == _files()
        except (ValueError, TypeError, KeyError, SyntaxError):
            served = False
        if served:
            self.fork(connection, request, streams)
        else:
            with suppress(OSError):
                connection.send(_COLD)
            self.selector.unregister(connection)
            connection.close()
        for stream in streams:
            os.close(stream)

    def fork(self, connection: socket.socket, request: dict, streams: list[int]) -> None:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        server = os.getpid()
        process = os.fork()
        if not process:
            try:
                self.become(connection, request, streams, server)
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
                os._exit(_run(self.main, request["arguments"]))
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        descriptor = os.pidfd_open(process)
        self.children[connection] = process, descriptor
        self.selector.register(descriptor, 1, lambda: self.reap(connection))

    def become(self, connection: socket.socket, request: dict, streams: list[int], server: int) -> None:
        """In the child: let go of what is the server's and take on what is the client's."""
        die_with(server, signal.SIGKILL)
        for number in _FORWARDED:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, signal.SIG_IGN if number in request["ignored"] else default)
        for key in list(self.selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                if key.fileobj is not connection:
                    key.fileobj.close()
            else:
                os.close(key.fd)
        self.selector.close()
        for descriptor, stream in enumerate(streams):
            os.dup2(stream, descriptor)
            os.close(stream)
        # Those at hand were made for the server's: a file can seek, a pipe cannot.
        sys.stdout, sys.stderr = (
            os.fdopen(
                number, "w", 1 if number == 2 or os.isatty(number) else -1, old.encoding, old.errors, closefd=False
            )
            for number, old in ((1, sys.stdout), (2, sys.stderr))
        )
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv[1:] = request["arguments"]
        os.chdir(request["folder"])

    def reap(self, connection: socket.socket) -> None:
        process, descriptor = self.children.pop(connection)
        _, status = os.waitpid(process, 0)
        self.selector.unregister(descriptor)
        os.close(descriptor)
        with suppress(OSError):
            connection.send(struct.pack("i", os.waitstatus_to_exitcode(status)))
        with suppress(KeyError):
            self.selector.unregister(connection)
        connection.close()


def _run(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    """`sys.exit(main(arguments))` to its end, without tearing down an interpreter that has a server's memory."""
    import atexit
    import threading

    status: int | None
    try:
        status = main(arguments)
    except SystemExit as end:
        if isinstance(end.code, int | None):
            status = end.code
        else:
            print(end.code, file=sys.stderr)
            status = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter calls, and no module tells of
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # a full disk, say: what was said is lost, and nobody could be told why
            status = status or 1
    return (status or 0) & 0xFF


def serve(folder: str, listener: socket.socket, parent: int, load: Callable[[], Callable[[list[str]], int]]) -> None:
    """Serve calls of what `load` returns, a `main(arguments) -> status`, until process `parent` is gone or SIGTERM.

    Removes `folder`, where `listener` is bound, in the end.
    """
    import atexit
    import gc
    import shutil

    def end(*_: object) -> None:
        # At once: to tear down what is loaded takes seconds, in which stages would outlive Snakemake.
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    try:
        die_with(parent, signal.SIGTERM)
        loaded = _files()
        main = load()
        atexit._clear()  # what libraries registered on import; a stage's own is run
        threads = len(os.listdir("/proc/self/task"))
        if threads > 1:
            sys.exit(f"warm stages are off: {threads} threads are alive after the imports, forking would not be safe")
        gc.collect()
        gc.freeze()  # or the collector writes to, and so copies, every page it shares with the children
        _Server(listener, main, loaded).serve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    from pipeline.front import preloaded

    def server(arguments: list[str]) -> int:
        folder, listener, parent = arguments
        serve(folder, socket.socket(fileno=int(listener)), int(parent), preloaded)
        return 0

    # Without tearing down the interpreter: libraries whose last words were cleared would complain on the way.
    os._exit(_run(server, sys.argv[1:]))
