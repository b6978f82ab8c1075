"""MEDS: the same cohort as from MIMIC-IV's tables, every layout of the files, and bad input."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from test_mimiciv import READ, VARIABLES, put, same, text
from test_mimiciv import load as load_tables

from pipeline.cohorts.catalog import parse_entry, read_catalog, source_of
from pipeline.cohorts.intake import take_in
from pipeline.cohorts.sources import meds
from pipeline.errors import UserError
from pipeline.front import main

TYPES = {"subject_id": "int64", "time": "datetime64[us]", "code": str, "numeric_value": "float32"}
PREFIX = {"hosp/labevents": "LAB", "icu/chartevents": "LAB", "icu/outputevents": "SUBJECT_FLUID_OUTPUT"}


def load(raw_dir: Path, **changes):
    entry = parse_entry("made", {"source": "meds"} | changes, "catalog")
    return source_of(entry).load("made", entry, raw_dir, raw_dir / "cache")


def events_of(rows: list[tuple]) -> pd.DataFrame:
    """Rows of (subject_id, time, code[, numeric_value]) in MEDS's types."""
    rows = [(*row, None) if len(row) == 3 else row for row in rows]
    return pd.DataFrame(rows, columns=list(TYPES)).astype(TYPES)


def without_storetime(tables: Path, raw_dir: Path) -> Path:
    """A raw_dir with a copy of the MIMIC-IV tables that does not say when results were stored, as MEDS does not."""
    for name in READ:
        frame = text(tables, name)
        put(raw_dir / "mimiciv", name, frame.assign(storetime="") if "storetime" in frame else frame)
    return raw_dir


def as_meds(tables: Path) -> pd.DataFrame:
    """The events of MIMIC-IV tables, named as the MEDS release of the demo names them."""
    patients, admissions, labs, stays, charts, outputs = (text(tables, name) for name in READ)
    parts = [
        (patients, None, "GENDER//" + patients["gender"]),
        (
            patients,
            (patients["anchor_year"].astype(int) - patients["anchor_age"].astype(int)).astype(str) + "-01-01",
            "MEDS_BIRTH",
        ),
        (
            admissions,
            admissions["admittime"],
            "HOSPITAL_ADMISSION//" + admissions["admission_type"] + "//" + admissions["admission_location"],
        ),
        (admissions, admissions["dischtime"], "HOSPITAL_DISCHARGE//" + admissions["discharge_location"]),
        (died := admissions[admissions["deathtime"] != ""], died["deathtime"], "MEDS_DEATH"),
        (stays, stays["intime"], "ICU_ADMISSION//" + stays["first_careunit"]),
        (stays, stays["outtime"], "ICU_DISCHARGE//" + stays["last_careunit"]),
    ]
    found = [
        pd.DataFrame({"subject_id": table["subject_id"], "time": times, "code": codes, "numeric_value": None})
        for table, times, codes in parts
    ]
    for name, table in zip(PREFIX, (labs, charts, outputs), strict=True):
        number = table["value" if name == "icu/outputevents" else "valuenum"].replace("", None)
        code = PREFIX[name] + "//" + table["itemid"] + "//" + table["valueuom"].replace("", "UNK")
        found.append(table[["subject_id"]].assign(time=table["charttime"], code=code, numeric_value=number))
    events = pd.concat(found, ignore_index=True)
    return events.assign(time=pd.to_datetime(events["time"], format="mixed")).astype(TYPES)


@pytest.fixture(scope="module")
def converted(mimic_tables, tmp_path_factory) -> Path:
    """A raw_dir with the generated MIMIC-IV tables, less their storetime, and the same as MEDS in two layouts."""
    raw_dir = without_storetime(mimic_tables / "mimiciv", tmp_path_factory.mktemp("converted"))
    events = as_meds(mimic_tables / "mimiciv")
    for place in ("meds/data/train", "meds/data/held_out", "meds/metadata"):
        (raw_dir / place).mkdir(parents=True)
    part = events["subject_id"] % 3
    for number, path in enumerate(("train/0.parquet", "train/1.parquet", "held_out/0.parquet")):
        events[part == number].to_parquet(raw_dir / "meds" / "data" / path)
    codes = pd.DataFrame({"code": ["MEDS_BIRTH"], "description": ["birth"], "parent_codes": [["x"]]})
    codes.to_parquet(raw_dir / "meds" / "metadata" / "codes.parquet")
    splits = events[["subject_id"]].drop_duplicates().assign(split="train")
    splits.to_parquet(raw_dir / "meds" / "metadata" / "subject_splits.parquet")
    (raw_dir / "meds" / "metadata" / "dataset.json").write_text("{}")
    (raw_dir / "flat").mkdir()
    flat = events.rename(columns={"numeric_value": "value"}).assign(table="any")
    flat.sample(frac=1, random_state=0).to_parquet(raw_dir / "flat" / "events.parquet")
    return raw_dir


