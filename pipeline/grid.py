"""The grid of a study and where each cell's files lie. The only place that formats a rate."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

CLEAN = "none"
CONTROLS = (CLEAN, "flip_only")


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


def cells(study) -> Iterator[Cell]:
    """Every run of `study` (`pipeline.config.Study`): the clean runs, then trigger × rate."""
    for dataset, model, seed in product(study.datasets, study.models, study.seeds):
        yield Cell(dataset, model, CLEAN, format_rate(0), str(seed))
        for trigger, rate in product(study.triggers, study.rates):
            yield Cell(dataset, model, trigger, format_rate(rate), str(seed))
