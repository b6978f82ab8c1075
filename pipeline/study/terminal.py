"""What a study shows while it runs: one line of progress, and of a job that fails its reason and its log.

Snakemake tells some fifteen lines of every job. `attach` puts a handler before its own one of the terminal: what is
told of single jobs becomes the line of progress, everything else (warnings, errors, the plan, the end of a run) is left
to Snakemake's handler as it is. Its log file in .snakemake/log still holds all. On a terminal the line is rewritten in
its place; elsewhere it is printed anew every tenth of the jobs.

Imports nothing heavy: Snakemake loads it on every call.
"""

import logging
import os
import re
import shlex
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.jobs import state
from pipeline.study.progress import INTERRUPTED, NO_MESSAGE
from pipeline.words import first_line, roughly

# Of Snakemake: what it calls its handler of the terminal, and its events and messages that are of single jobs or say
# nothing to whoever runs a study.
_USUAL = "DefaultStreamHandler"
_HIDDEN = {"workflow_started", "job_started", "progress", "shellcmd", "group_info"}
_NOISE = re.compile(
    r"Assuming unrestricted shared|Using shell: |Rules claiming more|Conda environments: |Group jobs: "
    r"|Select jobs to execute|Removing output files of failed job|Elapsed time: "
    r"|Job \S+ has been submitted|Submitted array job"
)
_CANCELLED = "Terminating processes on user request"
_NO_OUTPUT = re.compile(r"Job (\d+) +completed successfully, but some output files are missing")

_TARGETS = {"all", "cohorts"}  # rules without a command
_RECENT = 50  # finished jobs that rate and time left are taken from
_SOON = 10  # seconds in which neither is told
_FEW = 3  # finished jobs of a rule that say how long its others take
_APART = 10, 300  # seconds between two printed lines: at least, and if jobs take long at most
_TAIL = 8  # lines of a log
_WHEN = "created", "levelno", "levelname"  # of a record


class Job(NamedTuple):
    """A job at work: its rule, its wildcards in one word, when it began (seconds), and whether on this machine."""

    rule: str
    name: str
    began: float
    local: bool


class Progress:
    """How far the jobs of a study are. Times are seconds since any one moment."""

    def __init__(self, planned: Mapping[str, int]):
        self.planned = dict(planned)  # jobs per rule, in the order in which rules need each other
        self.running: dict[int, Job] = {}
        self.failed: dict[int, str] = {}  # rule by number of job
        self.finished: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}  # of all finished jobs of a rule
        self._recent: deque[tuple[float, float]] = deque(maxlen=_RECENT + 1)  # when a job ended, and what it took

    @property
    def done(self) -> int:
        return self.finished.total()

    @property
    def total(self) -> int:
        return sum(self.planned.values())

    def begin(self, number: int, job: Job) -> None:
        if not self._recent:
            self._recent.append((job.began, 0.0))
        self.failed.pop(number, None)  # it is tried again
        self.running[number] = job

    def finish(self, number: int, now: float) -> None:
        job = self.running.pop(number, None)
        if job is None:
            return
        self.finished[job.rule] += 1
        self._seconds[job.rule] = self._seconds.get(job.rule, 0.0) + now - job.began
        self._recent.append((now, now - job.began))

    def fail(self, number: int) -> None:
        job = self.running.pop(number, None)
        if job is not None:
            self.failed[number] = job.rule

    def counts(self) -> str:
        """Such as "312 of 706 jobs (44 %), 2 failed"."""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"{self.done} of {self.total} jobs ({100 * self.done // max(self.total, 1)} %){failed}"

    def line(self, now: float) -> str:
        """Such as "312 of 706 jobs (44 %), 2 failed; 1.9 jobs/s, up to 3 min left; running: train 2"."""
        parts = [self.counts(), ", ".join(filter(None, (self._rate(now), self._time_left(now))))]
        if self.running:
            # What waits in the queue of a cluster is not running.
            verb = "running" if all(job.local for job in self.running.values()) else "submitted"
            rules = Counter(job.rule for job in self.running.values())
            parts += [f"{verb}: " + ", ".join(f"{rule} {count}" for rule, count in rules.items())]
        return "; ".join(filter(None, parts))

    def _rate(self, now: float) -> str:
        if not self._is_settled(now):
            return ""
        rate = (len(self._recent) - 1) / (now - self._recent[0][0])
        for unit, seconds in (("s", 1), ("min", 60)):
            if rate * seconds >= 1:
                return f"{rate * seconds:.{1 if rate * seconds < 10 else 0}f} jobs/{unit}"
        return f"{rate * 3600:.0f} jobs/h"

    def _time_left(self, now: float) -> str:
        """Job seconds that are left, over how many of them pass in a second; nothing where too little is known.

        A job takes as long as the others of its rule. Rules of one job, such as the report, take nobody knows how
        long: the time is that before the first of them.
        """
        at_work = Counter(job.rule for job in self.running.values())
        ended = self.finished + Counter(self.failed.values())
        open_jobs = {rule: count - ended[rule] for rule, count in self.planned.items() if rule not in _TARGETS}
        enough = {rule: max(min(_FEW, count - 1), 1) for rule, count in self.planned.items()}
        unknown = [rule for rule, count in open_jobs.items() if count and self.finished[rule] < enough[rule]]
        if not self._is_settled(now) or any(self.planned[rule] > 1 for rule in unknown):
            return ""
        mean = {rule: seconds / self.finished[rule] for rule, seconds in self._seconds.items()}
        waiting = sum((count - at_work[rule]) * mean[rule] for rule, count in open_jobs.items() if rule not in unknown)
        known = [job for job in self.running.values() if job.rule in mean]
        begun = sum(max(mean[job.rule] - (now - job.began), 0) for job in known)
        since, _ = self._recent[0]
        speed = sum(seconds for _, seconds in self._recent) / (now - since)
        if not waiting + begun or not speed:
            return ""
        # What would need a job that failed is not run.
        about = "up to" if self.failed else "about"
        return f"{about} {roughly((waiting + begun) / speed)} {f'before {unknown[0]}' if unknown else 'left'}"

    def _is_settled(self, now: float) -> bool:
        return len(self._recent) > _FEW and now - self._recent[0][0] >= _SOON


