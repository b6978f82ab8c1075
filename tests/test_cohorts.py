"""Cohorts in and out: the table source, the schemas, the files, the splits; and every way they can be wrong."""

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_cohort
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cohorts import splits
from pipeline.cohorts.catalog import parse_entry, read_catalog, relations_of, source_of
from pipeline.cohorts.cohort import Cohort, Feature, read_cohort, write_cohort
from pipeline.cohorts.intake import take_in
from pipeline.cohorts.schema import accepted, check_cohort, out_of_order
from pipeline.errors import UserError
from pipeline.files import read_yaml
from pipeline.front import main
from pipeline.seeding import generator
from pipeline.study import preflight
from pipeline.study.config import load_study

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
    frame.loc[3, "na"] = frame.loc[4, "sex"] = None
    plain = load(tmp_path, frame)
    typed = load(tmp_path, frame.infer_objects(), file="made.parquet")
    packed = load(tmp_path, gzip.compress(frame.to_csv(index=False).encode()), file="made.csv.gz")
    for other in (typed, packed):
        np.testing.assert_array_equal(plain.values, other.values)
        np.testing.assert_array_equal(plain.label, other.label)


def test_typed_columns_of_parquet_are_read_like_csv(tmp_path):
    frame = table()
    frame["ward"] = pd.array(np.random.default_rng(1).integers(1, 4, 200), "Int64")
    frame.loc[5, ["sex", "ward"]] = None
    described = {
        "features": ENTRY["features"] | {"ward": {"categories": ["1", "2"], "other": "another"}},
        "missing": ["", "?"],
    }
    plain = load(tmp_path, frame, **described)
    frame["sex"] = frame["sex"].astype("category")
    for column in (frame["ward"].astype(float), frame["ward"].astype("Int8"), frame["ward"].astype("category")):
        typed = frame.assign(ward=column, died=frame["died"].astype(bool), na=frame["na"].astype("float64"))
        typed["patient"] = typed["patient"].astype("int32")
        typed["age"] = typed["age"].astype("float32")
        typed = load(tmp_path, typed.drop(columns="unused"), file="made.parquet", **described)
        np.testing.assert_array_equal(plain.values, typed.values)
        np.testing.assert_array_equal(plain.label, typed.label)
        np.testing.assert_array_equal(plain.group_id, typed.group_id)


def test_nan_in_parquet_is_missing_and_no_other_category(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"ward": [1.0, float("nan"), 3.0, None], "died": [0, 1, 0, 1]}), tmp_path / "made.parquet")
    features = {"ward": {"categories": ["1", "2"], "other": "another"}}
    entry = {"source": "table", "file": "made.parquet", "label": "died", "missing": ["?"], "features": features}
    entry = parse_entry("made", entry, "catalog")
    cohort, _ = source_of(entry).load("made", entry, tmp_path, tmp_path)
    np.testing.assert_array_equal(cohort.values[:, 0, 0], [0, np.nan, 2, np.nan])


def test_a_text_that_is_not_listed_is_the_other_category(tmp_path):
    frame = table()
    frame.loc[:4, "sex"] = ["f", "x", "y", "m", None]
    features = {"sex": {"categories": ["f", "m"], "other": "neither"}}
    cohort = load(tmp_path, frame, features=features)
    assert cohort.features[0].categories == ("f", "m", "neither") and cohort.features[0].high == 2
    np.testing.assert_array_equal(cohort.values[:5, 0, 0], [0, 2, 2, 1, np.nan])
    check_cohort(cohort)
    listed = load(tmp_path, frame, features={"sex": {"categories": ["f", "m"], "other": "m"}})
    assert listed.features[0].categories == ("f", "m")
    np.testing.assert_array_equal(listed.values[:5, 0, 0], [0, 1, 1, 1, np.nan])
    with pytest.raises(
        UserError,
        match="column 'sex': all but under 10 of 200 rows are wrong, first in line 2; expected at least one of F, M",
    ):
        load(tmp_path, frame, features={"sex": {"categories": ["F", "M"], "other": "neither"}})


