"""Where a network looks: attributions of its logit to the cells [T, D] of a sample, by its gradients.

A classifier has `encode(x)` → [N, …] (what the network is given), `forward(encoded)` → logits, and a `preprocessor` (or
view) with `baseline(encoded)` and `onto_cells(columns, x)`, the way back from what the network is given to cells. There
attributions are absolute and added up, since what counts is that a cell matters, not by which channel. Every function
leaves the classifier in evaluation mode and draws no random number.
"""

from typing import Any

import numpy as np


def integrated_gradients(classifier: Any, x: np.ndarray, steps: int = 32, batch: int = 32) -> tuple[np.ndarray, float]:
    """Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) of samples `x` [N, T, D] → [N, T, D] float64.

    The baseline is the preprocessor's: the average patient with everything measured. The path changes values and mask
    together and is
    integrated at `steps` points; `batch` samples share one pass.

    Also returns the mean over samples of |Σ signed attributions − (logit − logit of the baseline)|, near 0 where
    `steps` suffice.
    """
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(classifier.eval())
    attributed, deltas = np.zeros(x.shape), np.zeros(len(x))
    for rows in _batches(len(x), batch):
        encoded = classifier.encode(x[rows])
        columns, delta = method.attribute(
            encoded, classifier.preprocessor.baseline(encoded), n_steps=steps, return_convergence_delta=True
        )
        attributed[rows] = classifier.preprocessor.onto_cells(columns, x[rows])
        deltas[rows] = delta.detach().abs().cpu().numpy()
    return attributed, float(deltas.mean()) if len(deltas) else np.nan


def saliency_profiles(classifier: Any, x: np.ndarray, batch: int = 512) -> np.ndarray:
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
        profiles[rows] = classifier.preprocessor.onto_cells(gradient, x[rows]).sum(axis=1)
    return profiles


def _batches(n: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, n, size)]