class Terminal(logging.Handler):
    """Shows the progress of jobs on the stream of `usual`, Snakemake's handler, and hands it all other records."""

    def __init__(self, usual: logging.StreamHandler):
        super().__init__()
        self.usual = usual
        self.progress = Progress({})
        self._live = usual.stream.isatty() and os.environ.get("TERM") != "dumb"
        self._open = False  # whether the line may still change
        # Of the last line that stays: when it was printed, how many jobs were done then, and what it began with.
        self._printed_at, self._printed_done, self._printed = 0.0, 0, ""
        self._told: set[tuple[str, str]] = set()  # rule and reason of failures
        self._cancelled = False
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._take(record)
        except BrokenPipeError:  # nobody reads any more: Snakemake ends, as it does by itself
            raise
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self._stop.set()
        self.acquire()
        self._erase()
        self.release()
        super().close()

    def _take(self, record: logging.LogRecord) -> None:
        facts, message, now = vars(record), str(record.msg), record.created
        event = str(facts.get("event", ""))
        if event == "job_info":
            name = "/".join(map(str, facts["wildcards"].values()))
            self.progress.begin(facts["jobid"], Job(facts["rule_name"], name, now, facts["local"]))
            self._open = True
            self._show(now)
        elif event == "job_finished":
            self.progress.finish(facts["job_id"], now)
            self._show(now)
        elif event == "job_error":
            if not facts["indent"]:  # else it is one of a group, which has been told
                self._tell_failure(facts)
        elif event == "group_error":
            self._tell_group(facts)
        elif event in _HIDDEN or _NOISE.match(message):
            pass
        elif event == "error" and "CalledProcessError" in message:
            pass  # a shell command that failed: job_error tells of it, without the command
        else:
            if event == "run_info":
                self.progress = Progress({rule: count for rule, count in facts["stats"].items() if rule != "total"})
            elif missing := _NO_OUTPUT.search(message):
                self.progress.fail(int(missing[1]))
            self._cancelled = self._cancelled or message.startswith(_CANCELLED)
            if not self.progress.running or self._cancelled:
                self._conclude()
            self._put(record)

    def _conclude(self) -> None:
        """No job is at work any more: the line stays as it is, without what may still happen."""
        if self._open:
            self._erase()
            if self.progress.counts() != self._printed:
                self._write(f"{self.progress.counts()}\n")
            self._open = False

    def _put(self, record: logging.LogRecord) -> None:
        """Have Snakemake's handler print `record`, on a terminal above the line."""
        self._erase()
        self.usual.handle(record)
        if self._open:
            self._show(record.created)

    def _say(self, text: str, record: Mapping[str, Any]) -> None:
        self._put(logging.makeLogRecord({"msg": text, **{name: record[name] for name in _WHEN}}))

    def _tell_failure(self, facts: Mapping[str, Any], more_logs: Sequence[str] = ()) -> None:
        """One line about a job that failed; if its log holds more than that, its end, once for each reason."""
        job = self.progress.running.get(facts["jobid"], Job(facts["rule_name"], "", 0, True))
        logs = [path for path in [*facts["log"], *more_logs] if path.endswith(".log")]  # not an executed notebook
        lines = _lines(logs)
        last = lines[-1].removeprefix("error: ") if lines else NO_MESSAGE
        why = first_line(_why(facts["shellcmd"]) or last)
        # Ctrl-C may come before there is anything in a job that could say so, or in the midst of its imports.
        if why in (INTERRUPTED, "KeyboardInterrupt") or (self._cancelled and why == NO_MESSAGE):
            self.progress.running.pop(facts["jobid"], None)
            self._say(f"interrupted: {job.rule} ({job.name})", facts)
            return
        self.progress.fail(facts["jobid"])
        where = "; ".join(filter(None, (job.name, f"log: {', '.join(logs)}" if logs else "")))
        told = [f"failed: {job.rule}: {why} ({where})"]
        if (job.rule, why) not in self._told and lines and not lines[-1].startswith("error: "):
            told += [f"    {line}" for line in lines[-_TAIL:]]
        self._told.add((job.rule, why))
        self._say("\n".join(told), facts)

    def _tell_group(self, facts: Mapping[str, Any]) -> None:
        """Of a group those jobs that failed; if none has said so, the first. None of them is at work any more."""
        jobs = [{name: facts[name] for name in _WHEN} | job for job in facts["job_error_info"]]
        for job in [job for job in jobs if _why(job["shellcmd"])] or jobs[:1]:
            self._tell_failure(job, facts["aux_logs"])
        for job in jobs:
            self.progress.running.pop(job["jobid"], None)

    def _show(self, now: float) -> None:
        """Rewrite the line on a terminal; elsewhere print one where it is due."""
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        if self._live:
            self._write(f"\r{self.progress.line(now)[: self._width()]}\x1b[K")
            return
        shortest, longest = _APART
        passed = now - self._printed_at
        more = 10 * (self.progress.done - self._printed_done) >= self.progress.total
        if not self._printed_at:
            self._printed_at = now  # the plan has just been told
        elif passed >= longest or (more and passed >= shortest):
            self._write(f"{self.progress.line(now)}\n")
            self._printed_at, self._printed_done, self._printed = now, self.progress.done, self.progress.counts()

    def _width(self) -> int:
        try:
            columns = os.get_terminal_size(self.usual.stream.fileno()).columns
        except (OSError, ValueError):  # the terminal is gone
            columns = 0
        return (columns or 80) - 1  # in the last column some terminals begin a new line

    def _erase(self) -> None:
        if self._live and self._open:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # the terminal is gone, or closed
            self.usual.stream.write(text)
            self.usual.stream.flush()

    def _tick(self) -> None:
        """The times go on also where no job begins or ends."""
        while not self._stop.wait(1):
            self.acquire()
            if self._open and not self._stop.is_set():
                self._show(time.time())
            self.release()


