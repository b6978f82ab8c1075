"""MIMIC-IV: which stays, which values, nothing from after the window; every form of the tables, and bad input."""

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT

from benchmarks.mimic_tables import write_tables
from benchmarks.mimiciv_pandas import build
from pipeline.cohorts import original
from pipeline.cohorts.catalog import parse_entry, source_of
from pipeline.cohorts.intake import account_lines, take_in
from pipeline.cohorts.sources import mimiciv
from pipeline.errors import UserError
from pipeline.front import main

VARIABLES = ROOT / "pipeline" / "cohorts" / "variables" / "mimiciv.csv"
READ = [f"hosp/{name}" for name in ("patients", "admissions", "labevents")]
READ += [f"icu/{name}" for name in ("icustays", "chartevents", "outputevents")]
HEART_RATE, CREATININE, FOLEY = 220045, 50912, 226559


def load(raw_dir: Path, cache: Path, **changes):
    entry = parse_entry("made", {"source": "mimiciv", "folder": "mimiciv"} | changes, "catalog")
    return source_of(entry).load("made", entry, raw_dir, cache)


def same(one, other) -> bool:
    """Whether two cohorts are the same bit for bit."""
    columns = ("sample_id", "group_id", "label", "values")
    return one.features == other.features and all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in columns
    )


