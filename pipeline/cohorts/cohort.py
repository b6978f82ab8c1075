"""The sample contract: what every source delivers and every stage reads.

Files of a cohort (one folder per dataset):
    samples.parquet   sample_id, group_id, label, part, stratum:…      one row per sample
    windows.parquet   sample_id, step, one float32 column per feature  T rows per sample, null = not measured
The description of a feature (unit, range, categories) travels as metadata of its column, the relations between features
and what is to be known of the data (`Cohort.warnings`) as metadata of windows.parquet.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.errors import UserError
from pipeline.files import damaged, whole

RESERVED = ("sample_id", "step")  # columns of windows.parquet that are no features
STRATUM = "stratum:"  # what columns of samples.parquet begin with that hold the texts of one
WHOLE = "all"  # not the name of a stratum: in results it stands for all samples
MOST_VALUES = 20  # different texts of a stratum: more would tell patients apart


@dataclass(frozen=True)
class Feature:
    """One column of a cohort, in clinical units.

    `low` and `high` bound what is clinically plausible; `categories` is empty for a number, otherwise
    the value is the position of the category in that tuple. A static feature is the same at all steps, an integer one
    has whole numbers only. `fill` says what a model may take for a value that is not measured: the last one before it
    ("last"), or nothing of other steps ("none"), where a step is a thing of its own and not a later look at the same.
    """

    name: str
    unit: str = ""
    low: float = -np.inf
    high: float = np.inf
    categories: tuple[str, ...] = ()
    static: bool = False
    integer: bool = False
    fill: Literal["last", "none"] = "last"


@dataclass(frozen=True)
class Cohort:
    """Samples ready for modelling.

    Attributes
    ----------
    sample_id, group_id : [N] int64 or str; the group (patient, vehicle) never crosses a split
    label : [N] int8, 0 or 1
    values : [N, T, D] float32 in clinical units, NaN = not measured
    relations : chains of feature names; where two neighbours are measured, the first is at most the second
    warnings : what readers of results must know of the data, in words; no ids, no values, no counts of 1 to 9
    strata : name → [N] str, "" = not known; what results are told apart by, and no model sees
    part : [N] str, "train" or "test", where those who published the data say so themselves; None leaves it to `splits`
    people : whether the groups are people, of whom tables tell nothing that rests on a few (results/disclosure.py)
    """

    name: str
    features: tuple[Feature, ...]
    sample_id: np.ndarray
    group_id: np.ndarray
    label: np.ndarray
    values: np.ndarray
    relations: tuple[tuple[str, ...], ...] = ()
    warnings: tuple[str, ...] = ()
    strata: dict[str, np.ndarray] = field(default_factory=dict)
    part: np.ndarray | None = None
    people: bool = True

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or self.values.shape[::2] != (len(self.label), len(self.features)):
            raise ValueError(f"values of shape {self.values.shape} do not fit {len(self.label)} samples")

    def __len__(self) -> int:
        return len(self.label)

    @property
    def n_steps(self) -> int:
        return self.values.shape[1]

    @property
    def feature_names(self) -> list[str]:
        return [feature.name for feature in self.features]

    def subset(self, rows: np.ndarray) -> "Cohort":
        """The samples at `rows` (positions or a boolean mask), in that order."""
        return replace(
            self,
            sample_id=self.sample_id[rows],
            group_id=self.group_id[rows],
            label=self.label[rows],
            values=self.values[rows],
            strata={name: texts[rows] for name, texts in self.strata.items()},
            part=None if self.part is None else self.part[rows],
        )


def windows_table(sample_id: np.ndarray, values: np.ndarray, features: tuple[Feature, ...]):
    """[N, T, D] values as a long Arrow table `sample_id, step, feature…` (NaN becomes null)."""
    import pyarrow as pa

    n, steps, _ = values.shape
    # Not the type of pa.array(sample_id): an array of no texts has none.
    fields = [
        pa.field("sample_id", pa.string() if sample_id.dtype.kind in "OU" else pa.int64(), nullable=False),
        pa.field("step", pa.int16(), nullable=False),
    ]
    columns = [np.repeat(sample_id, steps), np.tile(np.arange(steps, dtype=np.int16), n)]
    for position, feature in enumerate(features):
        fields.append(pa.field(feature.name, pa.float32(), metadata={"feature": json.dumps(asdict(feature))}))
        columns.append(np.ascontiguousarray(values[:, :, position]).reshape(-1))
    arrays = [pa.array(column, field.type, from_pandas=True) for column, field in zip(columns, fields, strict=True)]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def windows_values(table) -> tuple[np.ndarray, tuple[Feature, ...]]:
    """The inverse of `windows_table`: [N, T, D] float32 values (null becomes NaN) and the features."""
    fields = [field for field in table.schema if field.metadata and b"feature" in field.metadata]
    features = tuple(_feature(json.loads(field.metadata[b"feature"])) for field in fields)
    steps = int(table["step"].to_numpy().max()) + 1 if len(table) else 1
    values = np.empty((len(table), len(fields)), np.float32)
    for position, column in enumerate(fields):
        values[:, position] = table[column.name].to_numpy()
    return values.reshape(-1, steps, len(fields)), features


def _feature(description: dict) -> Feature:
    return Feature(**{**description, "categories": tuple(description["categories"])})


def write_cohort(cohort: Cohort, folder: Path) -> None:
    """Write samples.parquet and windows.parquet into `folder`."""
    import pyarrow as pa

    samples = {"sample_id": cohort.sample_id, "group_id": cohort.group_id, "label": cohort.label}
    if cohort.part is not None:
        samples["part"] = pa.array(cohort.part, pa.string())
    samples |= {STRATUM + name: pa.array(texts, pa.string()) for name, texts in cohort.strata.items()}
    windows = windows_table(cohort.sample_id, cohort.values, cohort.features)
    facts = {name: getattr(cohort, name) for name in ("relations", "warnings", "people")}
    windows = windows.replace_schema_metadata({name: json.dumps(fact) for name, fact in facts.items()})
    write_parquet(pa.table(samples), Path(folder) / "samples.parquet")
    write_parquet(windows, Path(folder) / "windows.parquet")


def write_parquet(table, path: Path) -> None:
    """Write an Arrow table, with a sum over each page that `read_parquet` holds it against."""
    import pyarrow.parquet as pq

    with whole(path) as aside:
        pq.write_table(table, aside, write_page_checksum=True)


def read_parquet(path: Path):
    """The Arrow table in `path`; `UserError` when it is missing or not a readable Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not pq.read_table, which can do more and imports more.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(use_threads=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, "Parquet file", error) from None