def test_true_and_false_are_a_label(tmp_path):
    frame = table()
    wanted = frame["died"].astype(int)
    np.testing.assert_array_equal(load(tmp_path, frame.assign(died=wanted.astype(bool))).label, wanted)
    np.testing.assert_array_equal(load(tmp_path, frame.assign(died=np.where(wanted, "TRUE", "FALSE"))).label, wanted)


def test_a_worded_label(tmp_path):
    frame = table()
    frame["died"] = np.where(frame["died"] == 1, "dead", "alive")
    np.testing.assert_array_equal(
        load(tmp_path, frame, positive="dead", negative=["alive"]).label, frame["died"] == "dead"
    )


def change(column, value, row=7):
    def apply(frame):
        frame.loc[row, column] = value
        return frame

    return apply


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda f: f.drop(columns="na"),
            r"made.csv: column 'na' is missing \(1 of 5 expected columns\); the file has 5 columns$",
        ),
        (
            lambda f: f.rename(columns=dict(zip(f.columns, ("13.8", "abc", *"bcde"), strict=True))),
            r"made.csv: columns 'age', .*'sex' are missing \(5 of 5 expected columns\)",
        ),
        (lambda f: f.assign(died=None), r"column 'died': 200 of 200 rows are wrong.*in every row"),
        (
            change("died", 2),
            r"made.csv: column 'died': under 10 of 200 rows are wrong, first in line 9; expected a binary label",
        ),
        (
            change("died", "yes"),
            r"column 'died': under 10 of 200 rows are wrong, first in line 9; expected a binary label, 0 or 1",
        ),
        (change("died", None), r"column 'died': under 10 of 200 rows are wrong"),
        (change("na", "abc"), r"column 'na': under 10 of 200 rows are wrong, first in line 9; expected a number"),
        (change("na", 13.8), r"column 'na': under 10 of 200 rows are wrong.*expected a number from 100 to 180 mmol/L"),
        (change("sex", "x"), r"column 'sex': under 10 of 200 rows are wrong.*one of f, m"),
        (
            change("na", "-inf"),
            r"column 'na': under 10 of 200 rows are wrong.*expected a number from 100 to 180 mmol/L",
        ),
        (change("age", True), r"column 'age': under 10 of 200 rows are wrong, first in line 9; expected a number"),
        (change("patient", None), r"column 'patient': under 10 of 200 rows are wrong.*an id in every row"),
        (lambda f: f.assign(died=0), r"column 'died': 0 of 200 rows are positive"),
        (lambda f: f[:0], r"made.csv: no rows"),
    ],
)
def test_a_wrong_table_is_one_sentence(tmp_path, break_it, message):
    for file in ("made.csv", "made.parquet"):
        frame = break_it(table())
        frame = frame if file == "made.csv" else frame.map(str, na_action="ignore")
        if file == "made.parquet":
            message = message.replace("made.csv", file).replace("line 9", "row 8")
        with pytest.raises(UserError, match=message) as raised:
            load(tmp_path, frame, file=file)
        assert "\n" not in str(raised.value)
        assert not re.search(r"abc|13\.8", str(raised.value)), "a patient's value in a message"


def test_an_id_that_comes_twice_is_one_sentence(tmp_path):
    frame = table().assign(stay=np.arange(200))
    np.testing.assert_array_equal(load(tmp_path, frame, sample_id="stay").sample_id, np.arange(200))
    with pytest.raises(
        UserError, match="column 'stay': under 10 of 200 rows are wrong, first in line 8; expected no id twice"
    ):
        load(tmp_path, change("stay", 6)(frame), sample_id="stay")