@pytest.mark.parametrize("changes", [{}, {"stays": "all", "hours": 48, "gap": 0, "min_age": 0}])
def test_the_same_cohort_as_from_the_tables(converted, tmp_path, changes):
    tables, accounts = load_tables(converted, tmp_path, **changes)
    cohort, meds_accounts = load(converted, **changes)
    assert cohort.features == tables.features
    for name in ("group_id", "label", "values"):
        np.testing.assert_array_equal(getattr(cohort, name), getattr(tables, name))
    assert len(np.unique(cohort.sample_id)) == len(cohort) > 10
    stays, events, hourly = meds_accounts
    assert (stays, hourly) == (accounts[0], accounts[-1])
    assert events.note == "labs are coded as LAB//itemid at the time they were taken"
    assert (events.rows, events.kept) == ("events", sum(account.kept for account in accounts[1:-1]))
    assert min(events.dropped.values()) >= 0


def test_layouts_and_names_of_the_number_give_the_same(converted):
    parts, flat, alone = (load(converted, folder=folder) for folder in ("meds", "flat", "flat/events.parquet"))
    assert same(parts[0], flat[0]) and same(flat[0], alone[0])
    assert parts[1] == flat[1] == alone[1]
    entry = parse_entry("made", {"source": "meds"}, "catalog")
    files = [path.relative_to(converted / "meds" / "data") for path in meds.input_files(entry, converted)]
    assert list(map(str, files)) == ["held_out/0.parquet", "train/0.parquet", "train/1.parquet"]
    assert meds.describe(entry, converted) == (24, parts[0].features)


def hours(number: float) -> pd.Timestamp:
    return pd.Timestamp("2152-03-01 10:00") + pd.Timedelta(hours=number)


def patient(subject: int, died: bool = False) -> list[tuple]:
    """Admitted 5 hours before the ICU, there for 100 hours, in hospital for 200."""
    ending = [(subject, hours(200), "HOSPITAL_DISCHARGE//" + ("DIED" if died else "HOME"))]
    ending += [(subject, hours(200), "MEDS_DEATH")] if died else []
    return [
        (subject, pd.NaT, "GENDER//M"),
        (subject, pd.Timestamp("2092-06-01"), "MEDS_BIRTH"),
        (subject, hours(-5), "HOSPITAL_ADMISSION//URGENT//EMERGENCY ROOM"),
        (subject, hours(0), "ICU_ADMISSION//A"),
        (subject, hours(100), "ICU_DISCHARGE//A"),
        *ending,
    ]


