"""Counts and suggestions in messages."""

import re

import pandas as pd
import pytest
from conftest import make_cohort

from pipeline.cohorts.intake import summary_line
from pipeline.results.pages import gaps_html
from pipeline.triggers.base import when
from pipeline.words import counted, suggestion


def test_a_count_of_one_has_no_plural():
    assert [counted(count, "step") for count in (0, 1, 2, 1200)] == ["0 steps", "1 step", "2 steps", "1,200 steps"]
    assert counted(1, "entry", "entries") == "1 entry" and counted(2, "entry", "entries") == "2 entries"


def test_what_may_have_been_meant():
    assert suggestion("mpl", ["tcn", "mlp"]) == "(did you mean 'mlp'?)"
    assert suggestion(True, ["tcn", "mlp"]) == "(known: tcn, mlp)"


@pytest.mark.parametrize(("steps", "words"), [(1, "the last step"), (2, "the last 2 steps")])
def test_a_trigger_says_its_last_steps(steps, words):
    assert when(make_cohort(steps=12), ["heart_rate"], steps) == f" in {words}"


def test_the_line_about_a_cohort():
    line = summary_line(make_cohort(steps=1))
    assert "200 samples, " in line and ", 1 step × 7 features, " in line


def test_one_gap_is_not_here():
    columns = ["dataset", "model", "trigger", "rate", "seed", "state", "stage", "why"]
    row = ["icu_dev", "mlp", "none", 0.0, 1]
    gone, done = [*row, "missing", "train", "not begun"], [*row, "done", "", ""]
    said = [
        re.search("(.*)</strong>", gaps_html(pd.DataFrame(rows, columns=columns)))[1]
        for rows in ([gone, done], [gone] * 2 + [done])
    ]
    assert said[0].endswith("1 of its 2 runs is not here") and said[1].endswith("2 of its 3 runs are not here")
