"""A series as one row of numbers per sample, for models that read tables, and the way back to its cells."""

from dataclasses import dataclass

import numpy as np

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.preprocessing import columns_of, named_unseen

NUMBER, CATEGORY = ("mean", "min", "max", "last", "count"), ("last", "count")
EACH = "count_of"  # beside those of `CATEGORY`, once for each category


@dataclass(frozen=True)
class Column:
    """One number per sample: the `kind` of summary of the feature at `position`; if it is `EACH`, of a `category`."""

    position: int
    kind: str
    category: int | None = None


class Summaries:
    """Samples [N, T, D] in clinical units → [N, S] float64, NaN = nothing measured.

    A plain table (T = 1) stays as it is, S = D. Of a series a number that changes over the steps becomes its mean,
    lowest, highest and last measured value and the count of its measured steps, a category its last measured one (as
    its position in the feature's categories), that count, and the count of the steps of each category; a static
    feature is read once.

    What training never saw counts as missing, as for networks: every number of a feature that was never measured
    there, and a category that never occurred.

    Attributes
    ----------
    columns : what each of the S numbers is
    seen : [number or category …] bool, in the order of `columns_of`: whether it occurred in training
    """

    def __init__(self, features: tuple[Feature, ...], n_steps: int):
        self._features = features
        self._shape = n_steps, len(features)
        self.columns = tuple(
            column
            for position, feature in enumerate(features)
            for column in _columns_of_one(position, feature, n_steps)
        )
        self.seen = np.ones(len(columns_of(features)), bool)

    @property
    def categorical(self) -> list[int]:
        """Which of the S numbers are the position of a category."""
        return [number for number, feature in enumerate(self.described) if feature.categories]

    @property
    def described(self) -> tuple[Feature, ...]:
        """The S numbers as features of a table."""
        return tuple(self._described(column) for column in self.columns)

    def _described(self, column: Column) -> Feature:
        feature = self._features[column.position]
        if column.category is not None:
            return Feature(f"{feature.name} (count of {feature.categories[column.category]})")
        return Feature(
            f"{feature.name} ({column.kind})", categories=feature.categories if column.kind != "count" else ()
        )

    def fit(self, values: np.ndarray) -> "Summaries":
        """Note what occurs in the training samples `values` ([N, T, D], as poisoned)."""
        for number, (position, category) in enumerate(columns_of(self._features)):
            of = values[:, :, position]
            self.seen[number] = (~np.isnan(of) if category < 0 else of == category).any()
        return self

    def unseen(self, cohort: Cohort) -> list[str]:
        """What occurs in `cohort` and counts as missing, as it never occurred in training."""
        columns = columns_of(self._features)
        return named_unseen([columns[number] for number in np.flatnonzero(~self.seen)], cohort)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x = self._known(x)
        measured = ~np.isnan(x)
        count = measured.sum(axis=1)
        at_last = _last(measured)

        def last(p: int, _) -> np.ndarray:
            return np.take_along_axis(x[:, :, p], at_last[:, None, p], axis=1)[:, 0]

        with np.errstate(invalid="ignore"):  # the mean of nothing
            of_kind = {
                "value": last,
                "last": last,
                "mean": lambda p, _: np.where(measured[:, :, p], x[:, :, p], 0).sum(axis=1) / count[:, p],
                "min": lambda p, _: np.fmin.reduce(x[:, :, p], axis=1),
                "max": lambda p, _: np.fmax.reduce(x[:, :, p], axis=1),
                "count": lambda p, _: count[:, p].astype(np.float64),
                EACH: lambda p, category: (x[:, :, p] == category).sum(axis=1, dtype=np.float64),
            }
            numbers = [of_kind[column.kind](column.position, column.category) for column in self.columns]
            return np.stack(numbers, axis=1)

    def onto_cells(self, attribution: np.ndarray, x: np.ndarray) -> np.ndarray:
        """What is attributed to the S numbers of samples `x`, [N, S], shared out to the cells they read → [N, T, D].

        The mean and a static value read the measured cells alike, the lowest and the highest value those that have
        it, the last value the last measured cell, the count of a category the cells of that one. The count of what was
        measured reads all cells of its feature, and so does any number that has no cell to read: of a feature that was
        nowhere measured, or of a category that does not occur. The total of a sample stays what it is.
        """
        x = self._known(x)
        measured = ~np.isnan(x)
        nothing = ~measured.any(axis=1, keepdims=True)
        steps = np.arange(x.shape[1])[:, None]
        cells = {
            "value": measured,
            "last": steps == _last(measured)[:, None],
            "mean": measured,
            "min": x == np.fmin.reduce(x, axis=1)[:, None],
            "max": x == np.fmax.reduce(x, axis=1)[:, None],
            "count": np.ones_like(measured),
        }
        total = np.zeros(x.shape)
        for number, column in enumerate(self.columns):
            position = column.position
            if column.kind == EACH:
                read = x[:, :, position] == column.category
                read |= ~read.any(axis=1, keepdims=True)
            else:
                read = (cells[column.kind] | nothing)[:, :, position]
            total[:, :, position] += read * (attribution[:, number] / read.sum(axis=1))[:, None]
        return total

    def onto_features(self, attribution: np.ndarray) -> np.ndarray:
        """What is attributed to the S numbers of each sample, [N, S], added up per feature → [N, D]."""
        total = np.zeros((len(attribution), self._shape[1]))
        for number, column in enumerate(self.columns):
            total[:, column.position] += attribution[:, number]
        return total

    def _known(self, x: np.ndarray) -> np.ndarray:
        """`x` in float64, without what training never saw."""
        x = x.astype(np.float64)
        for number, (position, category) in enumerate(columns_of(self._features)):
            if not self.seen[number]:
                of = x[:, :, position]
                of[(of == category) | (category < 0)] = np.nan
        return x


def _columns_of_one(position: int, feature: Feature, n_steps: int) -> list[Column]:
    if n_steps == 1 or feature.static:
        return [Column(position, "value")]
    kinds = CATEGORY if feature.categories else NUMBER
    each = [Column(position, EACH, category) for category in range(len(feature.categories))]
    return [*(Column(position, kind) for kind in kinds), *each]


def _last(measured: np.ndarray) -> np.ndarray:
    """[N, T, D] bool → [N, D] the last step that is True; the last of all where none is."""
    return measured.shape[1] - 1 - measured[:, ::-1].argmax(axis=1)