def test_values_by_hand(tmp_path):
    measured = [
        (0, "LAB//220045//bpm", 80),
        (0.99, "LAB//220045//BPM", 91),
        (-0.01, "LAB//220045//bpm", 10),  # before the stay
        (24, "LAB//220045//bpm", 66),  # the window is over
        (5, "LAB//220045", 70),  # without a unit
        (5.5, "LAB//220045//UNK", 100),
        (6, "LAB//220045//Hz", 80),
        (7, "LAB//220045//bpm", 301),  # out of range
        (8, "LAB//220045//bpm", None),
        (9, "LAB//2200451//bpm", 80),  # another item
        (2, "LAB//223761//°F", 98.6),
        (10, "LAB//50912//mg/dL", 1.5),
        (1, "SUBJECT_FLUID_OUTPUT//226559//ml", 40),
        (1.5, "SUBJECT_FLUID_OUTPUT//226560//ml", 60.5),
        (3, "LAB//226559//ml", 7),  # no output by that name
    ]
    rows = patient(1, died=True) + [(1, hours(time), code, value) for time, code, value in measured]
    # The stay belongs to the admission before its end, even if it starts minutes before it.
    early = [row for row in patient(2) if "HOSPITAL_ADMISSION" not in row[2]]
    rows += [*early, (2, hours(0.1), "HOSPITAL_ADMISSION//ELECTIVE//x"), (2, hours(1), "LAB//220045//bpm", 60)]
    rows += [(2, hours(-900), "HOSPITAL_ADMISSION//URGENT//x"), (2, hours(-800), "HOSPITAL_DISCHARGE//DIED")]
    rows += [*patient(3), (3, hours(1), "LAB//50912//mg/dL", 2)]
    events_of(rows).to_parquet(tmp_path / "meds.parquet")
    cohort, accounts = load(tmp_path, folder="meds.parquet")
    wanted = np.full((3, 24, len(cohort.features)), np.nan, np.float32)
    column = cohort.feature_names.index
    for stay, hour, name, value in [
        (0, 0, "heart_rate", 85.5),
        (0, 5, "heart_rate", 85),
        (0, 2, "temperature", 37),
        (0, 10, "creatinine", 1.5),
        (0, 1, "urine_output", 100.5),
        (1, 1, "heart_rate", 60),
        (2, 1, "creatinine", 2),
    ]:
        wanted[stay, hour, column(name)] = value
    wanted[:, :, column("age")] = 60
    wanted[:, :, column("sex")] = 1
    kinds = cohort.features[column("admission_type")].categories
    for stay, kind in enumerate(("URGENT", "ELECTIVE", "URGENT")):
        wanted[stay, :, column("admission_type")] = kinds.index(kind)
    np.testing.assert_array_equal(cohort.values, wanted)
    assert cohort.label.tolist() == [1, 0, 0] and cohort.group_id.tolist() == [1, 2, 3]
    assert {account.rows: (account.read, account.kept) for account in accounts} == {
        "stays": (3, 3),
        "events": (len(rows), 10),
        "hourly values": (7, 7),
    }
    assert accounts[1].dropped["in an unknown unit"] == 1 and accounts[1].dropped["without a number"] == 1


def test_who_is_in_the_cohort(tmp_path):
    measured = [(subject, hours(1), "LAB//220045//bpm", 80) for subject in range(1, 8)]
    rows = [row for subject in range(1, 8) for row in patient(subject)] + measured
    rows += [(1, hours(150), "ICU_ADMISSION//B"), (1, hours(190), "ICU_DISCHARGE//B")]
    rows = [row for row in rows if row[:3] != (2, pd.Timestamp("2092-06-01"), "MEDS_BIRTH")]  # without an age
    rows = [row for row in rows if row[0] != 3 or "HOSPITAL" not in row[2]]  # without an outcome
    rows = [row for row in rows if row[0] != 4 or "ICU_DISCHARGE" not in row[2]]  # without an end
    rows += [(5, hours(29.9), "ICU_DISCHARGE//A"), (6, pd.Timestamp("2140-01-01"), "MEDS_BIRTH")]
    rows = [row for row in rows if row[0] != 7 or "LAB" not in row[2]]
    rows = [row for row in rows if row[0] != 6 or row[1] != pd.Timestamp("2092-06-01")]
    events_of(rows).to_parquet(tmp_path / "meds.parquet")
    cohort, accounts = load(tmp_path, folder="meds.parquet")
    assert cohort.group_id.tolist() == [1]
    assert accounts[0].dropped == {
        "not the first of their patient": 1,
        "over before the end of window and gap": 1,
        "under the lowest age": 1,
        "with times missing or out of order": 1,
        "without an outcome or an age": 2,
        "without a measurement in the window": 1,
        "that stand twice": 0,
    }


def test_an_admission_without_an_end_has_no_outcome(tmp_path):
    """Not that of the admission before it either."""
    staying = [row for row in patient(1) if "HOSPITAL_DISCHARGE" not in row[2]]
    before = [(1, hours(-900), "HOSPITAL_ADMISSION//URGENT//x"), (1, hours(-800), "HOSPITAL_DISCHARGE//HOME")]
    rows = [*staying, *before, *patient(2), *((subject, hours(1), "LAB//220045//bpm", 80) for subject in (1, 2))]
    events_of(rows).to_parquet(tmp_path / "meds.parquet")
    cohort, accounts = load(tmp_path, folder="meds.parquet")
    assert cohort.group_id.tolist() == [2]
    assert accounts[0].dropped["without an outcome or an age"] == 1


