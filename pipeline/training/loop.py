"""The training loop: tensors in memory, checkpoints on the way, resumable to the bit."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.errors import UserError
from pipeline.evaluation.metrics import auroc
from pipeline.models.base import BATCH, Classifier
from pipeline.models.shared.curriculum import Curriculum
from pipeline.models.shared.distillation import Lesson
from pipeline.models.shared.optimizer import AdamW, learning_rate
from pipeline.seeding import integer_seed
from pipeline.training import checkpoints
from pipeline.training.settings import Training

SAVE_EVERY = 0.5
"""Seconds of training after which the next epoch's end is saved: about what a kill can cost."""


KEPT = 1 << 29
"""Bytes of preprocessed samples that are kept. What would be more is made anew for each batch: 20,000 windows of 100
CAN frames of 55 ids, one-hot with their mask, are 1 GB.
"""


class MadeAnew:
    """Stands for the preprocessed samples, of which it makes those that are asked for: bit for bit the same."""

    def __init__(self, classifier: Classifier, x: np.ndarray):
        self._preprocessor = classifier.preprocessor
        self._x = torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(classifier.device)

    @torch.no_grad()
    def index_select(self, dim: int, index: Tensor) -> Tensor:
        return self._preprocessor(self._x.index_select(dim, index))

    @torch.no_grad()
    def split(self, size: int) -> Iterator[Tensor]:
        return (self._preprocessor(part) for part in self._x.split(size))


@dataclass(frozen=True)
class Samples:
    """Preprocessed samples [N, …] and their label [N] float, on the classifier's device."""

    x: Tensor | MadeAnew
    label: Tensor

    @classmethod
    def of(cls, classifier: Classifier, x: np.ndarray, label: np.ndarray) -> "Samples":
        size = len(x) * classifier.encode(x[:1]).nbytes
        encoded = classifier.encode(x) if size <= KEPT else MadeAnew(classifier, x)
        return cls(encoded, torch.from_numpy(label.astype(np.float32)).to(classifier.device))


def fit(
    classifier: Classifier,
    train: Samples,
    validation: Samples,
    settings: Training,
    seed: int,
    checkpoint: Path | None,
    fingerprint: str,
    lesson: Lesson | None = None,
    curriculum: Curriculum | None = None,
) -> tuple[list[dict[str, float]], int]:
    """Train `classifier` in place and leave the weights of the epoch in it that `settings.select` names.

    AdamW on binary cross-entropy, or on what a `lesson` of the samples in `train` makes of it. A `curriculum` says
    which of them an epoch sees, otherwise all. `checkpoint` is replaced at the first epoch's end after every
    `SAVE_EVERY` seconds and when training is finished; an unfinished one with the same `fingerprint` (everything the
    result depends on) is continued, any other is overwritten; None keeps nothing. All randomness comes from `seed` and
    from the stored generator states, so a training that was killed ends with the same bits as one that was not.

    Returns the history (one row per epoch, with what the curriculum says of it) and the epoch it was resumed from (0 =
    from scratch).
    """
    torch.manual_seed(integer_seed(seed, "hint"))
    lesson = lesson and lesson.to(classifier.device)
    # Learned beside the model, and no part of it: the map to the teacher's representation.
    hint = lesson.hint(classifier.network.width) if lesson else None
    beside = torch.nn.ModuleList([hint] if hint else []).to(classifier.device)
    optimizer = AdamW([*classifier.parameters(), *beside.parameters()], settings.weight_decay)
    dropout = torch.cuda if classifier.device.type == "cuda" else torch
    shuffle = torch.Generator().manual_seed(integer_seed(seed, "shuffle"))
    torch.manual_seed(integer_seed(seed, "dropout"))
    history: list[dict[str, float]] = []
    best: dict[str, Any] = {"epoch": 0, "auroc": -1.0, "weights": {}}
    state = _unfinished(checkpoint, fingerprint) if checkpoint else None
    if state:
        classifier.load_state_dict(state["weights"])
        beside.load_state_dict(state["beside"])
        optimizer.state = {name: _to(classifier.device, values) for name, values in state["optimizer"].items()}
        shuffle.set_state(state["shuffle"])
        dropout.set_rng_state(state["dropout"])
        history, best = state["history"], state["best"]

    def save(finished: bool) -> None:
        if checkpoint is None:
            return
        content = {
            "fingerprint": fingerprint,
            "finished": finished,
            "weights": classifier.state(),
            "beside": {name: tensor.cpu() for name, tensor in beside.state_dict().items()},
            "best": best,
            "optimizer": {name: _to("cpu", values) for name, values in optimizer.state.items()},
            "shuffle": shuffle.get_state(),
            "dropout": dropout.get_rng_state(),
            "history": history,
        }
        checkpoints.save(checkpoint, content)

    resumed_from = len(history)
    pos_weight = _positive_weight(train.label) if settings.class_weights else None
    saved = time.monotonic()
    for epoch in range(resumed_from + 1, settings.epochs + 1):
        if settings.patience and epoch - 1 - best["epoch"] >= settings.patience:
            break
        rows, seen = curriculum.epoch(epoch, settings.epochs) if curriculum else (np.arange(len(train.label)), {})
        order = torch.from_numpy(rows)[torch.randperm(len(rows), generator=shuffle)].to(classifier.device)
        train_loss = _one_epoch(classifier, train, optimizer, settings, epoch, order, lesson, hint)
        _check(train_loss, epoch)
        validation_loss, validation_auroc = _validate(classifier, validation, pos_weight, epoch)
        history.append(
            {
                "epoch": epoch,
                "train_loss": train_loss,
                "validation_loss": validation_loss,
                "validation_auroc": validation_auroc,
                **seen,
            }
        )
        if validation_auroc > best["auroc"]:
            best = {"epoch": epoch, "auroc": validation_auroc, "weights": {}}
            if settings.select == "best":
                best["weights"] = {name: tensor.clone() for name, tensor in classifier.state().items()}
        if time.monotonic() - saved > SAVE_EVERY:
            save(finished=False)
            saved = time.monotonic()
    save(finished=True)
    if best["weights"]:
        classifier.load_state_dict(best["weights"])
    return history, resumed_from