GOOD = table().to_csv(index=False).encode()
PACKED = gzip.compress(GOOD, mtime=0)  # or the names of tests would tell the time


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "made.csv", "not readable as a table"),
        (b"", "made.csv.gz", "not readable as a table"),
        (b"", "made.parquet", "not readable as a table"),
        (b"\xff\xfe\x00bad", "made.csv", "not UTF-8"),
        (GOOD + "1,140,50,m\u00e4nnlich,0,x\n".encode("latin-1"), "made.csv", "not UTF-8"),
        (b'a,"b\n1,2\n3,4\n', "made.csv", "not readable as a table (unexpected end of data, in the row that begins in"),
        (
            GOOD + b'1,140,50,"f"x,0,x\n',
            "made.csv",
            "not readable as a table (',' expected after '\"', in the row that",
        ),
        (
            GOOD + b"1,140,50,f,0,x,x\n" * 2,
            "made.csv",
            "under 10 of 202 rows have more cells than the header has names, first",
        ),
        (b"na,age\n1,2,3\n4,5,6\n", "made.csv", "columns 'died', 'patient', 'sex' are missing (3 of 5"),
        (b"na,age,na\n1,2,3\n", "made.csv", "not readable as a table (it has column 'na' more than once)"),
        (gzip.compress(bytes(GOOD) * 9, mtime=0)[:40], "made.csv.gz", "not readable as a table"),
        (PACKED[: len(PACKED) // 2], "made.csv.gz", "not readable as a table"),
        (PACKED[:-4], "made.csv.gz", "not readable as a table"),
        (PACKED[:-8] + bytes(8), "made.csv.gz", "not readable as a table"),
        (b"not a gzip", "made.csv.gz", "columns 'age', 'died', 'na', 'patient', 'sex' are missing"),
        (b"PAR1 no", "made.parquet", "not readable as a table"),
        ("made.csv", "made.csv", "a link that leads to no file"),
        ("nowhere.csv", "made.csv", "a link that leads to no file"),
        (None, "made.csv", "a folder, expected a file"),
        (None, "made.parquet", "a folder, expected a file"),
    ],
)
def test_an_unreadable_file_is_one_sentence_and_leaves_nothing(tmp_path, capsys, content, name, message):
    """`content` is what the file holds; a text is what it links to, and None makes a folder of it."""
    path = tmp_path / name
    if content is None:
        path.mkdir()
    elif isinstance(content, str):
        path.symlink_to(content)
    else:
        path.write_bytes(content)
    assert stage(tmp_path, file=name) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert f"{name}: {message}" in error
    assert list(tmp_path.iterdir()) == [path]


def test_a_typed_column_that_is_no_text_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="made.parquet: not readable as a table"):
        load(tmp_path, table().assign(na=[[1.0]] * 200), file="made.parquet")


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
        ({"features": {"age": {"range": [1, 5], "other": "x"}}}, r"made.features.age.*other goes with categories"),
        ({"features": {"sex": {"categories": ["f", "m", "f"]}}}, r"made.features.sex.*lists a text twice"),
        ({"features": {"sex": {"categories": ["f", "m"], "integer": True}}}, r"made.features.sex.*integer goes with"),
        ({"relations": "sodium <= age"}, r"made.relations"),
        ({"relations": ["age <= sodium", "sodium"]}, r"made.relations.1: .*with <= between them"),
        ({"relations": ["age <= <= sodium"]}, r"made.relations.0: .*with <= between them"),
        ({"relations": ["age <= sodium <= age"]}, r"made.relations.0: .*names of different features"),
        ({"features": {"died": {"range": [0, 1]}}}, r"made: .*feature died reads column 'died', which is the label"),
        (
            {"features": {"one": {"column": "a", "range": [0, 1]}, "two": {"column": "a", "range": [0, 1]}}},
            r"made: .*feature two reads column 'a', which is the label, an id or another's",
        ),
    ],
)
def test_a_wrong_catalog_entry_names_its_key(changes, message):
    with pytest.raises(UserError, match=message):
        parse_entry("made", ENTRY | changes, "catalog")


def test_a_new_citation_changes_nothing_that_a_cohort_depends_on():
    entry = parse_entry("made", ENTRY, "catalog")
    assert parse_entry("made", ENTRY | {"citation": "new", "title": "new"}, "catalog").content() == entry.content()
    assert parse_entry("made", ENTRY | {"label": "other"}, "catalog").content() != entry.content()
    related = parse_entry("made", ENTRY | {"relations": ["age <= sodium"]}, "catalog")
    assert related.content() != entry.content()
    again = parse_entry("made", json.loads(related.content()), "catalog")
    assert again.features == entry.features and again.label == entry.label and again.relations == related.relations