@pytest.mark.parametrize("copy", ["1.parquet", "train/0.parquet", ".cache/0.parquet", "a/.ipynb_checkpoints/0.parquet"])
def test_a_shard_that_lies_twice_counts_once(tmp_path, copy):
    rows = patient(1, died=True) + [(1, hours(1), "SUBJECT_FLUID_OUTPUT//226559//ml", 40)]
    rows += [(1, hours(1.5), "SUBJECT_FLUID_OUTPUT//226559//ml", x) for x in (40, 60)]
    events = events_of(rows)
    (tmp_path / "meds" / "data" / copy).parent.mkdir(parents=True)
    events.to_parquet(tmp_path / "meds" / "data" / "0.parquet")
    once, accounts = load(tmp_path)
    events.to_parquet(tmp_path / "meds" / "data" / copy)
    again, doubled = load(tmp_path)
    assert same(again, once)
    assert again.values[0, 1, again.feature_names.index("urine_output")] == 140
    if "." in copy.removesuffix(".parquet"):
        assert doubled == accounts
    else:
        assert [(account.read, account.kept) for account in doubled] == [(2, 1), (2 * len(rows), 3), (1, 1)]
        assert [account.dropped["that stand twice"] for account in doubled[:2]] == [1, 3]


def test_a_stay_that_is_admitted_twice_is_refused(tmp_path):
    rows = [*patient(1), *patient(2), (1, hours(0), "ICU_ADMISSION//B")]
    events_of(rows).to_parquet(tmp_path / "meds.parquet")
    with pytest.raises(
        UserError, match="made: under 10 of 3 stays start at the same time as another stay of their patient"
    ):
        load(tmp_path, folder="meds.parquet")


def test_an_admission_to_the_icu_before_the_discharge_from_it_has_no_end(tmp_path):
    """Not that of the stay after it, which would be read as part of both."""
    rows = [*patient(1), (1, hours(50), "ICU_ADMISSION//B"), (1, hours(51), "LAB//220045//bpm", 80)]
    events_of(rows).to_parquet(tmp_path / "meds.parquet")
    cohort, accounts = load(tmp_path, folder="meds.parquet", stays="all")
    assert accounts[0].dropped["with times missing or out of order"] == 1
    assert cohort.values[:, 1, cohort.feature_names.index("heart_rate")].tolist() == [80]


def zoned(rows: list[tuple], zone: str) -> pa.Table:
    """The events with times that have a zone; those of `rows` are in UTC."""
    events = events_of(rows)
    return pa.Table.from_pandas(events.assign(time=events["time"].dt.tz_localize("UTC").dt.tz_convert(zone)))


ZONES = ("UTC", "America/Los_Angeles", "Asia/Kolkata", "Pacific/Auckland")


def test_times_with_a_zone_are_the_same_on_every_machine(tmp_path):
    """A birth at midnight UTC is in the year before in Los Angeles: there all ages would be one more."""
    rows = [row for row in patient(1, died=True) if row[2] != "MEDS_BIRTH"]
    rows += [(1, pd.Timestamp("2092-01-01"), "MEDS_BIRTH"), (1, hours(1), "LAB//220045//bpm", 80)]
    rows += [*patient(2), (2, hours(2), "LAB//220045//bpm", 90)]
    events_of(rows).to_parquet(tmp_path / "naive.parquet")
    pq.write_table(zoned(rows, "Europe/Berlin"), tmp_path / "zoned.parquet")
    (tmp_path / "mixed").mkdir()  # one shard of each kind
    events_of([row for row in rows if row[0] == 1]).to_parquet(tmp_path / "mixed" / "0.parquet")
    pq.write_table(zoned([row for row in rows if row[0] == 2], "UTC"), tmp_path / "mixed" / "1.parquet")
    expected, _ = load(tmp_path, folder="naive.parquet")
    assert expected.values[:, 0, expected.feature_names.index("age")].tolist() == [60, 60]
    script = (
        "import sys, hashlib; from pathlib import Path; from test_meds import load\n"
        "for folder in ('naive.parquet', 'zoned.parquet', 'mixed'):\n"
        "    cohort, _ = load(Path(sys.argv[1]), folder=folder)\n"
        "    print(hashlib.sha256(cohort.values.tobytes() + cohort.group_id.tobytes()).hexdigest())"
    )
    wanted = hashlib.sha256(expected.values.tobytes() + expected.group_id.tobytes()).hexdigest()
    for zone in ZONES:
        paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
        made = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            env=os.environ | {"TZ": zone, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=True,
        )
        assert made.stdout.split() == [wanted] * 3, zone


