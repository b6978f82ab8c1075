"""Summaries of a series: each against a slow twin, and the way back to the cells that they read."""

import numpy as np
import pytest
from conftest import FEATURES, make_cohort

from pipeline.cohorts.cohort import Feature
from pipeline.cohorts.summaries import Summaries

SODIUM, SEX = 4, 6
DRUG = Feature("drug", categories=("none", "a", "b"))


def twin(series: list[float], kind: str, category: int | None = None) -> tuple[float, dict[int, float]]:
    """One number of one feature of one sample, and the share of it that each step read."""
    measured = {step: value for step, value in enumerate(series) if value == value}
    everywhere = {step: 1 / len(series) for step in range(len(series))}
    if kind == "count":
        return len(measured), everywhere
    if kind == "count_of":
        there = [step for step, value in measured.items() if value == category]
        return len(there), {step: 1 / len(there) for step in there} or everywhere
    if not measured:
        return np.nan, everywhere
    if kind in ("mean", "value"):
        value = sum(map(float, measured.values())) / len(measured)
        return value, {step: 1 / len(measured) for step in measured}
    if kind == "last":
        return measured[max(measured)], {max(measured): 1.0}
    value = {"min": min, "max": max}[kind](measured.values())
    there = [step for step in measured if measured[step] == value]
    return value, {step: 1 / len(there) for step in there}


@pytest.fixture
def series() -> np.ndarray:
    """Series of the shared features and a category that changes, with gaps, ties, and features nowhere measured."""
    values = make_cohort(40, steps=5).values
    rng = np.random.default_rng(1)
    drug = rng.integers(0, 3, (40, 5, 1)).astype(np.float32)
    drug[rng.random(drug.shape) < 0.4] = np.nan
    drug[:2], drug[2:4] = np.nan, 1  # nowhere measured, and one category alone
    values[:5, :, 1] = 80
    values[3:9, :, :2] = np.nan
    values[20:, :3, SODIUM] = np.nan
    values[10:12, :, SEX] = np.nan
    return np.concatenate([values, drug], axis=2)


def test_a_table_stays_as_it_is():
    values = make_cohort(50).values
    summaries = Summaries(FEATURES, 1).fit(values)
    np.testing.assert_array_equal(summaries(values), values[:, 0].astype(np.float64))
    assert summaries.categorical == [SEX]


def test_summaries_and_the_cells_they_read_against_a_slow_twin(series):
    summaries = Summaries((*FEATURES, DRUG), 5).fit(series)
    kinds = [column.kind for column in summaries.columns]
    of_drug = ["last", "count", "count_of", "count_of", "count_of"]
    assert kinds == ["mean", "min", "max", "last", "count"] * 6 + ["value", *of_drug]
    assert [feature.name for feature in summaries.described[-3:]] == [
        f"drug (count of {one})" for one in ("none", "a", "b")
    ]
    assert [summaries.described[number].name for number in summaries.categorical] == ["sex (value)", "drug (last)"]
    found = summaries(series)
    attribution = np.random.default_rng(0).normal(size=found.shape)
    cells = np.zeros(series.shape)
    for row, sample in enumerate(series):
        for number, column in enumerate(summaries.columns):
            value, read = twin(sample[:, column.position].tolist(), column.kind, column.category)
            np.testing.assert_allclose(found[row, number], value, rtol=1e-12)
            for step, share in read.items():
                cells[row, step, column.position] += attribution[row, number] * share
    np.testing.assert_allclose(summaries.onto_cells(attribution, series), cells, atol=1e-12)
    np.testing.assert_allclose(summaries.onto_features(attribution), cells.sum(axis=1), atol=1e-12)


def test_the_total_of_a_sample_is_kept(series):
    summaries = Summaries((*FEATURES, DRUG), 5).fit(series)
    attribution = np.random.default_rng(2).normal(size=summaries(series).shape)
    cells = summaries.onto_cells(attribution, series)
    np.testing.assert_allclose(cells.sum(axis=(1, 2)), attribution.sum(axis=1), atol=1e-12)


def test_what_training_never_saw_counts_as_missing():
    cohort = make_cohort(100, steps=4)
    train = cohort.values.copy()
    train[:, :, SODIUM] = np.nan
    train[:, :, SEX][train[:, :, SEX] == 1] = np.nan
    summaries = Summaries(FEATURES, 4).fit(train)
    assert summaries.unseen(cohort) == ["sodium", "sex = male"]
    given = cohort.values.copy()
    hidden = given.copy()
    hidden[:, :, SODIUM] = np.nan
    hidden[:, :, SEX][hidden[:, :, SEX] == 1] = np.nan
    np.testing.assert_array_equal(summaries(given), summaries(hidden))
    ones = np.ones((len(given), len(summaries.columns)))
    np.testing.assert_array_equal(summaries.onto_cells(ones, given), summaries.onto_cells(ones, hidden))
    np.testing.assert_array_equal(given, cohort.values)  # the caller's samples are not touched


def test_counts_of_categories_are_of_those_that_change_over_steps_alone():
    static = Feature("sex", categories=("f", "m"), static=True)
    kinds = {
        steps: [(column.position, column.kind, column.category) for column in Summaries((static, DRUG), steps).columns]
        for steps in (1, 2)
    }
    assert kinds[1] == [(0, "value", None), (1, "value", None)]
    assert kinds[2] == [(0, "value", None), (1, "last", None), (1, "count", None)] + [
        (1, "count_of", category) for category in range(3)
    ]


def test_a_category_that_training_never_saw_is_counted_nowhere():
    values = np.array([[0, 1, 1], [0, 0, np.nan], [2, 1, 2]], np.float32)[:, :, None]
    summaries = Summaries((DRUG,), 3).fit(values[:2])
    np.testing.assert_array_equal(summaries(values), [[1, 3, 1, 2, 0], [0, 2, 2, 0, 0], [1, 1, 0, 1, 0]])
    # What is said of a category that does not occur was read everywhere; of one that does, where it is.
    cells = summaries.onto_cells(np.array([[0, 0, 3, 6, 9]] * 3, float), values)[:, :, 0]
    np.testing.assert_allclose(cells, [[6, 6, 6], [1.5 + 5, 1.5 + 5, 5], [1 + 3, 1 + 6 + 3, 1 + 3]])
