"""Cohorts in and out: the table source, the schemas, the files, the splits; and every way they can be wrong."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_cohort
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.__main__ import main
from pipeline.cohorts import splits
from pipeline.cohorts.catalog import parse_entry, read_catalog, source_of
from pipeline.cohorts.cohort import read_cohort, write_cohort
from pipeline.cohorts.schema import check_cohort
from pipeline.errors import UserError

ENTRY = {
    "title": "made for the tests",
    "domain": "clinical",
    "source": "table",
    "file": "made.csv",
    "label": "died",
    "group": "patient",
    "features": {
        "sodium": {"column": "na", "unit": "mmol/L", "range": [100, 180]},
        "age": {"unit": "years", "range": [18, 110]},
        "sex": {"categories": ["f", "m"]},
    },
}


def table(n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "patient": rng.integers(0, n, n),
            "na": rng.normal(138, 4, n).round(1),
            "age": rng.integers(18, 95, n),
            "sex": rng.choice(["f", "m"], n),
            "died": rng.integers(0, 2, n),
            "unused": "x",
        }
    ).astype(object)


def load(tmp_path: Path, frame: pd.DataFrame | bytes, **changes):
    path = tmp_path / changes.get("file", "made.csv")
    if isinstance(frame, bytes):
        path.write_bytes(frame)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    entry = parse_entry("made", ENTRY | changes, "catalog")
    return source_of(entry).load("made", entry, tmp_path, tmp_path / "cache")[0]


def test_a_table_becomes_a_cohort(tmp_path):
    frame = table()
    frame.loc[3, "na"] = None
    frame.loc[4, "sex"] = None
    cohort = load(tmp_path, frame)
    check_cohort(cohort)
    assert cohort.values.shape == (200, 1, 3) and cohort.values.dtype == np.float32
    assert cohort.feature_names == ["sodium", "age", "sex"]
    assert np.isnan(cohort.values[3, 0, 0]) and np.isnan(cohort.values[4, 0, 2])
    np.testing.assert_array_equal(cohort.values[5:, 0, 2], (frame["sex"][5:] == "m").astype(float))
    np.testing.assert_array_equal(cohort.group_id, frame["patient"].astype(int))
    np.testing.assert_array_equal(cohort.label, frame["died"].astype(int))


def test_parquet_and_compressed_csv_say_the_same(tmp_path):
    frame = table()
    plain = load(tmp_path, frame)
    typed = load(tmp_path, frame.infer_objects(), file="made.parquet")
    packed = load(tmp_path, gzip.compress(frame.to_csv(index=False).encode()), file="made.csv.gz")
    for other in (typed, packed):
        np.testing.assert_array_equal(plain.values, other.values)
        np.testing.assert_array_equal(plain.label, other.label)


def test_a_worded_label(tmp_path):
    frame = table()
    frame["died"] = np.where(frame["died"] == 1, "dead", "alive")
    np.testing.assert_array_equal(load(tmp_path, frame, positive="dead").label, frame["died"] == "dead")


def change(column, value, row=7):
    def apply(frame):
        frame.loc[row, column] = value
        return frame

    return apply


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: f.drop(columns="na"), r"made.csv: column 'na' is missing .* 200 rows"),
        (change("died", 2), r"made.csv: column 'died': 1 of 200 rows are wrong.*row 8.*binary label"),
        (change("died", "yes"), r"column 'died': 1 of 200 rows are wrong, first in row 8; expected a number"),
        (change("died", None), r"column 'died': 1 of 200 rows are wrong"),
        (change("na", "abc"), r"column 'na': 1 of 200 rows are wrong, first in row 8; expected a number"),
        (change("na", 13.8), r"column 'na': 1 of 200 rows are wrong.*expected a number from 100 to 180 mmol/L"),
        (change("sex", "x"), r"column 'sex': 1 of 200 rows are wrong.*one of f, m"),
        (change("patient", None), r"column 'patient': 1 of 200 rows are wrong.*a value in every row"),
        (lambda f: f.assign(died=0), r"column 'died': 0 of 200 rows are positive"),
        (lambda f: f[:0], r"made.csv: no rows"),
    ],
)
def test_a_wrong_table_is_one_sentence(tmp_path, break_it, message):
    with pytest.raises(UserError, match=message) as raised:
        load(tmp_path, break_it(table()))
    assert "\n" not in str(raised.value)
    assert not re.search(r"abc|13\.8", str(raised.value)), "a patient's value in a message"


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "made.csv", "not readable as a table"),
        (b"\xff\xfe\x00bad", "made.csv", "not UTF-8"),
        (b'a,b\n1,2\n3,4,5,6\n"', "made.csv", "not readable as a table"),
        (gzip.compress(b"na,age\n" * 1000)[:40], "made.csv.gz", "not readable as a table"),
        (b"not a gzip", "made.csv.gz", "not readable as a table"),
        (b"PAR1 no", "made.parquet", "not readable as a table"),
    ],
)
def test_an_unreadable_file_is_one_sentence(tmp_path, content, name, message):
    with pytest.raises(UserError, match=message) as raised:
        load(tmp_path, content, file=name)
    assert name in str(raised.value)


def test_a_missing_file_says_how_to_get_it(tmp_path):
    entry = parse_entry("made", ENTRY | {"obtain": "ask the hospital"}, "catalog")
    with pytest.raises(UserError, match="made.csv: no such file; ask the hospital"):
        source_of(entry).load("made", entry, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "sql"}, r"made.source: unknown 'sql'"),
        ({"lable": "died"}, r"made.lable"),
        ({"features": {"age": {"unit": "years"}}}, r"made.features.age.*range.*or categories"),
        ({"features": {"age": {"range": [5, 1]}}}, r"made.features.age.*lower bound first"),
    ],
)
def test_a_wrong_catalog_entry_names_its_key(changes, message):
    with pytest.raises(UserError, match=message):
        parse_entry("made", ENTRY | changes, "catalog")


def test_a_new_citation_changes_nothing_that_a_cohort_depends_on():
    entry = parse_entry("made", ENTRY, "catalog")
    assert parse_entry("made", ENTRY | {"citation": "new", "title": "new"}, "catalog").content() == entry.content()
    assert parse_entry("made", ENTRY | {"label": "other"}, "catalog").content() != entry.content()
    again = parse_entry("made", json.loads(entry.content()), "catalog")
    assert again.features == entry.features and again.label == entry.label


def test_the_catalog_of_the_project_is_valid():
    catalog = read_catalog(Path("data/datasets.yaml"))
    assert {"icu_dev", "support2"} <= set(catalog)
    for name, entry in catalog.items():
        steps, features = source_of(entry).describe(entry)
        assert steps >= 1 and len({feature.name for feature in features}) == len(features), name


def test_outcomes_of_support2_are_no_features():
    outcomes = """death d.time slos hday surv2m surv6m prg2m prg6m dnr dnrday sfdm2 charges totcst totmcst avtisst
    sps aps hospdead"""
    forbidden = set(outcomes.split())
    entry = read_catalog(Path("data/datasets.yaml"))["support2"]
    assert not forbidden & {column.column or name for name, column in entry.features.items()}


def test_the_same_cohort_comes_back_from_its_files(tmp_path, cohort):
    write_cohort(cohort, tmp_path / "made")
    again = read_cohort(tmp_path / "made")
    assert again.features == cohort.features
    np.testing.assert_array_equal(again.values, cohort.values)
    np.testing.assert_array_equal(again.group_id, cohort.group_id)
    np.testing.assert_array_equal(again.label, cohort.label)


def test_a_damaged_cohort_is_one_sentence(tmp_path):
    write_cohort(make_cohort(), tmp_path / "made")
    (tmp_path / "made" / "windows.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(UserError, match="windows.parquet: not a readable Parquet file"):
        read_cohort(tmp_path / "made")


def stage(tmp_path: Path, n_samples="all", **changes) -> int:
    table().to_csv(tmp_path / "made.csv", index=False)
    entry = ENTRY | changes
    arguments = ["--dataset", "made", "--entry", json.dumps(entry), "--raw-dir", str(tmp_path)]
    arguments += [
        "--cache-dir",
        str(tmp_path / "cache"),
        "--n-samples",
        n_samples,
        "--out",
        str(tmp_path / "dev"),
        "--splits",
        str(tmp_path / "s.json"),
    ]
    return main(["sample_dev", *arguments])


def test_the_stage_writes_all_or_nothing(tmp_path, capsys):
    assert stage(tmp_path, label="sodium_label") == 1
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "dev").exists() and not (tmp_path / "s.json").exists()
    assert stage(tmp_path, expected={"samples": 9, "positives": 4}) == 1
    assert "expects 9 with 4" in capsys.readouterr().err
    assert not (tmp_path / "dev").exists()
    assert stage(tmp_path) == 0
    folds = json.loads((tmp_path / "s.json").read_text())["folds"]
    assert sorted(sum(folds, [])) == list(range(200))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(60, 400), st.floats(0.15, 0.8), st.none() | st.integers(0, 1000))
def test_no_group_crosses_a_split(seed, n, repeat, split_seed):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, max(int(n * repeat), 40), n)
    label = (rng.random(n) < 0.3).astype(np.int8)
    fold = splits.assign_folds(group, label)
    assert len({(g, f) for g, f in zip(group, fold, strict=True)}) == len(np.unique(group))
    try:
        split = splits.deal(fold, label, split_seed, "made")
    except UserError:
        return
    parts = [split.train, split.validation, split.test]
    assert sorted(np.concatenate(parts)) == list(range(n))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not set(group[parts[one]]) & set(group[parts[other]])


def test_splits_are_stratified_and_sized():
    rng = np.random.default_rng(3)
    group, label = rng.integers(0, 2500, 4000), (rng.random(4000) < 0.12).astype(np.int8)
    fold = splits.assign_folds(group, label)
    for seed in (None, 1, 2):
        split = splits.deal(fold, label, seed, "made")
        for rows, share in ((split.train, 0.7), (split.validation, 0.15), (split.test, 0.15)):
            assert len(rows) / 4000 == pytest.approx(share, abs=0.005)
            assert label[rows].mean() == pytest.approx(label.mean(), abs=0.01)
    fixed, one, two = (splits.deal(fold, label, seed, "made").test for seed in (None, 1, 2))
    assert not np.array_equal(one, two) and not np.array_equal(fixed, one)


def test_an_empty_split_is_one_sentence():
    label = np.zeros(100, np.int8)
    label[:2] = 1
    with pytest.raises(UserError, match="made: the .* split has .* 0 of them positive"):
        splits.deal(splits.assign_folds(np.arange(100), label), label, None, "made")


def test_a_part_of_a_cohort_is_stratified_and_keeps_groups_whole():
    rng = np.random.default_rng(4)
    group, label = rng.integers(0, 3000, 5000), (rng.random(5000) < 0.1).astype(np.int8)
    rows = splits.choose_samples(group, label, 1000)
    assert len(rows) == pytest.approx(1000, abs=20)
    assert label[rows].mean() == pytest.approx(label.mean(), abs=0.02)
    assert not set(group[rows]) & set(np.delete(group, rows))
    np.testing.assert_array_equal(rows, splits.choose_samples(group, label, 1000))


def test_support2_is_what_its_notice_says(real_data):
    entry = read_catalog(Path("data/datasets.yaml"))["support2"]
    cohort, _ = source_of(entry).load("support2", entry, real_data, Path("unused"))
    check_cohort(cohort)
    assert (len(cohort), int(cohort.label.sum())) == (9105, 2360)
    missing = dict(zip(cohort.feature_names, np.isnan(cohort.values[:, 0]).mean(0), strict=True))
    assert missing["urine_output"] == pytest.approx(0.53, abs=0.01)
    assert missing["glucose"] == pytest.approx(0.49, abs=0.01)
    assert max(missing[name] for name in ("heart_rate", "mean_bp", "resp_rate", "temperature", "sodium")) < 0.001