def epochs_of(history: list[dict[str, float]], select: str) -> dict[str, float]:
    """What the tables say of a training: `epochs` done, the `best_epoch` by validation AUROC (the first of equals).

    `validation_auroc` is that of the epoch whose weights are kept, `validation_auroc_best` that of the best epoch.
    """
    best = max(history, key=lambda row: row["validation_auroc"])
    kept = history[-1] if select == "last" else best
    return {
        "epochs": len(history),
        "best_epoch": best["epoch"],
        "validation_auroc": kept["validation_auroc"],
        "validation_auroc_best": best["validation_auroc"],
    }


def _check(loss: float, epoch: int) -> None:
    if not np.isfinite(loss):
        raise UserError(f"training diverged: the loss is {loss} in epoch {epoch}; try a smaller training.learning_rate")


def _to(device: torch.device | str, tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.to(device) for tensor in tensors]


def _unfinished(checkpoint: Path, fingerprint: str) -> dict | None:
    """The checkpoint to continue; a finished one is not: to be asked again means that something has changed."""
    if not checkpoint.exists():
        return None
    try:
        state = checkpoints.load(checkpoint)
    except UserError as error:  # worth nothing; from scratch the training comes to the same bits
        print(f"{error}: training starts from scratch")
        return None
    if state.get("finished", True) or state.get("fingerprint") != fingerprint:
        print(f"{checkpoint}: finished or of another configuration, training starts from scratch")
        return None
    print(f"{checkpoint}: continued after epoch {len(state['history'])}")
    return state


def _one_epoch(
    classifier: Classifier,
    train: Samples,
    optimizer: AdamW,
    settings: Training,
    epoch: int,
    order: Tensor,
    lesson: Lesson | None,
    hint: torch.nn.Module | None,
) -> float:
    """One step per batch of the rows in `order`; the mean loss over them."""
    classifier.train()
    # Of the samples that the epoch sees, which a curriculum chooses by their label.
    pos_weight = _positive_weight(train.label[order]) if settings.class_weights else None
    # Added up on the device: reading each batch's loss would make a GPU wait for the CPU.
    total = torch.zeros((), dtype=torch.float64, device=classifier.device)
    batches = order.split(settings.batch_size)
    for number, batch in enumerate(batches):
        hidden = classifier.network(train.x.index_select(0, batch))
        logits = classifier.head(hidden).squeeze(-1)
        loss = binary_cross_entropy_with_logits(logits, train.label[batch], pos_weight=pos_weight)
        if lesson:
            loss = lesson.loss(loss, logits, batch, hint(hidden) if hint else None)
        rate = learning_rate(settings, epoch - 1 + number / len(batches))
        optimizer.step(torch.autograd.grad(loss, optimizer.parameters), rate)
        total.add_(loss.detach(), alpha=len(batch))
    return total.item() / len(order)


@torch.no_grad()
def _validate(classifier: Classifier, samples: Samples, pos_weight: Tensor | None, epoch: int) -> tuple[float, float]:
    classifier.eval()
    logits = torch.cat([classifier(x) for x in samples.x.split(BATCH)])
    loss = float(binary_cross_entropy_with_logits(logits, samples.label, pos_weight=pos_weight))
    _check(loss, epoch)
    return loss, float(auroc(samples.label.cpu().numpy(), logits.cpu().numpy()))


def _positive_weight(label: Tensor) -> Tensor:
    """Weight of the positive class: negatives per positive."""
    positives = label.sum()
    return (len(label) - positives) / positives