def test_a_change_of_the_clocks_is_no_hour(tmp_path):
    """In the night to 10 March 2024 there is no 02:30 in New York: 03:30 is one and a half hours after 01:00."""
    shift = pd.Timestamp("2024-03-10 06:00") - hours(0)  # 01:00 in New York
    rows = [(subject, time + shift, *rest) for subject, time, *rest in patient(1)]
    rows += [(1, pd.Timestamp("2024-03-10 07:30"), "LAB//220045//bpm", 80)]
    pq.write_table(zoned(rows, "America/New_York"), tmp_path / "meds.parquet")
    cohort, _ = load(tmp_path, folder="meds.parquet")
    course = cohort.values[0, :, cohort.feature_names.index("heart_rate")]
    assert np.flatnonzero(~np.isnan(course)).tolist() == [1]


def test_both_codings_of_labs_are_read_and_told(tmp_path):
    """Newer extractions say LAB//RESULT//itemid//unit, at the time of storage; a patient with both is read once."""
    newer = [(1, hours(2), "LAB//RESULT//50912//mg/dL", 1.5), (1, hours(2), "LAB//SPECIMEN_COLLECTED//50912//STAT")]
    older = [(2, hours(3), "LAB//50912//mg/dL", 2.5)]
    both = [(3, hours(1), "LAB//50912//mg/dL", 9), (3, hours(2), "LAB//RESULT//50912//UNK", 4)]
    charted = [(subject, hours(1), "LAB//220045//bpm", 80) for subject in (1, 2, 3)]

    def read(subjects: tuple[int, ...]):
        events = [row for row in (*newer, *older, *both, *charted) if row[0] in subjects]
        rows = [row for subject in subjects for row in patient(subject)]
        events_of([*rows, *events]).to_parquet(tmp_path / "meds.parquet")
        cohort, accounts = load(tmp_path, folder="meds.parquet")
        assert (cohort.values[:, 1, cohort.feature_names.index("heart_rate")] == 80).all()
        return cohort.values[:, :4, cohort.feature_names.index("creatinine")], accounts[1]

    gap = np.nan
    values, account = read((1,))
    np.testing.assert_array_equal(values, [[gap, gap, 1.5, gap]])
    assert account.note == "labs are coded as LAB//RESULT//itemid at the time they were stored"
    values, account = read((2,))
    np.testing.assert_array_equal(values, [[gap, gap, gap, 2.5]])
    assert account.note == "labs are coded as LAB//itemid at the time they were taken"
    values, account = read((1, 2, 3))
    np.testing.assert_array_equal(values, [[gap, gap, 1.5, gap], [gap, gap, gap, 2.5], [gap, gap, 4, gap]])
    assert account.dropped["labs in a second coding"] == 1 and account.kept == 6
    assert account.note.endswith(", for patients with both as the former")


def test_birth_and_death_with_more_behind_them(tmp_path):
    rows = [*patient(1, died=True), (1, hours(1), "LAB//220045//bpm", 80)]
    renamed = [
        (subject, time, f"{code}//X" if code in ("MEDS_BIRTH", "MEDS_DEATH") else code, *value)
        for subject, time, code, *value in rows
    ]
    renamed += [(1, pd.Timestamp("2000-01-01"), "MEDS_BIRTHPLACE//A")]  # another code
    for name, events in (("one", rows), ("other", renamed)):
        events_of(events).to_parquet(tmp_path / f"{name}.parquet")
    assert same(load(tmp_path, folder="one.parquet")[0], load(tmp_path, folder="other.parquet")[0])


def test_an_empty_shard_and_codes_that_are_null(tmp_path):
    rows = [*patient(1), (1, hours(1), "LAB//220045//bpm", 80)]
    (tmp_path / "meds").mkdir()
    events_of(rows).to_parquet(tmp_path / "meds" / "1.parquet")
    expected, accounts = load(tmp_path)
    pd.DataFrame([], columns=list(TYPES)).to_parquet(tmp_path / "meds" / "0.parquet")  # all types are null
    events_of([(1, hours(1), None, 5), (1, None, "LAB//220045//bpm", 5)]).assign(code=[None, "LAB//220045"]).to_parquet(
        tmp_path / "meds" / "2.parquet"
    )
    cohort, with_nulls = load(tmp_path)
    assert same(cohort, expected)
    assert with_nulls[1].read == accounts[1].read + 2 and with_nulls[1].kept == accounts[1].kept
    for path in (tmp_path / "meds").glob("[12].parquet"):
        path.unlink()
    with pytest.raises(UserError, match="meds: its files have no rows; expected MEDS events"):
        load(tmp_path)


