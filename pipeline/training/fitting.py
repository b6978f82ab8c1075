"""How a model is trained: a network by the training loop, any other by its own `fit`."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from pipeline.cohorts.cohort import Cohort
from pipeline.evaluation.metrics import auroc
from pipeline.models.base import Classifier, Model, ModelParameters, NetworkParameters
from pipeline.models.shared.curriculum import Curriculum
from pipeline.models.shared.distillation import Lesson
from pipeline.training import loop
from pipeline.training.settings import Training


def train(
    model: Model,
    parameters: ModelParameters,
    data: Cohort,
    validation: Cohort,
    settings: Training,
    seed: int,
    checkpoint: Path | None,
    fingerprint: str,
    parents: Mapping[str, Model],
) -> tuple[list[dict[str, float]], int]:
    """Train `model`, which has `parameters`, in place on `data`; both cohorts are as the victim sees them.

    `parents` are the trained models that its parameters name; TypeError where a network has others than those of its
    `distill` and `curriculum`, which are all that the loop knows.

    Returns the history and the epoch it was resumed from (loop.fit). A model that brings its own `fit` leaves no
    checkpoint, so one that was killed starts again, and has a history of one row, the losses unweighted.
    """
    if isinstance(model, Classifier):
        parameters = cast(NetworkParameters, parameters)
        distill, curriculum = parameters.distill, parameters.curriculum
        taught = {distill.teacher if distill else None, curriculum.scorer if curriculum else None}
        if others := parents.keys() - taught:
            raise TypeError(f"the training loop of networks has no use for {', '.join(others)}; bring a `fit`")
        model.preprocessor.fit(data.values)
        pace = settings.learning_rate * parameters.learning_rate_factor
        lesson = Lesson.of(distill, parents, data.values) if distill else None
        order = Curriculum.of(curriculum, parents, data.values, data.label, seed) if curriculum else None
        return loop.fit(
            model,
            loop.Samples.of(model, data.values, data.label),
            loop.Samples.of(model, validation.values, validation.label),
            settings.model_copy(update={"learning_rate": pace}),
            seed,
            checkpoint,
            fingerprint,
            lesson,
            order,
        )
    model.fit(data, validation, settings, seed, *([parents] if parents else []))
    probability = model.probability(validation.values)
    row = {
        "epoch": 1,
        "train_loss": _log_loss(data.label, model.probability(data.values)),
        "validation_loss": _log_loss(validation.label, probability),
        "validation_auroc": float(auroc(validation.label, probability)),
    }
    return [row], 0


def _log_loss(label: np.ndarray, probability: np.ndarray) -> float:
    """Mean −log of the probability given to the true label, cut off at the smallest one above 0."""
    given = np.where(label == 1, probability, 1 - probability)
    return float(-np.log(np.maximum(given, np.finfo(float).tiny)).mean())