def read_cohort(folder: Path) -> Cohort:
    """Read what `write_cohort` wrote; `UserError` when a file is missing, broken or out of step."""
    folder = Path(folder)
    samples = read_parquet(folder / "samples.parquet")
    windows = read_parquet(folder / "windows.parquet")
    try:
        values, features = windows_values(windows)
        sample_id, group_id, label = (samples[name].to_numpy() for name in ("sample_id", "group_id", "label"))
        names = [name for name in samples.column_names if name.startswith(STRATUM)]
        strata = {name.removeprefix(STRATUM): np.array(samples[name].to_pylist(), str) for name in names}
        part = np.array(samples["part"].to_pylist(), str) if "part" in samples.column_names else None
        facts = windows.schema.metadata or {}
        relations = tuple(map(tuple, json.loads(facts.get(b"relations", b"[]"))))
        warnings = tuple(json.loads(facts.get(b"warnings", b"[]")))
        people = json.loads(facts.get(b"people", b"true"))
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(folder, "cohort", error) from None
    if len(values) != len(samples):
        raise UserError(
            f"{folder}: windows.parquet holds {len(values)} samples, samples.parquet {len(samples)}: "
            "expected the same; delete the folder and run again"
        )
    label = label.astype(np.int8)
    return Cohort(folder.name, features, sample_id, group_id, label, values, relations, warnings, strata, part, people)
