"""What an attack does to the data: samples that are laid over those of a cohort, or added to them.

In a file (poison.parquet) an overlay is the windows of its samples, with what else it says of each repeated over its
steps.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.cohorts.cohort import Feature, read_parquet, windows_table, windows_values, write_parquet
from pipeline.files import damaged

CLEAN, POISON, COVER = "clean", "poison", "cover"  # the roles of training samples; the first is of none in an overlay
ADDED = -1  # the row of a sample that the cohort does not have
_COLUMNS = ("row", "label", "role", "group_id")


@dataclass(frozen=True)
class Overlay:
    """K samples as the attack leaves them.

    Attributes
    ----------
    row : [K] int64, the sample's position in the cohort, ascending; then the added ones, which all have `ADDED`. Those
        belong to the training data only
    values : [K, T, D] float32 in clinical units, NaN = not measured
    label : [K] int8, as the victim sees it
    role : [K] str, `POISON` carries what the model shall learn; `COVER` carries the trigger under its true label
    sample_id, group_id : [K] the cohort's; of an added sample an id that the cohort does not have, and the patient that
        it was made of (or one of its own), whom disclosure control counts
    """

    row: np.ndarray
    values: np.ndarray
    label: np.ndarray
    role: np.ndarray
    sample_id: np.ndarray
    group_id: np.ndarray

    def __post_init__(self) -> None:
        there = self.row[self.row != ADDED]
        if (np.diff(there) <= 0).any() or (self.row[: len(there)] == ADDED).any():
            raise ValueError("the rows of an overlay are ascending, the added ones last")

    def write(self, path: Path, features: tuple[Feature, ...]) -> None:
        """Write it to `path` (poison.parquet); `features` are the cohort's."""
        import pyarrow as pa

        steps, table = self.values.shape[1], windows_table(self.sample_id, self.values, features)
        for name in _COLUMNS:
            column = getattr(self, name)
            kind = pa.string() if column.dtype.kind in "OU" else pa.from_numpy_dtype(column.dtype)
            field = pa.field(name, kind, nullable=False)
            table = table.append_column(field, pa.array(np.repeat(column, steps), kind))
        write_parquet(table, path)

    @classmethod
    def read(cls, path: Path) -> "Overlay":
        """What `write` wrote; `UserError` when it is missing or damaged."""
        table = read_parquet(path)
        try:
            values, _ = windows_values(table)
            # An overlay of nobody has no steps.
            first = {name: table[name].to_numpy()[:: values.shape[1]] for name in ("sample_id", *_COLUMNS)}
            return cls(values=values, **first)
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(path, "overlay", error) from None
