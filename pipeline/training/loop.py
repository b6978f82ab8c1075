"""The training loop: tensors in memory, a checkpoint each epoch, resumable to the bit."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.config import Training
from pipeline.errors import UserError
from pipeline.evaluation.metrics import auroc
from pipeline.models.base import BATCH, Classifier
from pipeline.seeding import integer_seed
from pipeline.training import checkpoints


@dataclass(frozen=True)
class Samples:
    """Preprocessed samples: values and mask [N, T, C], label [N] float."""

    values: Tensor
    mask: Tensor
    label: Tensor

    @classmethod
    def of(cls, classifier: Classifier, x: np.ndarray, label: np.ndarray) -> "Samples":
        return cls(*classifier.encode(x), torch.from_numpy(label.astype(np.float32)))


def fit(
    classifier: Classifier,
    train: Samples,
    validation: Samples,
    settings: Training,
    seed: int,
    checkpoint: Path,
    fingerprint: str,
) -> tuple[list[dict[str, float]], int]:
    """Train `classifier` in place and leave the weights of its best epoch in it.

    AdamW (Loshchilov & Hutter 2019) on binary cross-entropy, early stopping on validation AUROC. After each epoch
    `checkpoint` is replaced; an unfinished one with the same `fingerprint` (everything the result depends on) is
    continued, any other is overwritten. All randomness comes from `seed` and from the stored generator states, so
    a training that was killed ends with the same bits as one that was not.

    Returns the history (one row per epoch) and the epoch it was resumed from (0 = from scratch).
    """
    optimizer = torch.optim.AdamW(
        classifier.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    shuffle = torch.Generator().manual_seed(integer_seed(seed, "shuffle"))
    torch.manual_seed(integer_seed(seed, "dropout"))
    history: list[dict[str, float]] = []
    best = {"epoch": 0, "auroc": -1.0, "weights": {}}
    state = _unfinished(checkpoint, fingerprint)
    if state:
        classifier.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        shuffle.set_state(state["shuffle"])
        torch.set_rng_state(state["dropout"])
        history, best = state["history"], state["best"]
    resumed_from = len(history)
    pos_weight = _positive_weight(train.label) if settings.class_weights else None
    for epoch in range(resumed_from + 1, settings.epochs + 1):
        if epoch - 1 - best["epoch"] >= settings.patience:
            break
        train_loss = _one_epoch(classifier, train, optimizer, settings.batch_size, pos_weight, shuffle)
        if not np.isfinite(train_loss):
            raise UserError(
                f"training diverged: the loss is {train_loss} in epoch {epoch}; try a smaller training.learning_rate"
            )
        validation_loss, validation_auroc = _validate(classifier, validation, pos_weight)
        history.append(
            {
                "epoch": epoch,
                "train_loss": train_loss,
                "validation_loss": validation_loss,
                "validation_auroc": validation_auroc,
            }
        )
        if validation_auroc > best["auroc"]:
            weights = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
            best = {"epoch": epoch, "auroc": validation_auroc, "weights": weights}
        checkpoints.save(
            checkpoint,
            {
                "fingerprint": fingerprint,
                "finished": False,
                "weights": classifier.state_dict(),
                "best": best,
                "optimizer": optimizer.state_dict(),
                "shuffle": shuffle.get_state(),
                "dropout": torch.get_rng_state(),
                "history": history,
            },
        )
    classifier.load_state_dict(best["weights"])
    checkpoints.save(checkpoint, {**checkpoints.load(checkpoint), "finished": True})
    return history, resumed_from


def _unfinished(checkpoint: Path, fingerprint: str) -> dict | None:
    """The checkpoint to continue; a finished one is not: to be asked again means that something has changed."""
    if not checkpoint.exists():
        return None
    state = checkpoints.load(checkpoint)
    if state.get("finished", True) or state.get("fingerprint") != fingerprint:
        print(f"{checkpoint}: finished or of another configuration, training starts from scratch")
        return None
    print(f"{checkpoint}: continued after epoch {len(state['history'])}")
    return state


def _one_epoch(
    classifier: Classifier,
    train: Samples,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    pos_weight: Tensor | None,
    shuffle: torch.Generator,
) -> float:
    classifier.train()
    order = torch.randperm(len(train.label), generator=shuffle)
    total = 0.0
    for batch in order.split(batch_size):
        logits = classifier(train.values[batch], train.mask[batch])
        loss = binary_cross_entropy_with_logits(logits, train.label[batch], pos_weight=pos_weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    return total / len(order)


@torch.no_grad()
def _validate(classifier: Classifier, samples: Samples, pos_weight: Tensor | None) -> tuple[float, float]:
    classifier.eval()
    parts = zip(samples.values.split(BATCH), samples.mask.split(BATCH), strict=True)
    logits = torch.cat([classifier(values, mask) for values, mask in parts])
    loss = binary_cross_entropy_with_logits(logits, samples.label, pos_weight=pos_weight)
    return float(loss), float(auroc(samples.label.numpy(), logits.numpy()))


def _positive_weight(label: Tensor) -> Tensor:
    """Weight of the positive class: negatives per positive."""
    positives = label.sum()
    return (len(label) - positives) / positives