def text(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv.gz", dtype=str, keep_default_na=False)


def put(folder: Path, name: str, frame: pd.DataFrame) -> None:
    path = folder / f"{name}.csv.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it may be a link
    frame.to_csv(path, index=False)


@pytest.fixture
def linked(mimic_tables, tmp_path) -> Path:
    """A raw_dir of links to the generated tables, of which some can be replaced."""
    for name in READ:
        path = tmp_path / "raw" / "mimiciv" / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(mimic_tables / "mimiciv" / f"{name}.csv.gz")
    return tmp_path / "raw"


# By hand: every patient with an admission and, unless said otherwise, one stay of 100 hours from 10:00 on.

BEGIN = pd.Timestamp("2152-03-01 10:00")


def after(hours: float | None) -> pd.Timestamp | None:
    return None if hours is None else BEGIN + pd.Timedelta(hours=hours)


class Hospital:
    """Tables made up by hand, patient by patient; times in hours from `BEGIN`."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict]] = {name: [] for name in READ}

    def patient(self, subject: int, sex: str = "F", age: int = 60) -> None:
        """`age` is that in 2152."""
        row = {"subject_id": subject, "gender": sex, "anchor_age": age - 2, "anchor_year": 2150, "dod": None}
        self.rows["hosp/patients"].append(row)

    def admission(self, subject: int, died: int | None = 0, death: float | None = None, kind: str = "URGENT") -> None:
        row = {"subject_id": subject, "hadm_id": 10 * subject, "admittime": after(-5), "dischtime": after(200)}
        row |= {"deathtime": after(death), "admission_type": kind, "hospital_expire_flag": died}
        self.rows["hosp/admissions"].append(row)

    def stay(self, subject: int, start: float | None = 0, stop: float | None = 100, number: int = 0) -> None:
        row = {"subject_id": subject, "hadm_id": 10 * subject, "stay_id": 100 * subject + number}
        self.rows["icu/icustays"].append(row | {"intime": after(start), "outtime": after(stop)})

    def event(self, table: str, subject: int, item: int, time: float, x: object, unit: str | None, stored=None) -> None:
        """With a text as its `value` where the number has a column of its own."""
        row = {"subject_id": subject, "hadm_id": None, "charttime": after(time), "storetime": after(stored)}
        number = {"value": x} if table == "icu/outputevents" else {"value": 'x, "y"\nz', "valuenum": x}
        row |= {"labevent_id": len(self.rows[table])} if table == "hosp/labevents" else {}
        self.rows[table].append(row | {"itemid": item} | number | {"valueuom": unit})

    def write(self, raw_dir: Path) -> Path:
        filler = {"subject_id": 0, "itemid": 1, "charttime": BEGIN, "storetime": BEGIN, "valuenum": None, "value": None}
        filler["labevent_id"] = 0
        for name, rows in self.rows.items():
            rows = rows or [filler | {"valueuom": None}]
            put(raw_dir / "mimiciv", name, pd.DataFrame(rows).convert_dtypes())
        return raw_dir


def test_values_by_hand(tmp_path):
    """One stay, and every rule once; a lab without hadm_id counts, and so does one without a time of storage."""
    hospital = Hospital()
    hospital.patient(1, "M", 61)
    hospital.admission(1, 1, 90, "ELECTIVE")
    hospital.stay(1)
    hospital.patient(2)
    hospital.event("icu/chartevents", 2, HEART_RATE, 1, 222, "bpm")  # another patient's
    for time, x, unit, stored in [
        (0, 80, "bpm", 0.5),
        (0.99, 91, None, 1),
        (-0.01, 10, "bpm", 0),  # before the stay
        (5, 70, "BPM ", 23),
        (5.5, 100, "bpm", 24),  # stored as the window ends
        (6, 100, "bpm", 24.01),  # stored after it
        (23.99, 65, "bpm", None),
        (24, 66, "bpm", 24),  # the window is over
        (7, 301, "bpm", 8),  # out of range
        (8, 80, "Hz", 8),
        (9, None, "bpm", 9),
    ]:
        hospital.event("icu/chartevents", 1, HEART_RATE, time, x, unit, stored)
    hospital.event("icu/chartevents", 1, 223761, 2, 98.6, "°F", 2)
    for item, x in ((220739, 4), (223900, 5), (223901, 6)):
        hospital.event("icu/chartevents", 1, item, 3.25, x, None, 4)
    hospital.event("icu/chartevents", 1, 220739, 4, 4, None, 4)
    hospital.event("hosp/labevents", 1, CREATININE, 10, 1.5, "mg/dL", 11)
    hospital.event("hosp/labevents", 1, CREATININE, 10.5, 2.5, "MG/DL", None)
    hospital.event("hosp/labevents", 1, CREATININE, 23.5, 9, "mg/dL", 24.5)
    for item, time, x, stored in [(FOLEY, 1, 40, 1), (226560, 1.5, 60.5, 2), (FOLEY, 23, 7, 24.5), (FOLEY, 2, 0, 2)]:
        hospital.event("icu/outputevents", 1, item, time, x, "ml", stored)
    cohort, accounts = load(hospital.write(tmp_path), tmp_path / "cache")
    wanted = np.full((1, 24, len(cohort.features)), np.nan, np.float32)
    column = cohort.feature_names.index
    for hour, name, value in [
        (0, "heart_rate", 85.5),
        (5, "heart_rate", 85),
        (23, "heart_rate", 65),
        (2, "temperature", 37),
        (3, "gcs", 15),
        (10, "creatinine", 2),
        (1, "urine_output", 100.5),
        (2, "urine_output", 0),
    ]:
        wanted[0, hour, column(name)] = value
    wanted[0, :, column("age")] = 61
    wanted[0, :, column("sex")] = 1
    wanted[0, :, column("admission_type")] = cohort.features[column("admission_type")].categories.index("ELECTIVE")
    np.testing.assert_array_equal(cohort.values, wanted)
    assert (cohort.sample_id.tolist(), cohort.group_id.tolist(), cohort.label.tolist()) == ([100], [1], [1])
    assert {account.rows: (account.read, account.kept) for account in accounts} == {
        "stays": (1, 1),
        "labevents": (3, 2),
        "chartevents": (17, 10),
        "outputevents": (4, 3),
        "hourly values": (8, 8),
    }
    (chart,) = (account for account in accounts if account.rows == "chartevents")
    assert chart.dropped == {
        "of other items": 0,
        "outside the window": 3,
        "in an unknown unit": 1,
        "outside the plausible range": 1,
        "stored after the window": 1,
        "without a number": 1,
    }


def test_age_is_that_of_the_year_of_the_stay_and_codes_not_known_are_missing(tmp_path):
    hospital = Hospital()
    hospital.patient(1, "U", 60)
    hospital.admission(1, kind="NEW KIND")
    hospital.stay(1, 24 * 366, 24 * 370)
    hospital.event("icu/chartevents", 1, HEART_RATE, 24 * 366 + 1, 80, "bpm")
    cohort, _ = load(hospital.write(tmp_path), tmp_path / "cache")
    assert cohort.values[0, 0, cohort.feature_names.index("age")] == 61
    assert np.isnan(cohort.values[0, :, [cohort.feature_names.index(name) for name in ("sex", "admission_type")]]).all()


@pytest.fixture(scope="module")
def crowd(tmp_path_factory) -> Path:
    """Patients of whom each is in or out for a reason of their own."""
    hospital = Hospital()
    for subject in range(1, 14):
        if subject != 6:
            hospital.admission(subject, int(subject in (4, 9)), {4: 29.9, 9: 30}.get(subject))
        hospital.patient(subject, age=17 if subject == 2 else 60)
        if subject != 8:
            hospital.event("icu/chartevents", subject, HEART_RATE, 0.5, 80, "bpm")
            hospital.event("icu/chartevents", subject, HEART_RATE, 150.5, 80, "bpm")
    stays = [
        (1, 0, 100, 5),
        (1, 150, 190, 1),  # the second, whatever its number
        (2, 0, 100, 0),  # 17 years old
        (3, 0, 29.9, 0),  # over too soon
        (4, 0, 100, 0),  # died too soon
        (5, 0, -1, 0),  # ends before it starts
        (6, 0, 100, 0),  # no admission
        (7, 0, -1, 0),
        (7, 150, 190, 1),  # the first that is one
        (8, 0, 100, 0),  # nothing measured
        (9, 0, 30, 0),  # in it to the end of the gap
        (10, 0, None, 0),
        (11, None, 100, 0),
        (12, 0, 0, 0),
    ]
    for stay in stays:
        hospital.stay(*stay)
    return hospital.write(tmp_path_factory.mktemp("crowd"))


OUT = {
    "not the first of their patient": 1,
    "over before the end of window and gap": 2,
    "under the lowest age": 1,
    "with times missing or out of order": 5,
    "without an outcome or an age": 1,
    "without a measurement in the window": 1,
}


@pytest.mark.parametrize(
    ("changes", "stays", "dropped"),
    [
        ({}, [105, 701, 900], OUT),
        ({"stays": "all"}, [105, 101, 701, 900], OUT | {"not the first of their patient": 0}),
        ({"min_age": 17}, [105, 200, 701, 900], OUT | {"under the lowest age": 0}),
        ({"gap": 5}, [105, 300, 400, 701, 900], OUT | {"over before the end of window and gap": 0}),
        ({"gap": 7}, [105, 701], OUT | {"over before the end of window and gap": 3}),
        ({"hours": 48}, [105], OUT | {"over before the end of window and gap": 4}),
        ({"hours": 30, "gap": 0}, [105, 701, 900], OUT),
    ],
)
def test_who_is_in_the_cohort(crowd, tmp_path, changes, stays, dropped):
    cohort, accounts = load(crowd, tmp_path, **changes)
    assert cohort.sample_id.tolist() == stays
    assert cohort.group_id.tolist() == [stay // 100 for stay in stays]
    assert cohort.label.tolist() == [int(stay in (400, 900)) for stay in stays]
    assert cohort.values.shape[1] == changes.get("hours", 24)
    found = {reason: count for reason, count in accounts[0].dropped.items() if count}
    assert found == {reason: count for reason, count in dropped.items() if count}
    assert (accounts[0].rows, accounts[0].read, accounts[0].kept) == ("stays", 14, len(stays))


@pytest.mark.parametrize("hours", [24, 48])
def test_the_same_as_with_pandas(mimic_tables, tmp_path, hours):
    cohort, accounts = load(mimic_tables, tmp_path, hours=hours)
    values, stay_id, label = build(mimic_tables / "mimiciv", VARIABLES, hours)
    assert len(stay_id) > 10
    np.testing.assert_array_equal(cohort.sample_id, stay_id)
    np.testing.assert_array_equal(cohort.label, label)
    found = cohort.values[:, :, : values.shape[2]]
    np.testing.assert_array_equal(np.isnan(found), np.isnan(values))
    np.testing.assert_allclose(found, values, rtol=1e-5, atol=0)
    for account in accounts:
        assert account.kept >= 0 and min(account.dropped.values()) >= 0


def test_nothing_after_the_window_is_read(mimic_tables, tmp_path):
    """Everything that was measured or stored after it is changed, and what is known at discharge."""
    folder = tmp_path / "raw" / "mimiciv"
    stays = text(mimic_tables / "mimiciv", "icu/icustays")
    cohort, _ = load(mimic_tables, tmp_path / "cache")
    kept = stays[stays["stay_id"].astype(int).isin(cohort.sample_id)]
    end = (pd.to_datetime(kept["intime"]) + pd.Timedelta(hours=24)).set_axis(kept["subject_id"])
    inside = {}
    for name in ("hosp/labevents", "icu/chartevents", "icu/outputevents"):
        events = text(mimic_tables / "mimiciv", name)
        over = events["subject_id"].map(end)
        late = ~(pd.to_datetime(events["charttime"]) < over) | (pd.to_datetime(events["storetime"]) > over)
        number = "value" if name == "icu/outputevents" else "valuenum"
        changed = pd.to_numeric(events.loc[late, number]) * 1.01
        assert 0 < len(changed) < len(events)
        events.loc[late, "value"] = "after the window"
        events.loc[late, number] = changed.round(3).astype(str).replace("nan", "")
        put(folder, name, events)
        inside[name] = events.index[~late & (events["itemid"] == str(HEART_RATE))]
    admissions = text(mimic_tables / "mimiciv", "hosp/admissions")
    admissions["discharge_location"] = "HOSPICE"
    admissions["dischtime"] = admissions["edouttime"] = "2199-01-01 00:00:00"
    put(folder, "hosp/admissions", admissions)
    put(folder, "hosp/patients", text(mimic_tables / "mimiciv", "hosp/patients").assign(dod="2100-01-01"))
    longer = kept.assign(outtime="2199-01-01 00:00:00", last_careunit="Another", los="99")
    put(folder, "icu/icustays", pd.concat([longer, stays.drop(kept.index)]))
    put(folder, "hosp/diagnoses_icd", kept[["subject_id", "hadm_id"]].assign(icd_code="I469", icd_version="10"))
    again, _ = load(tmp_path / "raw", tmp_path / "cache")
    assert same(again, cohort)
    (folder / "hosp" / "diagnoses_icd.csv.gz").unlink()
    assert same(load(tmp_path / "raw", tmp_path / "cache")[0], cohort)

    events = text(folder, "icu/chartevents")
    in_cohort = events.loc[inside["icu/chartevents"], "subject_id"].isin(kept["subject_id"])
    times = pd.to_datetime(events.loc[in_cohort.index, "charttime"])
    begin = events.loc[in_cohort.index, "subject_id"].map(end) - pd.Timedelta(hours=24)
    row = in_cohort.index[in_cohort & (times >= begin)][0]
    events.loc[row, "valuenum"] = "11"
    put(folder, "icu/chartevents", events)
    other, _ = load(tmp_path / "raw", tmp_path / "cache")
    assert (other.values != cohort.values)[~np.isnan(cohort.values)].sum() == 1


@pytest.mark.parametrize("double", [lambda f: pd.concat([f, f]), lambda f: f.loc[f.index.repeat(2)]])
def test_rows_that_stand_twice_count_once(mimic_tables, linked, tmp_path, double):
    once, accounts = load(mimic_tables, tmp_path / "cache", stays="all")
    for name in READ:
        put(linked / "mimiciv", name, double(text(mimic_tables / "mimiciv", name)))
    again, doubled = load(linked, tmp_path / "cache", stays="all")
    assert same(again, once)
    kept = {account.rows: account.kept for account in accounts}
    assert [account.rows for account in doubled] == [*kept, "patients", "admissions"]
    for account in doubled:
        assert account.kept == kept.get(account.rows, account.read // 2)
        if account.rows != "hourly values":
            assert account.dropped["that stand twice"] >= account.kept > 0
    assert doubled[0].read == 2 * 60 and doubled[0].dropped["that stand twice"] == 60
    assert "60 that stand twice" in account_lines(doubled)[0]


SPELLINGS = {
    "T": lambda times: times.str.replace(" ", "T"),
    "Z": lambda times: times.where(times == "", times + "Z"),
    "UTC": lambda times: times.where(times == "", times + " UTC"),
    "fractions": lambda times: times.where(times == "", times + ".000"),
    "nanoseconds": lambda times: times.where(times == "", times + ".999999999+0000"),
    "+00:00": lambda times: times.where(times == "", times + "+00:00"),
    "Berlin in winter": lambda times: (
        (pd.to_datetime(times) + pd.Timedelta(hours=1)).dt.strftime("%Y-%m-%dT%H:%M:%S+01:00").fillna("")
    ),
    "some": lambda times: times.where((times == "") | (np.arange(len(times)) % 3 > 0), times + " +00:00"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_times_in_other_spellings_are_the_same(mimic_tables, linked, tmp_path, monkeypatch, spelling):
    """Times with a zone become UTC, as those without are taken to be; what is below a second is cut off."""
    monkeypatch.setattr(original, "BLOCK", 200_000)  # a table of several blocks
    expected = load(mimic_tables, tmp_path / "cache", stays="all")
    for name in READ[1:]:
        frame = text(mimic_tables / "mimiciv", name)
        for column in {"admittime", "dischtime", "deathtime", "intime", "outtime", "charttime", "storetime"} & set(
            frame
        ):
            frame[column] = SPELLINGS[spelling](frame[column])
        put(linked / "mimiciv", name, frame)
    found = load(linked, tmp_path / "cache", stays="all")
    assert same(found[0], expected[0]) and found[1] == expected[1]


@pytest.mark.parametrize("kind", ["datetime64[ns]", "zoned", "text"])
def test_times_in_parquet_are_the_same_whatever_their_type(mimic_tables, linked, tmp_path, kind):
    expected, _ = load(mimic_tables, tmp_path / "cache", stays="all")
    for name, columns in {"icu/icustays": ["intime", "outtime"], "icu/chartevents": ["charttime", "storetime"]}.items():
        path = linked / "mimiciv" / f"{name}.csv.gz"
        frame = pd.read_csv(path, low_memory=False)
        for column in columns:
            off = pd.Timedelta(milliseconds=7) + pd.Timedelta(1, "ns")
            times = pd.to_datetime(frame[column]).astype("datetime64[ns]") + off
            zoned = times.dt.tz_localize("UTC").dt.tz_convert("America/New_York")
            frame[column] = times if kind == "datetime64[ns]" else zoned if kind == "zoned" else zoned.astype(str)
            frame[column] = frame[column].replace("NaT", None)
        path.unlink()
        frame.to_parquet(path.with_name(path.name.replace(".csv.gz", ".parquet")))
    assert same(load(linked, tmp_path / "cache", stays="all")[0], expected)


@pytest.mark.parametrize("between", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_tables_with_another_separator_or_a_byte_order_mark(mimic_tables, linked, tmp_path, between, mark):
    expected, _ = load(mimic_tables, tmp_path / "cache", stays="all")
    for name in READ:
        path = linked / "mimiciv" / f"{name}.csv.gz"
        frame = text(mimic_tables / "mimiciv", name)
        path.unlink()
        path.write_bytes(gzip.compress((mark + frame.to_csv(index=False, sep=between)).encode()))
    assert same(load(linked, tmp_path / "cache", stays="all")[0], expected)


def test_what_makes_a_row_another_one(tmp_path):
    """A lab has an id; what is charted differs by any column that is read, such as the time of storage."""
    hospital = Hospital()
    hospital.patient(1)
    hospital.admission(1)
    hospital.stay(1)
    for x in (1, 1, 4):  # three labs, two of them equal but for their id
        hospital.event("hosp/labevents", 1, CREATININE, 1.5, x, "mg/dL", 2)
    for x, stored in ((40, 2), (40, 2), (40, 3), (50, 3)):
        hospital.event("icu/outputevents", 1, FOLEY, 1, x, "ml", stored)
    for x in (60, 60, 90):
        hospital.event("icu/chartevents", 1, HEART_RATE, 1, x, "bpm", 1)
    cohort, accounts = load(hospital.write(tmp_path), tmp_path / "cache")
    found = dict(zip(cohort.feature_names, cohort.values[0, 1], strict=True))
    assert (found["creatinine"], found["urine_output"], found["heart_rate"]) == (2, 130, 75)
    twice = {account.rows: account.dropped.get("that stand twice") for account in accounts[1:4]}
    assert twice == {"labevents": None, "chartevents": 1, "outputevents": 1}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_every_form_of_the_tables_gives_the_same(mimic_tables, tmp_path, kind):
    write_tables(tmp_path / "mimiciv", 60, 60_000, kind=kind)
    one, other = load(mimic_tables, tmp_path / "cache"), load(tmp_path, tmp_path / "cache")
    assert same(one[0], other[0]) and one[1] == other[1]


def test_pieces_do_not_show(mimic_tables, tmp_path, monkeypatch):
    whole = load(mimic_tables, tmp_path / "whole")
    monkeypatch.setattr(original, "BLOCK", 50_000)
    monkeypatch.setattr(mimiciv, "ROW_GROUP", 500)
    pieces = load(mimic_tables, tmp_path / "pieces")
    assert same(whole[0], pieces[0]) and whole[1] == pieces[1]


def test_line_breaks_between_quotes_cut_no_row(tmp_path, monkeypatch):
    import pyarrow as pa

    frame = pd.DataFrame({"x": range(300), "t": ['a\n"b",\n\n', "", 'c"'] * 100, "y": range(300)})
    frame.to_csv(tmp_path / "made.csv", index=False)
    (tmp_path / "made.csv.gz").write_bytes(
        b"".join(gzip.compress(line) for line in (tmp_path / "made.csv").read_bytes().splitlines(keepends=True))
    )
    for block in (7, 50, 10_000):
        monkeypatch.setattr(original, "BLOCK", block)
        for name in ("made.csv", "made.csv.gz"):
            found = original.read(tmp_path / name, {"y": pa.int64(), "t": pa.string()})
            assert found["y"].to_pylist() == list(range(300))
            assert found["t"].to_pylist() == [text or None for text in frame["t"]]
    monkeypatch.setattr(original, "BLOCK", 100)
    (tmp_path / "made.csv").write_text('x,t\n1,"' + "without an end\n" * 200)
    with pytest.raises(UserError, match="made.csv: not readable: a quoted text or a row without an end"):
        original.read(tmp_path / "made.csv", {"x": pa.int64()})


def test_a_second_cohort_of_the_same_files_reads_the_copies(mimic_tables, linked, tmp_path):
    cache = tmp_path / "cache"
    put(linked / "mimiciv", "icu/chartevents", text(mimic_tables / "mimiciv", "icu/chartevents"))
    first, _ = load(linked, cache)
    copies = {path: path.stat().st_mtime_ns for path in cache.glob("*.parquet")}
    assert len(copies) == 3
    path = linked / "mimiciv" / "icu" / "chartevents.csv.gz"
    read = path.stat()
    path.write_bytes(bytes(read.st_size))
    os.utime(path, ns=(read.st_atime_ns, read.st_mtime_ns))
    assert same(load(linked, cache)[0], first)
    assert load(linked, cache, hours=6, stays="all")[0].n_steps == 6
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*.parquet")} == copies

    edited = tmp_path / "edited.csv"
    lines = VARIABLES.read_text().splitlines(keepends=True)
    edited.write_text("".join(line for line in lines if f",{CREATININE}," not in line))
    other, _ = load(linked, cache, variables=str(edited))
    assert "creatinine" not in other.feature_names
    assert len(set(cache.glob("*.parquet")) - set(copies)) == 1, "a copy of labevents, and of nothing else"

    os.utime(path, ns=(read.st_atime_ns, read.st_mtime_ns + 1))
    with pytest.raises(UserError, match="chartevents.csv.gz: not readable"):
        load(linked, cache)


def test_nothing_is_written_below_raw_dir(mimic_tables, tmp_path):
    def state() -> dict:
        return {path: path.stat().st_mtime_ns for path in [mimic_tables, *mimic_tables.rglob("*")]}

    before = state()
    load(mimic_tables, tmp_path / "cache")
    assert state() == before
    left = {path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".parquet"}
    assert left == {".gitignore"}, "scratch was left"


@pytest.mark.parametrize("with_stays", [False, True])
def test_labs_alone_say_so(mimic_tables, linked, tmp_path, with_stays):
    shutil.rmtree(linked / "mimiciv" / "icu")
    if with_stays:
        put(linked / "mimiciv", "icu/icustays", text(mimic_tables / "mimiciv", "icu/icustays"))
    entry = parse_entry("made", {"source": "mimiciv"}, "catalog")
    cohort, accounts = mimiciv.load("made", entry, linked, tmp_path / "cache")
    assert mimiciv.describe(entry, linked) == (24, cohort.features)
    assert [account.rows for account in accounts] == ["stays", "labevents", "hourly values"]
    note = "no table of ICU measurements: labs alone, no vital signs"
    note += "" if with_stays else "; no table of ICU stays: these are hospital admissions"
    assert accounts[0].note == note and note in account_lines(accounts)[0]
    assert "creatinine" in cohort.feature_names and "heart_rate" not in cohort.feature_names
    table = text(mimic_tables / "mimiciv", "icu/icustays" if with_stays else "hosp/admissions")
    assert accounts[0].read == len(table)
    ids = table["stay_id" if with_stays else "hadm_id"].astype(int)
    assert set(cohort.sample_id) <= set(ids) and len(cohort) > 5
    if with_stays:
        full, _ = load(mimic_tables, tmp_path / "cache")
        rows = np.isin(full.sample_id, cohort.sample_id)
        columns = [full.feature_names.index(name) for name in cohort.feature_names if name not in ("fio2", "glucose")]
        again = [cohort.feature_names.index(full.feature_names[column]) for column in columns]
        np.testing.assert_array_equal(full.values[rows][:, :, columns], cohort.values[:, :, again])


def test_ingest_takes_the_whole_cohort_in(mimic_tables, tmp_path, monkeypatch, capsys):
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text()) | {"catalog": "catalog.yaml"}
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    entry = {"source": "mimiciv", "variables": str(VARIABLES)}
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump({"made": entry}))
    monkeypatch.chdir(tmp_path)
    assert main(["ingest", "made", "--raw-dir", str(mimic_tables)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("stays: 33 kept; dropped: ") and "not the first of their patient" in said
    (tmp_path / "empty" / "mimiciv").mkdir(parents=True)
    assert main(["ingest", "made", "--raw-dir", "empty"]) == 1
    missing = "empty/mimiciv/hosp/patients.csv.gz: no such file"
    assert capsys.readouterr().err == f"error: made: {missing}; expected under raw_dir\n"


# Bad input. Each case changes the tables and is refused in one sentence.

Break = Callable[[Path], object]


def table(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Break:
    return lambda folder: put(folder, name, change(text(folder, name)))


def cell(name: str, column: str, value: str, row: int = 3) -> Break:
    return table(name, lambda frame: frame.assign(**{column: [*frame[column][:row], value, *frame[column][row + 1 :]]}))


def content(name: str, change: Callable[[bytes], bytes], suffix: str = ".csv.gz") -> Break:
    def apply(folder: Path) -> None:
        path = folder / f"{name}.csv.gz"
        given = path.read_bytes()
        path.unlink()
        path.with_name(path.name.replace(".csv.gz", suffix)).write_bytes(change(given))

    return apply


def without(name: str) -> Break:
    return lambda folder: (folder / f"{name}.csv.gz").unlink()


def loop(name: str) -> Break:
    def apply(folder: Path) -> None:
        path = folder / f"{name}.csv.gz"
        path.unlink()
        path.symlink_to(path)

    return apply


def parquet(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Break:
    """As Parquet, with the types that pandas finds."""

    def apply(folder: Path) -> None:
        path = folder / f"{name}.csv.gz"
        frame = change(pd.read_csv(path, low_memory=False))
        path.unlink()
        frame.to_parquet(path.with_name(path.name.replace(".csv.gz", ".parquet")))

    return apply


def twice(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The first row once more, with the content of the second in `column`."""
    return lambda frame: pd.concat([frame, frame[:1].assign(**{column: frame[column][1]})])


BAD = [
    *((content(name, lambda b: b[: len(b) // 2]), f"{name}.csv.gz: not readable: ") for name in READ),
    *((content(name, lambda b: b[:-4]), f"{name}.csv.gz: not readable: ") for name in (READ[0], READ[4])),
    *((without(name), f"{name}.csv.gz: no such file") for name in READ if name != "icu/chartevents"),
    *((loop(name), f"{name}.csv.gz: not readable: ") for name in READ),
    *(
        (table(name, lambda f, c=column: f.drop(columns=c)), f"{name}.csv.gz: column '{column}' is missing; expected")
        for name, column in [
            ("hosp/patients", "anchor_year"),
            ("hosp/admissions", "hospital_expire_flag"),
            ("icu/icustays", "outtime"),
            ("hosp/labevents", "storetime"),
            ("icu/chartevents", "valuenum"),
            ("icu/outputevents", "value"),
        ]
    ),
    (
        cell("hosp/patients", "subject_id", "S3CRET"),
        "column 'subject_id': under 10 of 184 rows hold something else than whole num",
    ),
    (
        cell("hosp/patients", "anchor_age", "61.5"),
        "column 'anchor_age': under 10 of 184 rows hold something else than whole num",
    ),
    (cell("hosp/admissions", "hospital_expire_flag", "S3CRET"), "hold something else than whole numbers"),
    (cell("hosp/admissions", "hospital_expire_flag", "3141"), "hold something else than whole numbers"),
    (
        cell("icu/icustays", "intime", "S3CRET"),
        r"column 'intime': under 10 of 60 rows hold something else than times such as",
    ),
    (
        cell("icu/icustays", "intime", "31.01.2150 00:00:00"),
        "under 10 of 60 rows hold something else than times such as",
    ),
    (cell("icu/icustays", "intime", "2150-02-31 00:00:00"), "column 'intime': it holds something else than times"),
    (
        cell("icu/chartevents", "valuenum", "S3CRET"),
        r"icu/chartevents.csv.gz: column 'valuenum': under 10 of [\d,]+ rows hold some",
    ),
    (
        cell("icu/chartevents", "charttime", "S3CRET"),
        r"column 'charttime': under 10 of [\d,]+ rows hold something else than times",
    ),
    (
        cell("hosp/labevents", "itemid", "S3CRET"),
        r"column 'itemid': under 10 of [\d,]+ rows hold something else than whole nu",
    ),
    (
        cell("icu/outputevents", "value", "S3CRET"),
        r"column 'value': under 10 of [\d,]+ rows hold something else than numbers",
    ),
    *(
        (
            table(name, twice(other)),
            f"{name}.csv.gz: column '{key}': under 10 of {n} rows hold an id that stands twice, with oth",
        )
        for name, key, other, n in [
            ("hosp/patients", "subject_id", "anchor_year", r"\d+"),
            ("icu/icustays", "stay_id", "outtime", 61),
            ("hosp/admissions", "hadm_id", "admittime", r"\d+"),
        ]
    ),
    (
        table("icu/icustays", lambda f: pd.concat([f, f[:2].assign(stay_id=["7", "8"])])),
        "made: under 10 of 62 stays start at the same time as another stay of their patient; expected each stay once",
    ),
    (content("hosp/patients", lambda b: gzip.compress(gzip.decompress(b).replace(b",F,", b",\xe9,"))), "text in UTF-8"),
    (
        content("hosp/patients", lambda b: gzip.compress(b"\xff\xfe" + gzip.decompress(b))),
        "first line is no text in UTF",
    ),
    (content("icu/chartevents", lambda b: gzip.compress(gzip.decompress(b).replace(b"bpm", b"\xe9"))), "text in UTF-8"),
    (content("icu/chartevents", lambda b: gzip.compress(gzip.decompress(b) + b"10000032,S3CRET\n")), "got 2;"),
    (content("icu/chartevents", lambda b: gzip.compress(gzip.decompress(b) + b"31415926," * 120)), "got 121;"),
    (content("icu/chartevents", gzip.decompress), "icu/chartevents.csv.gz: not readable: "),
    *((content(name, lambda b: b""), f"{name}.csv.gz: not readable: ") for name in (READ[0], READ[4])),
    *((content(name, lambda b: b"", ".csv"), f"{name}.csv: not readable: ") for name in (READ[0], READ[4])),
    *((table(name, lambda f: f[:0]), f"{name}.csv.gz: not readable: ") for name in (READ[0], READ[4])),
    (content("icu/chartevents", lambda b: b"PAR1 no", ".parquet"), "icu/chartevents.parquet: not readable: "),
    (
        parquet("hosp/patients", lambda f: f.assign(subject_id="S3CRET")),
        "column 'subject_id': 184 of 184 rows hold something else than",
    ),
    (
        parquet("icu/icustays", lambda f: f.assign(intime="S3CRET")),
        "column 'intime': 60 of 60 rows hold something else than times",
    ),
    (
        parquet("icu/icustays", lambda f: f.assign(stay_id=31415926.5)),
        "column 'stay_id': 60 of 60 rows hold something else than",
    ),
    (
        parquet("icu/chartevents", lambda f: f.assign(valuenum="S3CRET")),
        r"column 'valuenum': ([\d,]+) of \1 rows hold something else than",
    ),
    (parquet("icu/chartevents", lambda f: f.drop(columns="valuenum")), "column 'valuenum' is missing"),
    *((parquet(name, lambda f: f[:0]), f"{name}.parquet: not readable: it has no rows") for name in (READ[0], READ[4])),
    (table("icu/icustays", lambda f: f.assign(outtime=f["intime"])), "made: none of 60 stays is left .with times miss"),
    (table("hosp/admissions", lambda f: f.assign(hospital_expire_flag="0")), "made: label: 0 of 33 rows are positive"),
    (lambda f: (f / "core").mkdir(), r"has core/, the layout of MIMIC-IV 1\.0; expected 2\.0 or later"),
    (lambda f: [shutil.rmtree(f), f.mkdir()], "mimiciv/hosp/patients.csv.gz: no such file"),
    (shutil.rmtree, "mimiciv/hosp/patients.csv.gz: no such file"),
    (lambda f: [shutil.rmtree(f), f.touch()], "mimiciv/hosp/patients.csv.gz: not readable: "),
    (lambda f: [shutil.rmtree(f), f.symlink_to(f)], "mimiciv/hosp/patients.csv.gz: not readable: "),
    (lambda f: [f.joinpath(f"{n}.csv.gz").unlink() for n in READ[:2]], "mimiciv/hosp/patients.csv.gz: no such file"),
]


def sample_dev(raw_dir: Path, out: Path, **changes) -> int:
    entry = json.dumps({"source": "mimiciv"} | changes)
    arguments = ["sample_dev", "--dataset", "made", "--entry", entry, "--raw-dir", str(raw_dir)]
    arguments += ["--cache-dir", str(out / "cache"), "--n-samples", "all", "--out", str(out / "made")]
    return main([*arguments, "--splits", str(out / "made.json")])


@pytest.mark.parametrize(("break_it", "message"), BAD)
def test_bad_input_is_one_sentence_and_leaves_nothing(linked, tmp_path, capsys, break_it, message):
    break_it(linked / "mimiciv")
    assert sample_dev(linked, tmp_path / "out") == 1
    said = capsys.readouterr()
    assert re.fullmatch(rf"error: .*{message}.*\n", said.err)
    # What became of the rows is told before a check of the cohort fails.
    assert said.out.startswith("stays: 33 kept; dropped: ") == ("made: label:" in message)
    assert said.out.count("\n") == (5 if said.out else 0)
    assert not re.search(r"S3CRET|3141|61\.5|T00:00|\b[1-3]\d{7}\b", said.err), "a value or an id in a message"
    left = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")}
    assert all(re.fullmatch(r"cache(/\w+-[0-9a-f]{16}\.parquet|/\.gitignore)?", path) for path in left), left


def test_good_input_is_written(linked, tmp_path, capsys):
    """The same call with tables that nothing is wrong with; texts among the values of chartevents are nothing wrong."""
    cell("icu/chartevents", "value", "60 and more")(linked / "mimiciv")
    assert sample_dev(linked, tmp_path / "out", stays="all", hours=6, gap=0) == 0
    written = {path.name for path in (tmp_path / "out").rglob("*") if path.parent.name != "cache"}
    assert written == {"cache", "made", "made.json", "samples.parquet", "windows.parquet"}
    assert "stays: 57 kept; dropped: under 10 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("chartevents,220045", "chartevent,220045", "'chartevent' given, expected one of labevents, chartevents, out"),
        ("chartevents,220045", "chartevents,HR", "expected a table and an itemid that is a whole number"),
        ("table,itemid", "where,code", "heart_rate: expected a table and an itemid that is a whole number"),
        ("heart_rate", "age", "age: the name of a static feature; expected another"),
    ],
)
def test_a_wrong_table_of_variables_is_one_sentence(linked, tmp_path, capsys, old, new, message):
    path = tmp_path / "edited.csv"
    path.write_text(VARIABLES.read_text().replace(old, new))
    assert sample_dev(linked, tmp_path / "out", variables=str(path)) == 1
    said = capsys.readouterr()
    assert re.fullmatch(rf"error: {path}.*{message}.*\n", said.err)
    assert not (tmp_path / "out" / "made").exists()


def test_an_expected_size_that_is_not_met_is_one_sentence(linked, tmp_path):
    entry = {"source": "mimiciv", "expected": {"samples": 60, "positives": 6}}
    with pytest.raises(
        UserError, match="made: 33 samples with under 10 positives were read; the catalog expects 60 with under 10"
    ):
        take_in("made", parse_entry("made", entry, "catalog"), linked, tmp_path / "cache")


def test_the_layout_of_version_1_is_refused_before_anything_is_read(linked):
    (linked / "mimiciv" / "core").mkdir()
    entry = parse_entry("made", {"source": "mimiciv"}, "catalog")
    with pytest.raises(UserError, match=r"has core/, the layout of MIMIC-IV 1\.0"):
        mimiciv.input_files(entry, linked)


def test_a_folder_with_a_quote_in_its_name(mimic_tables, tmp_path):
    assert len(load(mimic_tables, tmp_path / "o'brien [1]")[0]) == 33


@pytest.mark.parametrize(
    ("key", "value"),
    [("hours", 0), ("gap", -1), ("stays", "last"), ("min_age", "old"), ("label", "died"), ("lable", "x")],
)
def test_a_wrong_entry_names_its_key(key, value):
    with pytest.raises(UserError, match=rf"catalog: made\.{key}"):
        parse_entry("made", {"source": "mimiciv", key: value}, "catalog")
