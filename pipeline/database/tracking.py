"""The runs of a study in an MLflow store: what they were made with, their numbers, and how each was made.

Each run is there once for what made it. Made anew with other settings, inputs or code it is another run of the store,
and the one before is marked, as are those that the study does not ask for any more. No row of a sample goes there, and
no number that disclosure control has not seen: the numbers are those of the study database. Imports nothing heavy:
Snakemake loads it on every call.
"""

import csv
import io
import json
import math
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.database import store
from pipeline.errors import UserError, disk_error
from pipeline.files import read_json
from pipeline.study import preflight, progress
from pipeline.study.code import digest
from pipeline.study.config import Study
from pipeline.study.grid import CLEAN, CONTROLS, Cell, cells, result_files
from pipeline.study.places import NOT_MEASURED
from pipeline.study.stamps import Stamps
from pipeline.words import counted

if TYPE_CHECKING:
    from mlflow import MlflowClient

STUDY = "study"  # the name of the run that holds the tables and the report; those of cells have slashes
# Of run_metadata.json, whose other numbers are told exactly; those that may be told are metrics.
_TOLD = {"stamp", "code", "cohort", "people", "config", "trained_on", "parents_sha256", "n_parameters", "epochs"}
_TOLD |= {"best_epoch", "resumed_from_epoch", "data_sha256", "git_commit", "versions", "device", "device_note"}
_TOLD |= {"threads", "host", "wall_seconds", "cpu_seconds", "peak_memory_mib"}
_BATCH = 100  # parameters that a store takes at once
_PAGE = 1000  # runs that it tells at once
_LONGEST = 6000  # letters of a parameter
# Before MLflow is imported. It says nothing to its makers; a server that is not there is not asked for minutes.
_ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_LOGGING_LEVEL": "ERROR"}
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


class _Run(NamedTuple):
    """What a run of the store holds; times in milliseconds, None where nothing tells them."""

    tags: dict[str, str]
    parameters: dict[str, str]
    metrics: dict[str, float]
    artefacts: dict[str, str]
    began: int | None
    ended: int | None


def after_study(study: Study, cohorts: str) -> list[str]:
    """What a call of Snakemake says of the tracking at its end; `cohorts`: the stamps of the cohorts, as JSON.

    Nothing here fails a study: what a store does not take, the next call brings it.
    """
    if study.tracking == "none":
        return []
    arguments = ["--study", study.model_dump_json(), "--cohorts", cohorts]
    command = [sys.executable, "-m", "pipeline", "db", "track", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines() or ["ended without a message"]
    if done.returncode:
        why = lines[-1].removeprefix("error: ")
        return [
            f"warning: not tracked ({why}); results are not concerned, and `python -m pipeline db track` tries again"
        ]
    return lines[-1:]


def track(study: Study, stamps: Stamps) -> str:
    """Bring the runs of `study` that are done into its store, and return one line about it.

    To be called with a study that `preflight.check_tracking` allows, when its database is up to the files. `UserError`
    for what is wrong with the store; what it has taken by then stays, and is not sent again.
    """
    os.environ.update(_ENVIRONMENT)
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    address, artefacts = _store(study)
    wanted = {"/".join(cell): _stamp(study, stamps, cell) for cell in sorted(cells(study))}
    with _alone(Path(study.results_dir)), _told(address):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=address)
        experiment = _experiment(client, str(Path(study.results_dir).resolve()), artefacts)
        made = _made(study, stamps, wanted)
        known = _known(client, experiment, wanted | {STUDY: stamps.of("report").stamp})
        new = [key for key in made if key not in known]
        with closing(_database(study)) as database:
            for name, stamp in new:
                run = _of_study(study) if name == STUDY else _of_cell(study, stamps, database, name)
                _put(client, experiment, name, stamp, run)
    done = [name for name, _ in made if name != STUDY]
    return f"{len(done)} of {counted(len(wanted), 'run')} in MLflow, {sum(n != STUDY for n, _ in new)} new: {address}"


def _stamp(study: Study, stamps: Stamps, cell: Cell) -> str:
    """What tells a run from one of the same name that is made otherwise."""
    return digest(*(stamps.of(stage, cell).stamp for stage in result_files(study, cell)))


def _store(study: Study) -> tuple[str, str | None]:
    """The address of the store and, of a file, where artefacts lie; a server knows that itself."""
    given = study.tracking_uri
    if given is not None and not given.startswith(preflight.SQLITE):
        return given, None
    path = Path(study.results_dir, "mlflow.db") if given is None else Path(given.removeprefix(preflight.SQLITE))
    return f"{preflight.SQLITE}{path.absolute()}", (path.absolute().parent / "mlflow-artifacts").as_uri()


@contextmanager
def _alone(results_dir: Path) -> Iterator[None]:
    """Hold off others who would track the same study and bring each run twice; as long as this process lives."""
    import fcntl

    folder = os.open(results_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{results_dir}: another process is tracking this study; expected one at a time") from None
        yield
    finally:
        os.close(folder)


@contextmanager
def _told(address: str) -> Iterator[None]:
    """What is wrong with the store at `address`, in one sentence."""
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, CommandError, RequestException, OSError) as error:
        known = disk_error(error) if isinstance(error, OSError) else None
        reason = known or next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"tracking_uri: {address}: {reason}") from None


