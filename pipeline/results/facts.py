"""The JSON facts that the runs of a study left, read back."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.results.columns import SIZE, TRAINING
from pipeline.results.disclosure import guarded
from pipeline.study.grid import CLEAN, Cell, cells, measured_by, result_files


class Facts(NamedTuple):
    """The JSON contents of a study's cells, one dict each."""

    evals: list[dict]
    detects: list[dict]
    explains: list[dict]
    poisons: list[dict]


def collect(study, results_dir: Path, only: Collection[Cell] | None = None) -> Facts:
    """Read every cell of `study`, or those in `only`.

    A cell that is not there is an error, since its absence would bias the means.
    """
    results_dir, grid = Path(results_dir), sorted(cells(study) if only is None else only)
    searched, explained = (
        [cell for cell in grid if stage in measured_by(study, cell)] for stage in ("detect", "explain")
    )
    poisons = sorted({cell.poison_folder for cell in grid if cell.trigger != CLEAN})
    return Facts(
        [_evaluation(results_dir, cell.run_folder) for cell in grid],
        [_fact(results_dir, cell.run_folder, "results_detect.json") for cell in searched],
        [_fact(results_dir, cell.run_folder, "results_explain.json") for cell in explained],
        [_fact(results_dir, folder, "poison.json") for folder in poisons],
    )


def refuse_outdated(study, results_dir: Path, stamps, only: Collection[Cell] | None = None) -> None:
    """`UserError` where a cell of `study`, or one in `only`, has a result of another stamp than that in `stamps`."""
    grid, outdated = sorted(cells(study) if only is None else only), []
    for cell in grid:
        for stage, path in result_files(study, cell).items():
            fact = _fact(results_dir, *path.rsplit("/", 1))
            # The cohort lies where other studies may have made it anew.
            made_of = (fact.get("stamp"), fact.get("cohort"))
            if made_of != (stamps.of(stage, cell).stamp, stamps.of("sample_dev", cell).stamp):
                outdated.append(f"{'/'.join(cell)}: {stage}")
                break
    if outdated:
        raise UserError(
            f"{results_dir}: {len(outdated)} of {len(grid)} cells were made with other settings, inputs or code "
            f"(first: {outdated[0]}); expected this study's: run it again, with --forceall if nothing is to be done"
        )


def _evaluation(results_dir: Path, folder: str) -> dict:
    """What `eval` found, and of the training what the tables show."""
    training = _fact(results_dir, folder, "run_metadata.json")
    told = {name: training[name] for name in (*TRAINING, SIZE)} | {"model_facts": training["model_facts"]}
    return _fact(results_dir, folder, "results_eval.json") | told


def _fact(results_dir: Path, folder: str, name: str) -> dict:
    path = f"{results_dir}/{folder}/{name}"  # of a large study there are too many for a Path each
    if not os.path.isfile(path):
        raise UserError(f"{folder} has no {name} in {results_dir}: expected every cell of the study to be finished.")
    return guarded(read_json(path))