def test_ids_that_are_texts_of_numbers_are_read_and_others_refused(tmp_path):
    rows = [*patient(1), (1, hours(1), "LAB//220045//bpm", 80)]
    events = events_of(rows)
    events.to_parquet(tmp_path / "numbers.parquet")
    events.assign(subject_id="1").to_parquet(tmp_path / "texts.parquet")
    assert same(load(tmp_path, folder="numbers.parquet")[0], load(tmp_path, folder="texts.parquet")[0])
    events.assign(subject_id="0f8fad5b-d9cb-469f-a165-70867728950e").to_parquet(tmp_path / "uuid.parquet")
    message = f"uuid.parquet: column 'subject_id': under 10 of {len(rows)} rows are wrong; expected whole numbers"
    with pytest.raises(UserError, match=message):
        load(tmp_path, folder="uuid.parquet")
    events.assign(subject_id=1.5).to_parquet(tmp_path / "decimals.parquet")
    with pytest.raises(UserError, match="decimals.parquet: column 'subject_id' has decimals; expected whole numbers"):
        load(tmp_path, folder="decimals.parquet")


def test_swapped_times_and_a_birth_after_the_stay_are_dropped_and_counted(tmp_path):
    swapped = {hours(0): hours(100), hours(100): hours(0)}
    rows = [(1, swapped.get(time, time) if "ICU" in code else time, code) for _, time, code, *_ in patient(1)]
    rows += [(2, pd.Timestamp("2160-06-01") if code == "MEDS_BIRTH" else time, code) for _, time, code in patient(2)]
    rows += [(2, pd.Timestamp("1900-01-01"), "LAB//220045//bpm", 1)]  # long before the birth
    rows += [*patient(3), *((subject, hours(1), "LAB//220045//bpm", 80) for subject in (1, 2, 3))]
    events_of(rows).to_parquet(tmp_path / "meds.parquet")
    cohort, accounts = load(tmp_path, folder="meds.parquet", min_age=0)
    assert cohort.group_id.tolist() == [3] and accounts[0].read == 3
    assert accounts[0].dropped["with times missing or out of order"] == 1
    assert accounts[0].dropped["under the lowest age"] == 1


def test_the_account_is_told_before_the_check_that_fails(tmp_path, capsys):
    """All units of the heart rate are unknown: that is why it is never measured, and what the account says."""
    rows = [*patient(1, died=True), *patient(2)]
    rows += [(subject, hours(hour / 10), "LAB//220045//Hz", 1.3) for subject in (1, 2) for hour in range(9)]
    rows += [(subject, hours(1), "LAB//50912//mg/dL", 1.5) for subject in (1, 2)]
    events_of(rows).to_parquet(tmp_path / "meds.parquet")
    told: list[str] = []
    entry = parse_entry("made", {"source": "meds", "folder": "meds.parquet"}, "catalog")
    with pytest.raises(UserError, match="made: column 'heart_rate': expected it measured at least once"):
        take_in("made", entry, tmp_path, tmp_path / "cache", tell=told.append)
    assert told[0].startswith("stays: under 10 kept")
    assert "18 in an unknown unit" in told[1]
    assert "never with a value that counts: heart_rate (20 in an unknown unit; known units: bpm)" in told[2]
    assert "not measured in any window: sbp (chartevents 220050, " in told[2]


def test_codes_of_another_hospital(tmp_path):
    names = {
        "ICU_ADMISSION//A": "UNIT_IN//A",
        "ICU_DISCHARGE//A": "UNIT_OUT//A",
        "HOSPITAL_ADMISSION//URGENT//EMERGENCY ROOM": "IN//URGENT",
        "HOSPITAL_DISCHARGE//DIED": "OUT//dead",
        "HOSPITAL_DISCHARGE//HOME": "OUT//alive",
        "MEDS_BIRTH": "BORN",
        "MEDS_DEATH": "DEAD",
        "GENDER//M": "SEX//M",
    }
    rows = [*patient(1), (1, hours(1), "LAB//220045//bpm", 80), *patient(2, True), (2, hours(1), "LAB//220045", 90)]
    events_of(rows).to_parquet(tmp_path / "usual.parquet")
    other = [(subject, time, names.get(code, code), *value) for subject, time, code, *value in rows]
    events_of(other).to_parquet(tmp_path / "other.parquet")
    codes = {"icu_admission": "UNIT_IN//", "icu_discharge": "UNIT_OUT//", "admission": "IN//", "discharge": "OUT//"}
    codes |= {"died": "OUT//dead", "birth": "BORN", "death": "DEAD", "sex": "SEX//"}
    usual = load(tmp_path, folder="usual.parquet")
    assert usual[0].label.tolist() == [0, 1]
    found = load(tmp_path, folder="other.parquet", codes=codes)
    assert same(found[0], usual[0]) and found[1] == usual[1]
    with pytest.raises(UserError, match="made: no stay was found"):
        load(tmp_path, folder="other.parquet")


