"""Activation clustering (Chen et al. 2018, arXiv 1811.03728): two clusters within a label, the smaller is suspect.

The activations of each label are reduced to ten dimensions and split by 2-means. The paper reduces them by independent
component analysis; principal components, the other choice of the Adversarial Robustness Toolbox, have no random start
and always converge. The own rule is the toolbox's: the smaller cluster is poison if it is small enough (the paper's
relative size) and the two clusters are well separated (its silhouette score).
"""

import numpy as np
from pydantic import Field

from pipeline.detectors.base import Evidence, Suspicion, per_label, principal_components, robust_z
from pipeline.seeding import generator
from pipeline.study.params import Params

NEEDS = "representation"
SILHOUETTE_SAMPLES = 2000
"""The silhouette compares all pairs, so it is estimated on a sample of about this size."""


class Parameters(Params):
    components: int = Field(10, ge=1, description="principal components that are clustered")
    max_cluster_share: float = Field(0.35, gt=0, le=0.5, description="largest share of its label that is still suspect")
    min_silhouette: float = Field(0.1, ge=-1, le=1, description="smallest silhouette of clusters that count as two")


def detect(evidence: Evidence, parameters: Parameters) -> Suspicion:
    """Score: position on the line from the larger to the smaller cluster's centroid, robust z per label."""

    def within(rows: np.ndarray) -> Suspicion:
        x = principal_components(evidence.representations(rows), parameters.components)
        if not x.shape[1]:
            return Suspicion(np.zeros(len(rows)), np.zeros(len(rows), bool))
        small = _smaller_cluster(x)
        towards = x[small].mean(axis=0) - x[~small].mean(axis=0)
        random = generator(evidence.seed, "detector/activation_clustering")
        is_small = small.mean() < parameters.max_cluster_share
        suspect = is_small and _silhouette(x, small, random) > parameters.min_silhouette
        return Suspicion(robust_z(x @ towards / np.linalg.norm(towards)), small & suspect)

    return per_label(evidence, within)


def _smaller_cluster(x: np.ndarray) -> np.ndarray:
    """[N] bool: the smaller cluster of the best 2-means solution for `x` [N, components].

    One start per component, from the means of the two sides (Su & Dy 2004): no random choice, so that the result does
    not depend on the order of the samples.
    """
    from sklearn.cluster import KMeans

    sides = (x[:, component] > 0 for component in range(x.shape[1]))
    starts = (np.stack([x[side].mean(axis=0), x[~side].mean(axis=0)]) for side in sides)
    best = min((KMeans(2, init=start, n_init=1).fit(x) for start in starts), key=lambda fitted: fitted.inertia_)
    cluster = best.labels_ == 1
    return cluster if cluster.mean() <= 0.5 else ~cluster


def _silhouette(x: np.ndarray, cluster: np.ndarray, random: np.random.Generator) -> float:
    """Silhouette score (Rousseeuw 1987) on a sample that keeps the share of each cluster."""
    from sklearn.metrics import silhouette_score

    share = min(1.0, SILHOUETTE_SAMPLES / len(x))
    members = (np.flatnonzero(cluster == side) for side in (False, True))
    chosen = np.concatenate([random.permutation(rows)[: int(np.ceil(share * len(rows)))] for rows in members])
    return silhouette_score(x[chosen], cluster[chosen])
