"""Where a classifier looks: attributions of its logit to the cells [T, D] of a sample.

A classifier has `encode(x)` → [N, T, 2C] (columns of values beside their missing masks), `preprocessor.source` (the
feature behind each column) and `forward(encoded)` → logits. Attributions to values and mask are absolute and added up,
over the columns of a feature too: what counts is that a cell matters, not by which channel. Every function leaves the
classifier in evaluation mode and draws no random number.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn


def integrated_gradients(
    classifier: "nn.Module", x: np.ndarray, steps: int = 32, batch: int = 32
) -> tuple[np.ndarray, float]:
    """Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) of samples `x` [N, T, D] → [N, T, D] float64.

    The baseline is the average patient with everything measured: values 0, mask 0. The path changes values and mask
    together and is integrated at `steps` points; `batch` samples share one pass.

    Also returns the mean over samples of |Σ signed attributions − (logit − logit of the baseline)|, near 0 where
    `steps` suffice.
    """
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(classifier.eval())
    attributed, deltas = np.zeros(x.shape), np.zeros(len(x))
    for rows in _batches(len(x), batch):
        encoded = classifier.encode(x[rows])
        columns, delta = method.attribute(encoded, 0, n_steps=steps, return_convergence_delta=True)
        attributed[rows] = _onto_features(columns, classifier, x.shape[2])
        deltas[rows] = delta.detach().abs().cpu().numpy()
    return attributed, _mean(deltas)


def saliency_profiles(classifier: "nn.Module", x: np.ndarray, batch: int = 512) -> np.ndarray:
    """Input gradients (Simonyan et al. 2013, arXiv 1312.6034) of samples `x` [N, T, D] per feature, [N, D] float32.

    The map of a sample is |∂ logit / ∂ input|, summed over steps; with a single logit it is the same for both labels.
    """
    from torch.autograd import grad

    classifier.eval()
    profiles = np.zeros((len(x), x.shape[2]), np.float32)
    for rows in _batches(len(x), batch):
        encoded = classifier.encode(x[rows]).requires_grad_()
        # A sample's logit depends on that sample alone, so the gradient of their sum holds the gradient of each.
        (gradient,) = grad(classifier(encoded).sum(), encoded)
        profiles[rows] = _onto_features(gradient, classifier, x.shape[2]).sum(axis=1)
    return profiles


def attribution_ratio(attribution: np.ndarray, footprint: np.ndarray) -> float:
    """Mean over samples of the share of |attribution| ([N, T, D]) on `footprint` ([T, D] bool).

    Samples without any attribution have no share and are left out; NaN if none remains.
    """
    size = np.abs(attribution)
    total = size.sum(axis=(1, 2))
    return _mean(size[:, footprint].sum(axis=1)[total > 0] / total[total > 0])


def drift(a: np.ndarray, b: np.ndarray, top_k: int) -> dict[str, float]:
    """Likeness of two sets of attributions of the same samples, each [N, T, D]: means over samples, 1 = the same.

    cosine, spearman : similarity and rank correlation over all cells
    topk_jaccard : overlap of the `top_k` largest cells, |intersection| / |union|; NaN where that is all cells, which
        overlap whatever the attributions

    Samples without attribution in one of the sets are left out; NaN if none remains.
    """
    from scipy.stats import rankdata

    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    kept = a.any(axis=1) & b.any(axis=1)
    a, b = a[kept], b[kept]
    top_a, top_b = _largest(a, top_k), _largest(b, top_k)
    overlap = (top_a & top_b).sum(axis=1) / (top_a | top_b).sum(axis=1)
    return {
        "cosine": _mean(_cosine(a, b)),
        # Ranks centred on their mean: their cosine is Pearson's correlation of the ranks, with ties as mid-ranks.
        "spearman": _mean(_cosine(*(rankdata(cells, axis=1) - (cells.shape[1] + 1) / 2 for cells in (a, b)))),
        "topk_jaccard": _mean(overlap) if top_k < a.shape[1] else np.nan,
    }


def _batches(n: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, n, size)]


def _onto_features(columns: "Tensor", classifier: "nn.Module", n_features: int) -> np.ndarray:
    """Attributions to values and masks [B, T, 2C] → [B, T, D] float64: absolute, added up per feature."""
    import torch

    values, mask = columns.detach().abs().double().cpu().chunk(2, dim=2)
    total = torch.zeros(*values.shape[:2], n_features, dtype=torch.float64)
    return total.index_add_(2, classifier.preprocessor.source.cpu(), values + mask).numpy()


def _largest(cells: np.ndarray, k: int) -> np.ndarray:
    """[N, cells] bool: the `k` largest absolute values of each row; the first of equal ones."""
    chosen = np.zeros(cells.shape, bool)
    np.put_along_axis(chosen, np.argsort(-np.abs(cells), axis=1, kind="stable")[:, :k], True, axis=1)
    return chosen


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[N] cosine of the rows of `a` and `b`; NaN where a row is zero."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(axis=1), norms, out=np.full(len(a), np.nan), where=norms > 0)


def _mean(values: np.ndarray) -> float:
    """The mean of what is defined."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else np.nan