def _experiment(client: "MlflowClient", name: str, artefacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    return client.create_experiment(name, artifact_location=artefacts) if found is None else found.experiment_id


def _made(study: Study, stamps: Stamps, wanted: Mapping[str, str]) -> list[tuple[str, str]]:
    """Name and stamp of each run that the store should have now, the study's own with its tables and report last."""
    with closing(_database(study)) as database:
        rows = database.execute("SELECT run FROM runs WHERE in_study AND status = 'done' ORDER BY run").fetchall()
    made = [(name, wanted[name]) for (name,) in rows]
    files = progress.Files(study, stamps)
    if all(files.outcome(job)[0] == progress.DONE for job in files.of_all()):
        made.append((STUDY, stamps.of("report").stamp))
    return made


def _known(client: "MlflowClient", experiment: str, wanted: Mapping[str, str]) -> set[tuple[str, str]]:
    """Name and stamp of each whole run of the store.

    One of another stamp than `wanted` says, or that is not in it at all, is marked as outdated.
    """
    known: set[tuple[str, str]] = set()
    page = None
    while True:
        found = client.search_runs([experiment], max_results=_PAGE, page_token=page)
        for run in found:
            name, stamp = run.info.run_name, run.data.tags.get("stamp", "")
            if run.info.status != "FINISHED":  # somebody was killed over it
                client.delete_run(run.info.run_id)
                continue
            known.add((name, stamp))
            outdated = "no" if wanted.get(name) == stamp else "yes"
            if run.data.tags.get("outdated") != outdated:
                client.set_tag(run.info.run_id, "outdated", outdated)
        page = found.token
        if not page:
            return known


def _put(client: "MlflowClient", experiment: str, name: str, stamp: str, run: _Run) -> None:
    from mlflow.entities import Metric, Param

    tags = run.tags | {"stamp": stamp, "outdated": "no"}
    found = client.create_run(experiment, start_time=run.began, tags=tags, run_name=name).info
    time = run.ended or found.start_time
    parameters = [Param(key, value[:_LONGEST]) for key, value in sorted(run.parameters.items())]
    metrics = [Metric(key, value, time, 0) for key, value in sorted(run.metrics.items())]
    client.log_batch(found.run_id, metrics, parameters[:_BATCH])
    for first in range(_BATCH, len(parameters), _BATCH):
        client.log_batch(found.run_id, params=parameters[first : first + _BATCH])
    for path, text in run.artefacts.items():
        client.log_text(found.run_id, text, path)
    client.set_terminated(found.run_id, end_time=run.ended)  # only now it counts


def _database(study: Study) -> sqlite3.Connection:
    address = f"{store.path_of(study.results_dir).absolute().as_uri()}?mode=ro"
    database = sqlite3.connect(address, uri=True, timeout=60)
    database.row_factory = sqlite3.Row
    return database


def _of_cell(study: Study, stamps: Stamps, database: sqlite3.Connection, name: str) -> _Run:
    cell = Cell(*name.split("/"))
    (settings,) = database.execute("SELECT settings FROM runs WHERE run = ?", [name]).fetchone()
    settings = json.loads(settings)
    member = study.member("triggers", cell.trigger)
    kind = "clean" if member == CLEAN else "control" if member in CONTROLS else "attack"
    tags = cell._asdict() | {"kind": kind}
    if settings.get("git_commit"):
        tags["mlflow.source.git.commit"] = settings["git_commit"]
    metrics = dict(database.execute("SELECT metric, value FROM metrics WHERE run = ?", [name]).fetchall())
    for row in database.execute("SELECT * FROM detections WHERE run = ?", [name]):
        detector, scope = row["detector"], row["scope"]
        metrics |= {f"detection/{detector}/{scope}/{key}": row[key] for key in row.keys()}  # noqa: SIM118
    for row in database.execute("SELECT * FROM explanations WHERE run = ?", [name]):
        metrics |= {f"explanation/{key}": row[key] for key in row.keys()}  # noqa: SIM118
    # Not the attempts at a run of this name that was made otherwise.
    made_by = json.dumps([stamps.of(stage, cell).stamp for stage in result_files(study, cell)])
    times = (
        "SELECT min(started), max(ended) FROM jobs WHERE (dataset, model, trigger, rate, seed) = (?, ?, ?, ?, ?) "
        "AND status = 'done' AND stamp IN (SELECT value FROM json_each(?))"
    )
    key = (*cell[:3], float(cell.rate), int(cell.seed))
    began, ended = map(_milliseconds, database.execute(times, (*key, made_by)).fetchone())
    return _Run(tags, _flat(cell._asdict() | settings), _numbers(metrics), _artefacts(study, cell), began, ended)


def _artefacts(study: Study, cell: Cell) -> dict[str, str]:
    """How a run was made and trained, without what only the files with the rows may tell."""
    from pipeline.results.disclosure import history_in_tens

    folder = Path(study.results_dir, cell.run_folder)
    metadata = read_json(folder / "run_metadata.json")
    told = {name: value for name, value in metadata.items() if name in _TOLD}
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        history = history_in_tens(list(csv.DictReader(file)), read_json(folder / "results_eval.json"))
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return {"run_metadata.json": json.dumps(told, indent=1), "history.csv": text.getvalue()}


def _of_study(study: Study) -> _Run:
    folder = Path(study.results_dir)
    paths = [folder / "report.html", *sorted(folder.glob("tables/*.csv"))]
    artefacts = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    settings = study.model_dump(mode="json", exclude=NOT_MEASURED)
    return _Run({"kind": STUDY}, _flat(settings), {}, artefacts, None, None)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of `values` that are numbers; what is missing has no metric."""
    return {
        name: float(value) for name, value in values.items() if isinstance(value, int | float) and math.isfinite(value)
    }


def _flat(content: Mapping[str, Any], *path: str) -> dict[str, str]:
    """Parsed JSON as texts by dotted names; lists are values."""
    flat: dict[str, str] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, *path, name)
        else:
            flat[".".join([*path, name])] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _milliseconds(time: str | None) -> int | None:
    return None if time is None else round(datetime.fromisoformat(time).timestamp() * 1000)