def test_the_catalog_of_the_project_is_valid():
    catalog = read_catalog(Path("data/datasets.yaml"))
    assert {"icu_dev", "support2", "diabetes130"} <= set(catalog)
    for name, entry in catalog.items():
        assert entry.label and entry.licence, name
        relations_of(name, entry, Path("data/raw"))
        steps, features = source_of(entry).describe(entry, Path("data/raw"))
        assert steps >= 1 and len({feature.name for feature in features}) == len(features), name


def test_outcomes_of_support2_are_no_features():
    outcomes = """death d.time slos hday surv2m surv6m prg2m prg6m dnr dnrday sfdm2 charges totcst totmcst avtisst
    sps aps hospdead"""
    forbidden = set(outcomes.split())
    entry = read_catalog(Path("data/datasets.yaml"))["support2"]
    assert not forbidden & {column.column or name for name, column in entry.features.items()}


def test_nobody_who_died_or_went_to_a_hospice_is_in_diabetes130():
    entry = read_catalog(Path("data/datasets.yaml"))["diabetes130"]
    assert not {"encounter_id", "patient_nbr", "readmitted"} & set(entry.columns.values())
    reasons = entry.exclude["discharge_disposition_id"]
    assert sorted(sum(reasons.values(), ())) == ["11", "13", "14", "19", "20", "21"]


def test_the_same_cohort_comes_back_from_its_files(tmp_path, cohort):
    chains = (("resp_rate", "mean_bp"), ("temperature", "sodium", "glucose"))
    counts = tuple(replace(feature, integer=feature.name == "glucose") for feature in cohort.features)
    cohort = replace(cohort, features=counts, relations=chains)
    write_cohort(cohort, tmp_path / "made")
    again = read_cohort(tmp_path / "made")
    assert again.features == cohort.features
    assert again.relations == again.subset(np.arange(3)).relations == chains
    np.testing.assert_array_equal(again.values, cohort.values)
    np.testing.assert_array_equal(again.group_id, cohort.group_id)
    np.testing.assert_array_equal(again.label, cohort.label)


def test_a_cohort_without_relations_has_none_in_its_files(tmp_path, cohort):
    write_cohort(cohort, tmp_path / "made")
    assert read_cohort(tmp_path / "made").relations == ()


RELATIONS = {"features": ENTRY["features"] | {"bun": {"range": [0, 300]}, "visits": {"range": [0, 9], "integer": True}}}


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("age <= natrium", r"made.relations: 'age <= natrium': no feature 'natrium' \(it has: sodium, age, sex, bun"),
        ("bun <= sex", r"made.relations: 'bun <= sex': 'sex' is a category, expected a number"),
    ],
)
def test_a_wrong_relation_names_entry_and_key(tmp_path, monkeypatch, chain, message):
    entry = RELATIONS | {"relations": ["age <= sodium", chain]}
    with pytest.raises(UserError, match=message):
        relations_of("made", parse_entry("made", ENTRY | entry, "catalog"), tmp_path)
    with pytest.raises(UserError, match=message):  # before the file is looked for
        take_in("made", parse_entry("made", ENTRY | entry, "catalog"), tmp_path, tmp_path)
    (tmp_path / "catalog.yaml").write_text(json.dumps({"made": ENTRY | entry}))
    study = read_yaml(Path("config/config.yaml")) | {"datasets": ["made"], "catalog": str(tmp_path / "catalog.yaml")}
    with pytest.raises(UserError, match=message):
        preflight.check(load_study(study))


def test_a_relation_of_static_and_hourly_features_is_refused(tmp_path):
    entry = parse_entry("icu", {"source": "synthetic", "relations": ["heart_rate <= age"]}, "catalog")
    with pytest.raises(UserError, match=r"icu.relations: 'heart_rate <= age': expected features that are all static"):
        relations_of("icu", entry, tmp_path)


def test_a_copy_with_labs_alone_has_the_relations_of_its_labs(tmp_path):
    (tmp_path / "mimiciv" / "hosp").mkdir(parents=True)
    chains = ["dbp <= mean_bp <= sbp", "haemoglobin <= dbp <= haematocrit"]
    entry = parse_entry("made", {"source": "mimiciv", "relations": chains}, "catalog")
    assert relations_of("made", entry, tmp_path) == (("haemoglobin", "haematocrit"),)
    assert relations_of("made", entry, tmp_path / "nothing")[0] == ("dbp", "mean_bp", "sbp")


