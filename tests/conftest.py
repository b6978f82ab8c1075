"""Shared fixtures: a small cohort of each shape, and the real files where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

# As in the workflow: one thread per process, set before NumPy loads its BLAS.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from pipeline.cohorts.cohort import Cohort, Feature  # noqa: E402

ROOT = Path(__file__).parent.parent
# Files whose tests run whole studies, the longest first: two workers that share the files out end at about one time.
WHOLE_STUDIES = (
    "test_warm",
    "test_workflow",
    "test_stamps",
    "test_faults",
    "test_privacy",
    "test_dvc",
    "test_variants",
    "test_parents",
    "test_slurm",
    "test_places",
    "test_new_model",
)
FEATURES = (
    Feature("heart_rate", "1/min", 20, 250),
    Feature("mean_bp", "mmHg", 20, 200),
    Feature("resp_rate", "1/min", 2, 70),
    Feature("temperature", "°C", 30, 43),
    Feature("sodium", "mmol/L", 100, 185),
    Feature("glucose", "mg/dL", 20, 1200),
    Feature("sex", categories=("female", "male"), static=True),
)


def make_cohort(n: int = 200, steps: int = 1, seed: int = 0) -> Cohort:
    """A cohort with the features that the default triggers name; sodium and glucose are often missing."""
    rng = np.random.default_rng(seed)
    centre = np.array([90, 80, 20, 37, 138, 140, 0])
    spread = np.array([15, 12, 4, 0.6, 4, 30, 0])
    values = (centre + spread * rng.standard_normal((n, steps, len(FEATURES)))).astype(np.float32)
    values[:, :, 6] = rng.integers(0, 2, (n, 1))
    values[:, :, 4:6][rng.random((n, steps, 2)) < 0.4] = np.nan
    values[:, :, 0][rng.random((n, steps)) < 0.1] = np.nan
    risk = (values[:, -1, 1] - 80) / 12
    label = (rng.random(n) < 1 / (1 + np.exp(2 * risk + 1))).astype(np.int8)
    return Cohort("made", FEATURES, np.arange(n), rng.integers(0, n, n), label, values)


@pytest.fixture(params=[1, 12], ids=["table", "series"])
def cohort(request) -> Cohort:
    return make_cohort(steps=request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole studies first, and marked `slow`."""
    for item in items:
        if item.path.stem in WHOLE_STUDIES:
            item.add_marker(pytest.mark.slow)
    place = {name: number for number, name in enumerate(WHOLE_STUDIES)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; BACKDOOR_STUDY_RAW_DIR names it, by default ../shared/data."""
    folder = Path(os.environ.get("BACKDOOR_STUDY_RAW_DIR", ROOT.parent / "shared" / "data"))
    if not (folder / "support2" / "support2.csv").is_file():
        pytest.skip(f"real data not at hand: no support2/support2.csv in {folder}")
    return folder


@pytest.fixture(scope="session")
def mimic_tables(tmp_path_factory) -> Path:
    """A raw_dir with generated MIMIC-IV tables in mimiciv/; read, never changed."""
    from benchmarks.mimic_tables import write_tables

    raw_dir = tmp_path_factory.mktemp("raw")
    write_tables(raw_dir / "mimiciv", n_stays=60, rows=60_000)
    return raw_dir