def test_variables_by_code(tmp_path):
    """A table with the column `code` names the codes as they stand in the data; the unit may follow."""
    header = "variable,unit,hourly,code,item,item_unit,low,high,conversion\n"
    lines = ["heart_rate,1/min,mean,VITAL//HR,Heart rate,bpm,10,300,", "lactate,mmol/L,mean,LACTATE,Lactate,,0.1,40,"]
    (tmp_path / "mine.csv").write_text(header + "\n".join(lines))
    measured = [(1, "VITAL//HR//bpm", 80), (1, "VITAL//HR//Hz", 1), (1, "VITAL//HRV", 2), (2, "LACTATE", 3.5)]
    rows = patient(1) + [(1, hours(time), code, value) for time, code, value in measured]
    events_of(rows).to_parquet(tmp_path / "meds.parquet")
    cohort, _ = load(tmp_path, folder="meds.parquet", variables=str(tmp_path / "mine.csv"))
    assert cohort.feature_names == ["heart_rate", "lactate", "age", "sex", "admission_type"]
    wanted = np.full((24, 2), np.nan, np.float32)
    wanted[1, 0], wanted[2, 1] = 80, 3.5
    np.testing.assert_array_equal(cohort.values[0, :, :2], wanted)


@pytest.fixture(scope="module")
def demo(real_data, tmp_path_factory):
    """The demo's stays from its tables, from its tables without the times of storage, and from MEDS."""
    catalog, cache = read_catalog(Path("data/datasets.yaml")), tmp_path_factory.mktemp("cache")
    tables = catalog["mimiciv_demo"]
    as_is, _ = take_in("mimiciv_demo", tables, real_data, cache)
    raw_dir = tmp_path_factory.mktemp("demo")
    for name in READ:
        original = real_data / tables.folder / f"{name}.csv.gz"
        (raw_dir / "mimiciv" / name).parent.mkdir(parents=True, exist_ok=True)
        if name in ("hosp/labevents", "icu/outputevents"):  # chartevents of this copy have no times of storage
            put(raw_dir / "mimiciv", name, text(real_data / tables.folder, name).assign(storetime=""))
        else:
            (raw_dir / "mimiciv" / f"{name}.csv.gz").symlink_to(original)
    blanked, _ = load_tables(raw_dir, cache, stays="all")
    events, _ = take_in("mimiciv_demo_meds", catalog["mimiciv_demo_meds"], real_data, cache)
    return as_is, blanked, events


def test_the_demo_has_the_same_values_in_both_forms(demo):
    _, blanked, events = demo
    assert blanked.features == events.features
    np.testing.assert_array_equal(blanked.group_id, events.group_id)
    np.testing.assert_array_equal(blanked.label, events.label)
    np.testing.assert_array_equal(blanked.values, events.values)
    measured = [not feature.static for feature in blanked.features]
    assert np.isfinite(blanked.values[:, :, measured]).sum() == 20_471


def test_in_the_demo_only_results_that_were_not_back_yet_differ(demo):
    as_is, blanked, events = demo
    np.testing.assert_array_equal(as_is.label, events.label)
    there = ~np.isnan(as_is.values)
    assert not (there & np.isnan(events.values)).any(), "the tables have nothing that MEDS has not"
    assert 0.999 < (as_is.values[there] == events.values[there]).mean() < 1
    late = ~np.isnan(events.values) & ~there
    assert 0 < late.sum() < 0.05 * there.sum()
    np.testing.assert_array_equal(blanked.values[late], events.values[late])


Break = Callable[[Path], object]