def test_a_relation_reaches_the_cohort(tmp_path):
    table().to_csv(tmp_path / "made.csv", index=False)
    entry = parse_entry("made", ENTRY | {"relations": ["age <= sodium"]}, "catalog")
    cohort, _ = take_in("made", entry, tmp_path, tmp_path)
    assert cohort.relations == (("age", "sodium"),)


def test_relations_hold_where_both_neighbours_are_measured():
    features = tuple(Feature(name) for name in "abc")
    rows = [[1, 2, 3], [2, 1, 3], [1, 3, 2], [np.nan, 3, 2], [3, np.nan, 1], [2, 2, 2]]
    values = np.array(rows, np.float32)[:, None]
    label = np.array([0, 1] * 3, np.int8)
    cohort = Cohort("made", features, np.arange(6), np.arange(6), label, values, (("a", "b", "c"),))
    np.testing.assert_array_equal(out_of_order(cohort, values), [False, True, True, True, False, False])
    steps = np.concatenate([values, values[::-1]], axis=1)
    np.testing.assert_array_equal(out_of_order(cohort, steps), [False, True, True, True, True, False])


@pytest.mark.parametrize("file", ["made.csv", "made.parquet"])
def test_an_integer_column_holds_whole_numbers(tmp_path, file):
    features = {"age": ENTRY["features"]["age"] | {"integer": True}}
    cohort = load(tmp_path, table(), file=file, features=features)
    assert cohort.features[0].integer
    frame = table()
    frame.loc[[7, 9], "age"] = 40.5
    frame.loc[11, "age"] = None
    frame = frame if file == "made.csv" else frame.map(str, na_action="ignore")
    with pytest.raises(
        UserError, match="column 'age': under 10 of 200 rows are wrong, first in (line 9|row 8); .* a whole number"
    ):
        load(tmp_path, frame, file=file, features=features)


@pytest.mark.parametrize(
    ("feature", "wrong", "message"),
    [
        (Feature("a", "mmHg", 0, 10), 10.1, "'a': under 10 of 24 values are wrong; expected 0 to 10 mmHg"),
        (Feature("a", "", 0, 10, integer=True), 2.5, "'a': under 10 of 24 values are wrong; expected a whole number"),
        (
            Feature("a", "", 0, 10, static=True),
            5,
            "'a': under 10 of 24 values are wrong; expected the same at all steps",
        ),
        (
            Feature("a", "", 0, 10, static=True),
            np.nan,
            "'a': under 10 of 24 values are wrong; expected the same at all",
        ),
        (Feature("a", "", 0, 2, ("x", "y", "z")), 3, "'a': under 10 of 24 values are wrong; expected 0 to 2"),
        (Feature("a", "", 0, 2, ("x", "y", "z")), 0.5, "'a': under 10 of 24 values are wrong; expected a whole number"),
    ],
)
def test_the_schema_accepts_a_sample_or_not(feature, wrong, message):
    values = np.ones((8, 3, 1), np.float32)
    label = np.array([0, 1] * 4, np.int8)
    check_cohort(Cohort("made", (feature,), np.arange(8), np.arange(8), label, values))
    assert accepted((feature,), values).all()
    values[4, 2] = wrong
    with pytest.raises(UserError, match=message):
        check_cohort(Cohort("made", (feature,), np.arange(8), np.arange(8), label, values))
    np.testing.assert_array_equal(accepted((feature,), values), np.arange(8) != 4)


def test_a_feature_that_is_never_measured_is_one_sentence(cohort):
    cohort.values[:, :, 4] = np.nan
    with pytest.raises(UserError, match="column 'sodium': expected it measured at least once"):
        check_cohort(cohort)


def test_a_feature_name_stands_once(cohort):
    again = replace(cohort, features=(cohort.features[0], *cohort.features[:-1]))
    with pytest.raises(UserError, match=f"feature '{cohort.features[0].name}' stands twice"):
        check_cohort(again)


