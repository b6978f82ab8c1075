"""The grid of a study: its cells, where their files lie, and what configuration each stage of a cell gets.

The only place that formats a rate. Imports nothing heavy: Snakemake loads it on every call.
"""

import json
import os
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pipeline.study.config import Study

CLEAN = "none"
FLIPPED, CHOSEN, MASK_ONLY = "flip_only", "chosen_only", "mask_only"
CONTROLS = (CLEAN, FLIPPED, CHOSEN, MASK_ONLY)  # members of the family that attacks are compared with


class Cell(NamedTuple):
    """One run: its wildcards as Snakemake sees them, all strings."""

    dataset: str
    model: str
    trigger: str
    rate: str
    seed: str

    @property
    def control(self) -> "Cell":
        """The clean run of the same dataset, model and seed."""
        return self._replace(trigger=CLEAN, rate=format_rate(0))

    @property
    def poison_folder(self) -> str:
        return f"poison/{self.dataset}/{self.trigger}/{self.rate}/seed_{self.seed}"

    @property
    def run_folder(self) -> str:
        return f"runs/{self.dataset}/{self.model}/{self.trigger}/{self.rate}/seed_{self.seed}"


def format_rate(rate: float) -> str:
    return repr(float(rate))


def cells(study: "Study") -> Iterator[Cell]:
    """Every run of `study`: the clean runs, then trigger × rate."""
    for dataset, model, seed in product(study.datasets, study.models, study.seeds):
        yield Cell(dataset, model, CLEAN, format_rate(0), str(seed))
        for trigger, rate in product(study.triggers, study.rates):
            yield Cell(dataset, model, trigger, format_rate(rate), str(seed))


def teachers(study: "Study") -> dict[str, str]:
    """The models of `study` that are distilled from another one, and from which."""
    given = {model: study.parameters("models", model).get("distill") for model in study.models}
    return {model: distill["teacher"] for model, distill in given.items() if distill}


def has_footprint(study: "Study", cell: Cell) -> bool:
    """Whether the trigger of `cell` changes samples at all, so that there is an attribution on it to explain."""
    return study.member("triggers", cell.trigger) not in (CLEAN, FLIPPED, CHOSEN)


def measured_by(study: "Study", cell: Cell) -> tuple[str, ...]:
    """The stages that measure the trained model of `cell`; each writes results_{stage}.json last.

    A model that is trained on clean data has no poison to detect among its training samples.
    """
    searched = study.trained_on(cell.model) == "poisoned"
    explained = has_footprint(study, cell) and "attribution" in study.offers(cell.model)
    return ("eval", *["detect"] * searched, *["explain"] * explained)


def cell_results(study: "Study", cell: Cell) -> list[str]:
    """The files that say a run is whole, below results_dir: the last that each of its stages writes.

    Not the results alone: Snakemake deletes what a failed stage had written and nothing that was made of it, so a run
    whose training failed when it was done anew still has its old results.
    """
    return list(result_files(study, cell).values())


def result_files(study: "Study", cell: Cell) -> dict[str, str]:
    """The same by stage, each a JSON file with the stamp that it was made by."""
    measured = {stage: f"{cell.run_folder}/results_{stage}.json" for stage in measured_by(study, cell)}
    return {"poison": f"{cell.poison_folder}/poison.json", "train": f"{cell.run_folder}/run_metadata.json", **measured}


def state_file(folder: str, stage: str) -> str:
    """Where `stage` keeps its state (state.py), if what it makes lies in `folder`."""
    return f"{folder}/state_{stage}.json"


def cohort_state_file(data_dir: str, dataset: str) -> str:
    """The same of a cohort, whose own folders belong to whoever tracks data."""
    return f"{data_dir}/states/{dataset}.json"


def log_file(results_dir: str, stage: str, cell: Cell | None = None) -> str:
    """Where what `stage` prints lies: of `cell`, or without one of the whole study."""
    job = stage
    if cell and stage == "sample_dev":
        job = f"{stage}/{cell.dataset}"
    elif cell:
        job = cell.poison_folder if stage == "poison" else cell.run_folder.replace("runs", stage, 1)
    return f"{results_dir}/logs/{job}.log"


def reads(study: "Study", wildcards, input) -> list[str]:
    """What a stage of a run reads beside the cohort, of the rule's `input`, as its options."""
    options = ["--poison", os.path.dirname(input.facts)] if hasattr(input, "facts") else []
    for name in ("weights", "control"):
        options += [f"--{name}", getattr(input, name)] if hasattr(input, name) else []
    if hasattr(input, "parents"):
        for name, weights in zip(study.parents(wildcards.model), input.parents, strict=True):
            options += ["--parent", name, weights]
    return options


def settings(study: "Study", stage: str, model: str = "", trigger: str = "") -> str:
    """What `stage` has to know of the study, as JSON: a change of it re-runs exactly the stage's own cells."""
    parts = {
        "model": lambda: study.given("models", model),
        "parents": lambda: {name: study.given("models", name) for name in study.parents(model)},
        "trigger": lambda: study.given("triggers", trigger),
        "detectors": lambda: {name: study.given("detectors", name) for name in study.detectors},
        "training": lambda: study.training_of(model).model_dump(mode="json"),
        "explain": lambda: study.explain.model_dump(mode="json"),
        "split": lambda: study.split,
        "target": lambda: study.target_of(trigger),
        # In a clean run there is nothing to find, for any target.
        "targets": lambda: study.targets if trigger == CLEAN else [study.target_of(trigger)],
        "validation": lambda: study.validation,
        "threshold": lambda: study.model_dump(mode="json", include={"threshold"})["threshold"],
        "device": lambda: study.device,
    }
    return json.dumps({name: parts[name]() for name in _NEEDS[stage]}, sort_keys=True)


_NEEDS = {
    "poison": ("trigger", "target", "split", "validation"),
    "train": ("model", "parents", "training", "split", "device"),
    "eval": ("model", "target", "threshold", "split", "device"),
    "detect": ("model", "detectors", "targets", "split", "device"),
    "explain": ("model", "explain", "target", "split", "device"),
}
