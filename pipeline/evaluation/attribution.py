"""What attributions [N, T, D] of samples say: how much falls on a footprint, and how they drift."""

import numpy as np


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