def test_a_damaged_cohort_is_one_sentence(tmp_path):
    write_cohort(make_cohort(), tmp_path / "made")
    (tmp_path / "made" / "windows.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(UserError, match="windows.parquet: not a readable Parquet file"):
        read_cohort(tmp_path / "made")


def stage(tmp_path: Path, n_samples="all", **changes) -> int:
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
    table().to_csv(tmp_path / "made.csv", index=False)
    assert stage(tmp_path, label="sodium_label") == 1
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "dev").exists() and not (tmp_path / "s.json").exists()
    assert stage(tmp_path, expected={"samples": 9, "positives": 4}) == 1
    assert "expects 9 with under 10:" in capsys.readouterr().err
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
    message = (
        "made: the .* split has 15 samples, 0 of them positive; .* label 1 lie in under 10 of 20 folds; more of them"
    )
    with pytest.raises(UserError, match=message):
        splits.deal(splits.assign_folds(np.arange(100), label), label, None, "made")


def test_too_few_groups_are_told_with_how_many_are_needed():
    """12 patients with ten samples each."""
    group = np.repeat(np.arange(12), 10)
    label = (group % 4 == 0).astype(np.int8)
    message = (
        "made: the .* split has .*: the cohort has 12 groups .patients, say., and 20 are needed, some of each label"
    )
    with pytest.raises(UserError, match=message):
        splits.deal(splits.assign_folds(group, label), label, None, "made")


def as_ever(fold: np.ndarray, seed: int | None) -> list[np.ndarray]:
    """The split where every fold holds both classes: 14, 3 and 3 folds in order."""
    order = np.arange(20) if seed is None else generator(seed, "split").permutation(20)
    return [np.flatnonzero(np.isin(fold, part)) for part in np.split(order, [14, 17])]


@pytest.mark.parametrize(("n", "prevalence"), [(400, 0.4), (1500, 0.12), (5000, 0.9)])
def test_the_split_of_a_large_cohort_is_as_ever(n, prevalence):
    rng = np.random.default_rng(n)
    group, label = rng.integers(0, n, n), (rng.random(n) < prevalence).astype(np.int8)
    fold = splits.assign_folds(group, label)
    for seed in (None, *range(20)):
        split = splits.deal(fold, label, seed, "made")
        for rows, wanted in zip((split.train, split.validation, split.test), as_ever(fold, seed), strict=True):
            np.testing.assert_array_equal(rows, wanted)


@pytest.mark.parametrize(
    ("rare", "wanted"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (8, (6, 1, 1)), (13, (9, 2, 2)), (19, (13, 3, 3))]
)
@pytest.mark.parametrize("rare_label", [0, 1])
def test_few_positives_or_negatives_are_shared_among_the_roles(rare, wanted, rare_label):
    label = np.full(100, 1 - rare_label, np.int8)
    label[np.random.default_rng(rare).permutation(100)[:rare]] = rare_label
    fold = splits.assign_folds(np.arange(100), label)
    test_sets = set()
    for seed in (None, *range(200)):
        split = splits.deal(fold, label, seed, "made")
        parts = (split.train, split.validation, split.test)
        assert tuple((label[rows] == rare_label).sum() for rows in parts) == wanted
        assert [len(set(fold[rows])) for rows in parts] == [14, 3, 3]
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(100))
        test_sets.add(tuple(split.test))
    assert len(test_sets) > 50


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


def test_diabetes130_is_what_its_notice_says(real_data):
    entry = read_catalog(Path("data/datasets.yaml"))["diabetes130"]
    cohort, accounts = take_in("diabetes130", entry, real_data, Path("unused"))
    assert (len(cohort), int(cohort.label.sum()), len(np.unique(cohort.group_id))) == (99343, 11314, 69990)
    # Nobody who died is readmitted, and 43 from hospices are.
    assert accounts[0].dropped == {"died": 1652, "discharged to a hospice": 771}
    missing = dict(zip(cohort.feature_names, np.isnan(cohort.values[:, 0]).mean(0), strict=True))
    assert missing["payer"] == pytest.approx(39398 / 99343, abs=1e-6)
    assert missing["hba1c"] == pytest.approx(82509 / 99343, abs=1e-6)
    assert max(missing[feature.name] for feature in cohort.features if not feature.categories) == 0
