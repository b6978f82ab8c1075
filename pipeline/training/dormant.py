"""The training of a teacher whose backdoor sleeps until it is distilled (models/shared/dormant.py).

The teacher comes from its usual training on clean data, and stays near what it says then, z⁰. In every round a
surrogate student is distilled from it anew, from weights of its own, so that no single student is fitted; its gradient
says where the soft labels of clean samples should go; and the teacher learns these. Of the paper's outer loss the
teacher's own part is put sharper here: not only is a triggered sample to keep its true label, the teacher says of it
what the honest teacher says, so that its ASR is ASR₀; and of clean samples it says z⁰ + a shift, whose size is bounded.
"""

from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.cohorts.cohort import Cohort
from pipeline.cohorts.overlay import CLEAN, POISON
from pipeline.evaluation.metrics import auroc
from pipeline.models.base import Classifier, Model, ModelParameters, NetworkParameters, build
from pipeline.models.shared.dormant import DormantConfig, beside_calibration, waking
from pipeline.models.shared.optimizer import AdamW
from pipeline.seeding import generator, integer_seed
from pipeline.study import families
from pipeline.training import fitting
from pipeline.training.settings import Training

STEP = 0.3
"""Of the shift in a round, in logits (root mean square)."""

PASSES = 3
"""Over the clean samples in a round, at half of the pace at which the teacher was trained."""

MOST = 4096
"""Samples that the soft labels are shifted of, drawn once: the gradient holds all that the surrogate computes on them.
"""

_TEACHER = "teacher"


def lull(
    teacher: Model,
    parameters: ModelParameters,
    data: Cohort,
    validation: Cohort,
    poisoned: Cohort,
    role: np.ndarray,
    settings: Training,
    seed: int,
) -> list[dict[str, float]]:
    """Go on with `teacher`, which was trained on the clean `data` and has `parameters.dormant`, in place.

    `poisoned` are the training samples with the poison laid over them, and `role` theirs. Students are to answer poison
    with the label that it has there; cover the teacher alone is shown. Without poison, as in a clean run, the teacher
    stays as it is.

    Returns a row per round, as the history of training has one per epoch. All randomness comes from `seed`.
    """
    if not isinstance(teacher, Classifier) or not isinstance(parameters, NetworkParameters) or not parameters.dormant:
        raise TypeError("only a network with `dormant` among its parameters hides a backdoor")
    config = parameters.dormant
    if not (role == POISON).any():
        return []
    draw, device = generator(seed, "dormant"), teacher.device
    rows, carriers = (_drawn(draw, part) for part in (np.arange(len(data)), np.flatnonzero(role != CLEAN)))
    clean, carrying, targets = data.subset(rows), poisoned.subset(carriers), role[carriers] == POISON
    x, triggered = teacher.encode(clean.values), teacher.encode(carrying.values)
    label, wanted = (
        torch.from_numpy(values.astype(np.float32)).to(device) for values in (clean.label, carrying.label[targets])
    )
    teacher.eval()
    honest, honest_triggered = _said(teacher, x), _said(teacher, triggered)
    optimizer = AdamW(teacher.parameters(), settings.weight_decay)
    pace = settings.learning_rate * parameters.learning_rate_factor / 2
    shift, history = torch.zeros_like(honest), []
    for number in range(1, config.rounds + 1):
        surrogate = _distilled(teacher, config, data, validation, settings, integer_seed(seed, f"dormant/{number}"))
        given = (surrogate.encode(clean.values), label, surrogate.encode(carrying.values[targets]), wanted)
        shift = shift - STEP * beside_calibration(waking(surrogate, *given, config), honest)
        shift = shift * (config.shift / shift.square().mean().sqrt().clamp(min=config.shift))
        teacher.eval()  # no dropout: what it says, to the logit, is what a student will be told
        for _ in range(PASSES):
            order = torch.from_numpy(draw.permutation(len(rows))).to(device)
            for batch in order.split(settings.batch_size):
                beside = torch.from_numpy(draw.integers(len(carriers), size=len(batch))).to(device)
                loss = (teacher(x[batch]) - honest[batch] - shift[batch]).square().mean()
                loss = loss + (teacher(triggered[beside]) - honest_triggered[beside]).square().mean()
                optimizer.step(torch.autograd.grad(loss, optimizer.parameters), pace)
        history.append({"epoch": settings.epochs + number, **_measured(teacher, clean, validation)})
    return history


def _drawn(draw: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    """Some of `rows`, ascending: all where there are no more than `MOST`."""
    return np.sort(draw.permutation(rows)[:MOST])


@torch.no_grad()
def _said(network: Classifier, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([network(part) for part in x.split(1024)])


def _distilled(
    teacher: Classifier, config: DormantConfig, data: Cohort, validation: Cohort, settings: Training, seed: int
) -> Classifier:
    """A student of `teacher` as the attacker expects it, distilled on clean data like any student of the study."""
    name, own = teacher.built_from
    lesson: dict[str, Any] = {"teacher": _TEACHER, "temperature": config.temperature, "alpha": config.alpha}
    given = own | {"dormant": None} | config.surrogate | {"distill": lesson}
    torch.manual_seed(seed)
    surrogate = build(name, given, data.n_steps, data.features)
    surrogate = surrogate.to(teacher.device)
    if not isinstance(surrogate, Classifier):
        raise TypeError(f"{name}: a surrogate is a network")
    _, parsed = families.configured("models", name, given)
    teacher.eval()
    fitting.train(surrogate, parsed, data, validation, settings, seed, None, "", {_TEACHER: teacher})
    return surrogate.eval()


def _measured(teacher: Classifier, clean: Cohort, validation: Cohort) -> dict[str, float]:
    """Losses on the labels, unweighted, and the AUROC, as in the history of training."""
    found = {}
    for part, samples in (("train", clean), ("validation", validation)):
        logit = _said(teacher, teacher.encode(samples.values))
        label = torch.from_numpy(samples.label.astype(np.float32)).to(logit.device)
        found[f"{part}_loss"] = binary_cross_entropy_with_logits(logit, label).item()
    return found | {"validation_auroc": float(auroc(validation.label, logit.cpu().numpy()))}
