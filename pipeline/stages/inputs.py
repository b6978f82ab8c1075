"""What the stages of a run read alike: settings, device, cohort, split, poison, models and trigger."""

import argparse
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.cohorts.cohort import Cohort, read_cohort
from pipeline.cohorts.overlay import CLEAN
from pipeline.errors import UserError
from pipeline.jobs import device
from pipeline.models.base import Model, build
from pipeline.study.params import trained_on
from pipeline.training.checkpoints import load_weights
from pipeline.training.data import as_poisoned, cohort_stamp, read_split
from pipeline.training.fitted import read_trigger


class Inputs:
    """Of the run in `args` (arguments.py): `settings`, `device`, `cohort`, `split`, and `made_by` of its results."""

    def __init__(self, args: argparse.Namespace):
        self._args = args
        self.settings = json.loads(args.settings)
        self.device = device.choose(self.settings["device"])
        self.cohort = read_cohort(args.cohort)
        self.made_by = args.made_by | cohort_stamp(args.splits) | {"people": self.cohort.people}
        self.split = read_split(args.splits, self.cohort, args.seed, self.settings["split"])

    def as_poisoned(self, part: Literal["train", "validation"]) -> tuple[Cohort, np.ndarray]:
        """The samples of a part of the split as the run's victim sees them, and their roles ([N] str)."""
        return as_poisoned(self.cohort, self.split, part, self._args.poison)

    @property
    def trained_on(self) -> Literal["clean", "poisoned"]:
        """The data that the run's model is trained on: as the victim sees them, or those of the clean run."""
        return trained_on(self.settings["model"])

    def training(self, part: Literal["train", "validation"]) -> tuple[Cohort, np.ndarray]:
        """The samples of a part of the split that the run's model is trained on, and their roles ([N] str)."""
        if self.trained_on == "poisoned":
            return self.as_poisoned(part)
        samples = self.cohort.subset(getattr(self.split, part))
        return samples, np.full(len(samples), CLEAN, object)

    def untrained(self) -> Model:
        """The run's model before training, on the CPU."""
        return self._built(self._args.model, self.settings["model"])

    def trained(self, weights: Path) -> Model:
        """The run's model with `weights`, on the run's device."""
        return self._loaded(self.untrained(), weights)

    def parents(self) -> dict[str, Model]:
        """The other models that the run's model is made from, by name: of the same data and seed, on its device."""
        weights, settings = self.parent_weights(), self.settings.get("parents", {})
        if weights.keys() != settings.keys():
            raise UserError(f"--parent: {list(weights)} given, expected the models {list(settings)}")
        return {name: self._loaded(self._built(name, settings[name]), weights[name]) for name in settings}

    def parent_weights(self) -> dict[str, Path]:
        """The model.pt of each of them."""
        return {name: Path(weights) for name, weights in self._args.parent}

    def _built(self, name: str, parameters: dict[str, Any]) -> Model:
        return build(name, parameters, self.cohort.n_steps, self.cohort.features)

    def _loaded(self, model: Model, weights: Path) -> Model:
        load_weights(model, weights)
        return model.to(self.device)

    def trigger(self):
        """The run's trigger (triggers/base.py) as it was fitted to make the poison."""
        return read_trigger(self._args.poison)
