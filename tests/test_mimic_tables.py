"""The synthetic tables look like MIMIC-IV's, and the pandas version of the cohort reads them."""

import gzip
import re
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from benchmarks.mimic_tables import EVENTS, TABLES, VARIABLES, write_tables
from benchmarks.mimiciv_pandas import build
from pipeline.errors import UserError

NAMES = [*TABLES, *EVENTS]
STAYS, ROWS = 60, 60_000


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    write_tables(folder, STAYS, ROWS)
    return folder


def read(folder: Path, name: str, **options) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv.gz", **options)


def test_nothing_but_the_tables_is_left(tables):
    found = {str(path.relative_to(tables)) for path in tables.rglob("*") if path.is_file()}
    assert found == {f"{name}.csv.gz" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_headers_and_texts_are_those_of_the_real_tables(tables, real_data, name):
    made = gzip.decompress((tables / f"{name}.csv.gz").read_bytes()).decode()
    with gzip.open(real_data / "mimic-iv-demo-2.2" / f"{name}.csv.gz", "rt", encoding="utf-8") as file:
        assert made.splitlines()[0] == next(file).rstrip("\n")
    times = [column for column in made.splitlines()[0].split(",") if column.endswith("time")]
    frame = read(tables, name, dtype=str, keep_default_na=False)
    for column in times:
        assert frame[column].str.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)?").all()
        pd.to_datetime(frame[column], format="%Y-%m-%d %H:%M:%S")
    for column in {"valuenum", "ref_range_lower", "ref_range_upper", "anchor_age", "caregiver_id"} & set(frame):
        assert frame[column].str.fullmatch(r"(-?\d+(\.\d*[1-9])?)?").all(), "as in MIMIC: 60, 7.4, never 60.0"
    assert not re.search(r"\b(nan|NaN|NULL|None)\b", made)


@pytest.mark.parametrize(("n_stays", "rows"), [(STAYS, ROWS), (5, 24_000), (300, 200_000)])
def test_as_many_rows_as_asked_for(tmp_path, n_stays, rows):
    write_tables(tmp_path, n_stays, rows, kind="parquet")
    n = {name: len(pd.read_parquet(tmp_path / f"{name}.parquet")) for name in NAMES}
    assert n["icu/icustays"] == n_stays
    assert n["hosp/labevents"] + n["icu/chartevents"] == pytest.approx(rows, rel=0.01)
    assert n["icu/chartevents"] / n["hosp/labevents"] == pytest.approx(2.5, rel=0.03)


def test_same_seed_same_bytes_other_seed_other_patients(tables, tmp_path):
    write_tables(tmp_path / "same", STAYS, ROWS)
    write_tables(tmp_path / "other", STAYS, ROWS, seed=1)
    for name in NAMES:
        content = [(folder / f"{name}.csv.gz").read_bytes() for folder in (tables, tmp_path / "same")]
        assert content[0] == content[1]
    assert not read(tables, "icu/icustays").equals(read(tmp_path / "other", "icu/icustays"))


def test_all_kinds_hold_the_same_rows(tables, tmp_path):
    for kind in ("csv", "parquet"):
        write_tables(tmp_path, STAYS, ROWS, kind=kind)
    for name in NAMES:
        assert (tmp_path / f"{name}.csv").read_bytes() == gzip.decompress((tables / f"{name}.csv.gz").read_bytes())
        typed = duckdb.read_parquet(str(tmp_path / f"{name}.parquet"))
        types = dict(zip(typed.columns, typed.types, strict=True))
        assert duckdb.read_csv(str(tables / f"{name}.csv.gz"), dtype=types).fetchall() == typed.fetchall()