def attach(logger: logging.Logger, settings) -> None:
    """Show progress in place of what `logger`, Snakemake's, tells of single jobs.

    Not where its output `settings` ask for more or less than usual, or somebody has chosen another handler.
    """
    asked = (settings.dryrun, settings.verbose, settings.debug_dag, settings.printshellcmds, settings.quiet)
    for usual in list(logger.handlers):
        if usual.name == _USUAL and isinstance(usual, logging.StreamHandler) and not any(asked):
            if os.environ.get("NO_COLOR"):
                usual.nocolor = True  # type: ignore[attr-defined]  # of Snakemake's own handler
            logger.removeHandler(usual)
            logger.addHandler(Terminal(usual))


def _why(command: str | None) -> str | None:
    """Why the stage that `command` started has failed, as its state says; None where that says nothing of it."""
    words = shlex.split(command or "")
    options = dict(zip(words, words[1:], strict=False))
    told = state.read(Path(options["--state"])) if "--state" in options else None
    if told is None or told["stamp"] != options["--stamp"].split()[0]:
        return None
    return {state.FAILED: told["why"], state.INTERRUPTED: INTERRUPTED, state.RUNNING: NO_MESSAGE}.get(told["state"])


def _lines(paths: list[str]) -> list[str]:
    """The lines of the first of these logs that holds any."""
    for path in paths:
        with suppress(OSError):
            lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
            if lines := [line for line in lines if line.strip()]:
                return lines
    return []