def frame(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Break:
    """The second of two files changes."""

    def apply(folder: Path) -> None:
        change(pd.read_parquet(folder / "data" / "1.parquet")).to_parquet(folder / "data" / "1.parquet")

    return apply


def replaced(content: Callable[[bytes], bytes]) -> Break:
    def apply(folder: Path) -> None:
        path = folder / "data" / "1.parquet"
        path.write_bytes(content(path.read_bytes()))

    return apply


def loop(folder: Path) -> None:
    path = folder / "data" / "1.parquet"
    path.unlink()
    path.symlink_to(path)


def empty(folder: Path) -> None:
    for path in folder.rglob("*.parquet"):
        path.unlink()


def not_utf8(folder: Path) -> None:
    table = pq.read_table(folder / "data" / "1.parquet")
    codes = pa.array([b"S3CRET\xe9"] * len(table), pa.binary()).view(pa.string())
    pq.write_table(table.set_column(table.column_names.index("code"), "code", codes), folder / "data" / "1.parquet")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        *(
            (frame(lambda f, c=column: f.drop(columns=c)), f"1.parquet: column '{column}' is missing; expected MEDS")
            for column in TYPES
        ),
        (frame(lambda f: f.rename(columns={"numeric_value": "value"})), "some files have numeric_value and some value"),
        (
            frame(lambda f: f.assign(subject_id="S3CRET")),
            "1.parquet: column 'subject_id': under 10 of 8 rows are wrong; expec",
        ),
        (
            frame(lambda f: f.assign(time="S3CRET")),
            "1.parquet: column 'time': under 10 of 8 rows are wrong; expected times",
        ),
        (
            frame(lambda f: f.assign(time=31415926)),
            "1.parquet: column 'time': under 10 of 8 rows are wrong; expected times",
        ),
        (
            frame(lambda f: f.assign(numeric_value="S3CRET")),
            "column 'numeric_value': under 10 of 8 rows are wrong; expected nu",
        ),
        (
            frame(lambda f: f.assign(numeric_value=[[1.0]] * len(f))),
            "column 'numeric_value': under 10 of 8 rows are wrong",
        ),
        (not_utf8, "meds: not readable as MEDS events"),
        (replaced(lambda b: b[: len(b) // 2]), "1.parquet: not readable as Parquet; expected MEDS events"),
        (replaced(lambda b: b[:4] + bytes(100) + b[104:]), "meds: not readable as MEDS events"),
        (replaced(lambda b: b""), "1.parquet: not readable as Parquet; expected MEDS events"),
        (replaced(lambda b: b"subject_id,time,code\n"), "1.parquet: not readable as Parquet; expected MEDS events"),
        (loop, "1.parquet: not readable as Parquet; expected MEDS events"),
        (empty, "meds: not readable as Parquet; expected MEDS events"),
        (lambda f: f.rename(f.with_name("elsewhere")), "meds: no such file"),
        (lambda f: [empty(f), (f / "data").rmdir()], "meds: not readable as Parquet; expected MEDS events"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path, capsys, break_it, message):
    (tmp_path / "raw" / "meds" / "data").mkdir(parents=True)
    for number in range(2):
        rows = patient(31415926 + number, died=bool(number))
        rows += [(31415926 + number, hours(1), "LAB//220045//bpm", 80)]
        events_of(rows).to_parquet(tmp_path / "raw" / "meds" / "data" / f"{number}.parquet")
    break_it(tmp_path / "raw" / "meds")
    arguments = ["sample_dev", "--dataset", "made", "--entry", json.dumps({"source": "meds"})]
    arguments += ["--raw-dir", str(tmp_path / "raw"), "--cache-dir", str(tmp_path / "cache"), "--n-samples", "all"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--splits", str(tmp_path / "out.json")]) == 1
    said = capsys.readouterr()
    assert re.fullmatch(rf"error: .*{message}.*\n", said.err) and not said.out
    assert not re.search(r"S3CRET|31415926", said.err), "a value or an id in a message"
    assert {path.name for path in tmp_path.iterdir()} <= {"raw", "cache"}
    assert {path.name for path in tmp_path.glob("cache/*")} <= {".gitignore"}


def test_a_table_that_mimic_iv_does_not_have_is_one_sentence(tmp_path):
    (tmp_path / "mine.csv").write_text(VARIABLES.read_text().replace("chartevents,220045", "vitals,220045"))
    events_of(patient(1)).to_parquet(tmp_path / "meds.parquet")
    with pytest.raises(UserError, match="mine.csv: heart_rate: table: 'vitals' given, expected one of labevents, "):
        load(tmp_path, folder="meds.parquet", variables=str(tmp_path / "mine.csv"))


@pytest.mark.parametrize("codes", [{"birth": "it's"}, {"birth": "$x"}, {"birth": ""}, {"brith": "BORN"}])
def test_wrong_codes_name_their_key(codes):
    with pytest.raises(UserError, match=rf"catalog: made\.codes\.{next(iter(codes))}"):
        parse_entry("made", {"source": "meds", "codes": codes}, "catalog")