def test_pieces_do_not_show(tables, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.mimic_tables.EVENTS_PER_PIECE", 100)
    write_tables(tmp_path, STAYS, ROWS)
    for name in EVENTS:
        pd.testing.assert_frame_equal(read(tmp_path, name), read(tables, name))


def test_ids_join_and_times_are_in_order(tables):
    stays = read(tables, "icu/icustays", parse_dates=["intime", "outtime"])
    admissions = read(tables, "hosp/admissions", parse_dates=["admittime", "dischtime", "deathtime"])
    patients = read(tables, "hosp/patients")
    assert stays["stay_id"].is_unique and admissions["hadm_id"].is_unique and patients["subject_id"].is_unique
    assert set(admissions["subject_id"]) == set(patients["subject_id"])
    joined = stays.merge(admissions, on=["subject_id", "hadm_id"])
    assert len(joined) == len(stays)
    assert (joined["admittime"] <= joined["intime"]).all() and (joined["intime"] < joined["outtime"]).all()
    assert ((admissions["hospital_expire_flag"] == 1) == admissions["deathtime"].notna()).all()
    chart = read(tables, "icu/chartevents", parse_dates=["charttime", "storetime"])
    key = ["subject_id", "hadm_id", "stay_id", "charttime", "itemid"]
    assert chart[key].equals(chart[key].sort_values(key, ignore_index=True))
    labs = read(tables, "hosp/labevents", parse_dates=["charttime", "storetime"])
    assert labs["labevent_id"].tolist() == list(range(1, len(labs) + 1))
    assert labs[["subject_id", "charttime"]].equals(
        labs[["subject_id", "charttime"]].sort_values(["subject_id", "charttime"], ignore_index=True)
    )
    waiting = (labs["storetime"] - labs["charttime"]).dropna() / pd.Timedelta(minutes=1)
    assert waiting.between(29, 121).all()


def test_the_mix_is_that_of_the_real_tables(tables):
    used = pd.read_csv(VARIABLES)
    chart, labs = (read(tables, name, dtype={"value": "str"}) for name in ("icu/chartevents", "hosp/labevents"))
    for events, table, share in ((chart, "chartevents", 0.25), (labs, "labevents", 0.45)):
        items = set(used.loc[used["table"] == table, "itemid"])
        assert events["itemid"].isin(items).mean() == pytest.approx(share, abs=0.02)
        assert items <= set(events["itemid"])
        assert events["itemid"].nunique() > 200
    assert labs["hadm_id"].isna().mean() == pytest.approx(0.26, abs=0.02)
    assert labs["comments"].str.contains('"').any() and labs["comments"].str.contains(",").any()
    assert (labs["value"] == "___").any() and (labs["value"] == "<5").any()
    stays = read(tables, "icu/icustays")
    assert (stays["los"] < 1).any() and stays["subject_id"].duplicated().any()
    sodium = labs.loc[labs["itemid"] == 50983, "valuenum"]
    assert 0.98 < sodium.between(90, 200).mean() < 1


def test_too_few_rows_is_an_error(tmp_path):
    with pytest.raises(UserError, match="60 stays with 10 rows"):
        write_tables(tmp_path / "none", 60, 10)
    assert not (tmp_path / "none").exists()


def test_pandas_builds_the_cohort(tables):
    values, stay_id, label = build(tables, VARIABLES)
    variables = pd.read_csv(VARIABLES).drop_duplicates("variable")
    assert values.shape == (len(stay_id), 24, len(variables)) and values.dtype == np.float32
    assert 0 < label.sum() < len(label) < STAYS
    stays = read(tables, "icu/icustays").set_index("stay_id")
    assert not stays.loc[stay_id, "subject_id"].duplicated().any() and (stays.loc[stay_id, "los"] >= 30 / 24).all()
    measured = dict(zip(variables["variable"], ~np.isnan(values).all((0, 1)), strict=True))
    assert all(measured.values()), measured
    gcs = values[:, :, list(measured).index("gcs")]
    assert np.nanmin(gcs) >= 3 and np.nanmax(gcs) <= 15


def test_pandas_values_by_hand(tmp_path):
    """One adult's stay from 10:00, 4 hours long with 1 hour of observation: every rule once."""
    stay, subject = {"stay_id": 3}, {"subject_id": 1}
    chart = [  # itemid, charttime, storetime, valuenum, unit
        (1, "10:00", "10:30", 80, "BPM"),
        (1, "10:59", "11:00", 90, None),
        (1, "09:59", "10:30", 1, "bpm"),  # before the stay
        (1, "11:00", "11:00", 2, "bpm"),  # after the hour
        (1, "10:10", "11:01", 3, "bpm"),  # stored too late
        (1, "10:10", "10:10", 301, "bpm"),  # out of range
        (1, "10:10", "10:10", 4, "mmHg"),  # another unit
        (9, "10:10", "10:10", 5, "bpm"),  # another item
        (2, "10:10", "10:10", 98.6, " "),
        (4, "10:10", "10:10", 4, None),
        (5, "10:10", "10:10", 6, None),
        (4, "10:20", "10:20", 1, None),  # the other part is missing
    ]
    labs = [(6, "10:15", None, 2.5, "MMOL/L"), (6, "10:20", "11:30", 9, "mmol/L")]
    outputs = [(7, "10:30", "10:00", 40, "ml"), (8, "10:30", "10:31", 60, "mL"), (8, "10:40", "11:10", 7, "mL")]
    write_events(tmp_path / "icu" / "chartevents", chart, stay, "valuenum")
    write_events(tmp_path / "hosp" / "labevents", labs, subject, "valuenum")
    write_events(tmp_path / "icu" / "outputevents", outputs, stay, "value")
    stays = {"subject_id": 1, "hadm_id": 2, "stay_id": 3, "intime": "2150-01-01 10:00", "outtime": "2150-01-01 14:00"}
    admissions = {"hadm_id": 2, "deathtime": None, "hospital_expire_flag": 1}
    write(tmp_path / "icu" / "icustays", pd.DataFrame([stays]))
    write(tmp_path / "hosp" / "admissions", pd.DataFrame([admissions]))
    write(tmp_path / "hosp" / "patients", pd.DataFrame([{"subject_id": 1, "anchor_age": 16, "anchor_year": 2148}]))
    items = [
        ["heart_rate", "mean", "chartevents", 1, "bpm", 10, 300, None],
        ["temperature", "mean", "chartevents", 2, "°F", 77, 113, "(x - 32) / 1.8"],
        ["gcs", "total", "chartevents", 4, None, 1, 4, None],
        ["gcs", "total", "chartevents", 5, None, 1, 6, None],
        ["lactate", "mean", "labevents", 6, "mg/dL|mmol/L", 0.1, 40, None],
        ["urine", "sum", "outputevents", 7, "mL", 0, 5000, None],
        ["urine", "sum", "outputevents", 8, "mL", 0, 5000, None],
    ]
    columns = ["variable", "hourly", "table", "itemid", "item_unit", "low", "high", "conversion"]
    pd.DataFrame(items, columns=columns).to_csv(tmp_path / "items.csv", index=False)
    values, stay_id, label = build(tmp_path, tmp_path / "items.csv", hours=1, gap_hours=3)
    assert values == pytest.approx(np.array([[[85, 37, 10, 2.5, 100]]]), rel=1e-6)
    assert stay_id.tolist() == [3] and label.tolist() == [1]
    assert len(build(tmp_path, tmp_path / "items.csv", hours=1, gap_hours=4)[1]) == 0, "the stay is too short"


def write_events(path: Path, rows: list[tuple], ids: dict[str, int], value: str) -> None:
    """An event table of times on 2150-01-01."""
    frame = pd.DataFrame(rows, columns=["itemid", "charttime", "storetime", value, "valueuom"]).assign(**ids)
    for column in ("charttime", "storetime"):
        frame[column] = "2150-01-01 " + frame[column] + ":00"
    write(path, frame)


def write(path: Path, frame: pd.DataFrame) -> None:
    path.parent.mkdir(exist_ok=True)
    frame.to_csv(f"{path}.csv.gz", index=False)
