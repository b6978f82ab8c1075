"""A long table of one's own: the same cohort as the same measurements through PhysioNet 2012, and bad input."""

import csv
import gzip
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT

from pipeline.cohorts.catalog import parse_entry, source_of
from pipeline.cohorts.intake import take_in
from pipeline.errors import UserError
from pipeline.front import main

VARIABLES = "pipeline/cohorts/variables/physionet2012.csv"
ENTRY = {
    "source": "events",
    "file": "stays.csv",
    "label": "died",
    "sample_id": "stay",
    "features": {"age": {"unit": "years", "range": [15, 120]}},
    "measurements": {"file": "rows.csv"},
    "hours": 3,
    "variables": {
        "heart_rate": {"code": "HR", "unit": "1/min", "range": [20, 250]},
        "urine_output": {"code": ["Urine", "UO"], "unit": "mL/h", "range": [0, 2000], "hourly": "sum"},
    },
}
STAYS = pd.DataFrame({"stay": ["7", "8", "9"], "died": ["0", "1", "1"], "age": ["61", "75", "40"]})
ROWS = pd.DataFrame(
    [
        ("7", "0", "HR", "80"),
        ("7", "0.5", "HR", "91"),
        ("7", "1", "HR", "70"),
        ("7", "1.25", "Urine", "30"),
        ("7", "1.75", "UO", "40.5"),
        ("7", "1.75", "UO", "40.5"),  # the same row again
        ("7", "3", "HR", "60"),  # the window is over
        ("7", "-0.1", "HR", "60"),  # before it begins
        ("8", "2.999", "HR", "999"),  # not plausible
        ("8", "2.999", "HR", "99"),
        ("8", "2", "Mood", "fine"),  # not asked for
        ("8", "1", "HR", ""),  # no value
    ],
    columns=["stay", "time", "variable", "value"],
)


def load(folder: Path, rows: pd.DataFrame = ROWS, stays: pd.DataFrame = STAYS, **changes):
    entry = ENTRY | changes
    for frame, name in ((rows, entry["measurements"]["file"]), (stays, entry["file"])):
        if name.endswith(".parquet"):
            frame.to_parquet(folder / name)
        else:
            options = {"sep": entry.get("separator", ","), "encoding": entry.get("encoding", "utf-8")}
            frame.to_csv(folder / name, index=False, **options)
    entry = parse_entry("mine", entry, "catalog")
    return source_of(entry).load("mine", entry, folder, folder / "cache")


def same(one, other) -> None:
    assert one.values.tobytes() == other.values.tobytes() and one.features == other.features
    assert one.sample_id.tolist() == other.sample_id.tolist() and one.group_id.tolist() == other.group_id.tolist()
    assert one.label.tolist() == other.label.tolist()


def test_measurements_become_the_values_worked_out_by_hand(tmp_path):
    cohort, accounts = load(tmp_path, strata={"age_band": {"column": "age", "cuts": [65]}})
    assert cohort.sample_id.tolist() == cohort.group_id.tolist() == [7, 8] and cohort.label.tolist() == [0, 1]
    assert cohort.feature_names == ["heart_rate", "urine_output", "age"] and cohort.features[2].static
    assert cohort.strata["age_band"].tolist() == ["<65", "≥65"]
    nan = np.nan
    wanted = [[[85.5, nan, 61], [70, 70.5, 61], [nan, nan, 61]], [[nan, nan, 75], [nan, nan, 75], [99, nan, 75]]]
    np.testing.assert_array_equal(cohort.values, np.array(wanted, np.float32))
    samples, *_, measurements, hourly = accounts
    assert samples.read == 3 and samples.dropped["without a measurement"] == 1 and samples.kept == 2
    told = {reason: count for reason, count in measurements.dropped.items() if count}
    assert (
        measurements.read == 12
        and measurements.kept == 6
        and told
        == {
            **{"of other items": 1, "outside the window": 2, "that stand twice": 1},
            **{"outside the plausible range": 1, "without a number": 1},
        }
    )
    assert hourly.kept == 4


MINUTES = {"0": "0", "0.5": "30", "1": "60", "1.25": "75", "1.75": "105", "3": "180", "-0.1": "-6"}
MINUTES |= {"2.999": "179.94", "2": "120"}


def clock(minutes: str) -> str:
    seconds = round(60 * abs(float(minutes)))
    sign = "-" if minutes.startswith("-") else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}" + (f":{seconds % 60:02}" if seconds % 60 else "")


def test_every_form_of_time_and_file_gives_the_same(tmp_path):
    plain = load(tmp_path)[0]
    minutes = ROWS.assign(time=ROWS["time"].map(MINUTES))
    file = ENTRY["measurements"]
    same(load(tmp_path, minutes, measurements=file | {"times": "minutes"})[0], plain)
    of_day = ROWS.assign(time=minutes["time"].map(clock))
    same(load(tmp_path, of_day, measurements=file | {"times": "hh:mm"})[0], plain)
    start = pd.Timestamp("2150-03-28 00:30")  # the clocks change that night in Europe
    at = [start + pd.Timedelta(seconds=round(60 * float(one))) for one in minutes["time"]]
    stamps = {"measurements": file | {"times": "timestamps"}, "start": "admitted"}
    zones = ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.123 UTC")
    for form in zones:
        rows = ROWS.assign(time=[one.strftime(form) for one in at])
        same(load(tmp_path, rows, STAYS.assign(admitted="2150-03-28 01:30:00 +01:00"), **stamps)[0], plain)
    typed = {"file": "stays.parquet", "measurements": file | {"file": "rows.parquet", "times": "timestamps"}}
    rows = ROWS.assign(time=pd.to_datetime(at).tz_localize("UTC").tz_convert("Europe/Berlin"))
    rows = rows.assign(stay=rows["stay"].astype(float))
    same(load(tmp_path, rows, STAYS.assign(admitted=start), **stamps | typed)[0], plain)
    other = {"separator": ";", "decimal": ",", "encoding": "utf-16"}
    same(load(tmp_path, ROWS.map(lambda text: text.replace(".", ",")), **other)[0], plain)
    same(load(tmp_path, ROWS.assign(stay=ROWS["stay"] + ".0"))[0], plain)
    renamed = ROWS.rename(columns={"stay": "id", "time": "t", "variable": "item", "value": "x"}).assign(u="bpm")
    names = {"sample_id": "id", "time": "t", "variable": "item", "value": "x", "unit": "u"}
    same(load(tmp_path, renamed, measurements=file | names)[0], plain)


def test_units_are_told_apart_where_they_are_given(tmp_path):
    rows = pd.DataFrame({"stay": ["7", "7", "8"], "time": "0", "variable": "T", "value": ["98.6", "50", "212"]})
    rows["unit"] = ["°F", "°C", "F"]
    variables = {"temperature": {"code": "T", "unit": "°C", "range": [80, 115], "units": ["°F", "f"]}}
    variables["temperature"]["conversion"] = "(x - 32) / 1.8"
    file = ENTRY["measurements"] | {"unit": "unit"}
    cohort, accounts = load(tmp_path, rows, measurements=file, variables=variables)
    assert cohort.values[:, 0, 0].tolist() == [37.0]
    assert accounts[-2].dropped["in an unknown unit"] == 1


@pytest.mark.parametrize("form", ["hours", "hh:mm"])
def test_the_same_cohort_as_through_physionet2012(tmp_path, form):
    """2,000 generated rows of 60 stays, some of them twice, without a value, or out of the window."""
    rng = np.random.default_rng(8)
    codes = ["HR", "Temp", "pH", "Urine", "SaO2", "GCS", "NISysABP", "SysABP", "Na", "FiO2", "Weight", "MechVent"]
    codes += ["Nothing"]
    records = np.sort(rng.choice(np.arange(100_000, 200_000), 60, replace=False))
    typical = rng.uniform(0.2, 150, len(codes))
    rows = []
    for _ in range(2000):
        item, minute = rng.integers(len(codes)), int(rng.integers(50 * 60))
        value = (
            -1 if rng.random() < 0.05 else round(float(typical[item] * rng.uniform(0.5, 2)), int(rng.integers(0, 4)))
        )
        rows.append((int(rng.choice(records[:-2])), minute, codes[item], value))
    rows += rows[:30]
    label = rng.integers(0, 2, 60)
    known = pd.DataFrame({"Age": rng.integers(10, 95, 60), "Gender": rng.integers(-1, 2, 60)})
    known["Height"], known["ICUType"] = rng.uniform(140, 240, 60).round(1), rng.integers(1, 5, 60)

    raw = tmp_path / "physionet2012"
    raw.mkdir()
    with gzip.open(raw / "events_set_a.csv.gz", "wt") as file:
        write = csv.writer(file, lineterminator="\n").writerow
        write(["RecordID", "Time", "Parameter", "Value"])
        for record, (_, one) in zip(records, known.iterrows(), strict=True):
            for name in known:
                write([record, "00:00", name, f"{one[name]:g}"])
        for record, minute, code, value in rows:
            write([record, f"{minute // 60:02}:{minute % 60:02}", code, value])
    outcomes = pd.DataFrame({"RecordID": records, "In-hospital_death": label, "set": "a"})
    outcomes.to_csv(raw / "outcomes.csv", index=False)
    entry = parse_entry("icu", {"source": "physionet2012", "sets": ["a"]}, "catalog")
    wanted, accounts = source_of(entry).load("icu", entry, tmp_path, tmp_path / "cache")

    stays = pd.DataFrame({"stay": records, "died": label}).join(known.astype(str))
    stays["Gender"] = known["Gender"].map({-1: "", 0: "female", 1: "male"})
    units = ["coronary care", "cardiac surgery recovery", "medical", "surgical"]
    stays["ICUType"] = [units[one - 1] for one in known["ICUType"]]
    times = [f"{m // 60}:{m % 60:02}" if form == "hh:mm" else str(round(m / 60, 6)) for _, m, *_ in rows]
    long = pd.DataFrame(rows, columns=["stay", "minute", "variable", "value"]).astype(str).assign(time=times)
    static = {
        "age": {"column": "Age", "unit": "years", "range": [15, 120], "outside": "missing"},
        "sex": {"column": "Gender", "categories": ["female", "male"]},
        "height": {"column": "Height", "unit": "cm", "range": [100, 230], "outside": "missing"},
        "icu_type": {"column": "ICUType", "categories": units},
    }
    changes = {"measurements": {"file": "rows.csv", "times": form}, "hours": 48, "variables": VARIABLES}
    changes |= {"features": static, "missing": ["", "-1", "-1.0"]}
    changes |= {"strata": {"sex": {"column": "Gender"}, "age_band": {"column": "Age", "cuts": [50, 65, 80]}}}
    cohort, found = load(tmp_path, long, stays, **changes)
    same(cohort, wanted)
    assert len(cohort) == 58 and np.isfinite(cohort.values[..., :-4]).sum() > 500
    for name, texts in wanted.strata.items():
        assert cohort.strata[name].tolist() == texts.tolist()
    of = [next(one for one in accounted if one.rows == "measurements") for accounted in (accounts, found)]
    assert of[0] == of[1].__class__(**vars(of[1]) | {"dropped": dict([*of[1].dropped.items()][1:])})


def edited(frame: pd.DataFrame, column: str, text: str, row: int = 1) -> pd.DataFrame:
    frame = frame.copy()
    frame.loc[row, column] = text
    return frame


@pytest.mark.parametrize(
    ("rows", "stays", "changes", "message"),
    [
        (ROWS.drop(columns="value"), STAYS, {}, r"rows.csv: column 'value' is missing"),
        (ROWS, STAYS.drop(columns="died"), {}, r"stays.csv: column 'died' is missing"),
        (
            edited(ROWS, "value", "high"),
            STAYS,
            {},
            r"rows.csv: column 'value': under 10 of 12 rows are wrong, first in line 3",
        ),
        (
            edited(ROWS, "time", "noon"),
            STAYS,
            {},
            r"column 'time': under 10 of 12 rows are wrong.*expected hours since the start",
        ),
        (edited(ROWS, "time", ""), STAYS, {}, r"column 'time': under 10 of 12 rows are wrong"),
        (
            edited(ROWS, "stay", ""),
            STAYS,
            {},
            r"column 'stay': under 10 of 12 rows are wrong.*expected an id in every row",
        ),
        (
            edited(ROWS, "stay", "77"),
            STAYS,
            {},
            r"rows.csv: under 10 of the samples have no outcome; expected one for each",
        ),
        (
            ROWS,
            edited(STAYS, "stay", "7.0"),
            {},
            r"stays.csv: column 'stay': under 10 of 3 rows are wrong.*no id twice",
        ),
        (ROWS, edited(STAYS, "died", "x"), {}, r"stays.csv: column 'died': under 10 of 3 rows are wrong"),
        (ROWS, STAYS, {"measurements": {"file": "rows.csv", "times": "hh:mm"}}, r"column 'time': .*expected.*as hh:mm"),
        (ROWS, STAYS, {"measurements": {"file": "rows.csv", "time": "stay"}}, r"column 'stay' stands for two things"),
        (
            ROWS,
            STAYS,
            {"variables": VARIABLES, "features": {"sodium": {"column": "age", "range": [1, 200]}}},
            "static feature",
        ),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, rows, stays, changes, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, rows, stays, **changes)


def test_a_start_that_is_no_time_is_one_sentence(tmp_path):
    stamps = {"measurements": ENTRY["measurements"] | {"times": "timestamps"}, "start": "admitted"}
    rows = ROWS.assign(time="2150-01-31 10:00:00")
    for wrong in ("", "31.1.2150", "2150-02-31 10:00"):
        stays = edited(STAYS.assign(admitted="2150-01-31 09:00:00"), "admitted", wrong)
        with pytest.raises(
            UserError, match="stays.csv: column 'admitted': under 10 of 3 rows are wrong.*expected times such as"
        ):
            load(tmp_path, rows, stays, **stamps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measurements": {"file": "rows.csv", "times": "timestamps"}}, "start names the column"),
        ({"start": "admitted"}, "start names the column"),
        ({"variables": {}}, "variables: none given"),
        ({"variables": {"age": {"range": [0, 1]}}}, "variables.age: the name of a static feature"),
        ({"variables": {"x y": {"range": [0, 1]}}}, "variables.x y: expected a name"),
        ({"measurements": {"file": "rows.csv", "time": "value"}}, "column 'value' stands for two things"),
        ({"measurements": {"file": "rows.csv", "tme": "t"}}, "mine.measurements.tme: no such key .did you mean 'time'"),
        ({"hours": 0}, "mine.hours"),
    ],
)
def test_a_wrong_entry_names_its_key(changes, message):
    with pytest.raises(UserError, match=message):
        parse_entry("mine", ENTRY | changes, "catalog")


def test_a_wrong_variable_names_itself(tmp_path):
    for change, message in (
        ({"range": [9, 1]}, "variables.hr: expected low below high"),
        ({"range": [1, 9], "conversion": "y"}, "variables.hr: conversion"),
    ):
        with pytest.raises(UserError, match=message):
            load(tmp_path, variables={"hr": change})


def test_rows_of_samples_that_are_left_out_are_counted_and_equal_rows_of_outcomes_count_once(tmp_path):
    stays = pd.concat([STAYS.assign(ward="icu"), STAYS.assign(ward="icu")[:1]])
    stays.iloc[1, 3] = "theatre"
    stays = pd.concat([stays, pd.DataFrame([["10", "1", "50", "icu"]], columns=stays.columns)])
    rows = pd.concat([ROWS, pd.DataFrame([["10", "0", "HR", "80"]], columns=ROWS.columns)])
    cohort, accounts = load(tmp_path, rows, stays, exclude={"ward": {"not in an ICU": "theatre"}})
    assert cohort.sample_id.tolist() == [7, 10]
    assert accounts[0].dropped == {"that stand twice": 1, "not in an ICU": 1, "without a measurement": 1}
    assert accounts[0].read == 5 and accounts[0].kept == 2
    assert accounts[-2].dropped["of samples that are left out"] == 4 and accounts[-2].read == 13


def test_the_example_of_the_manual_is_taken_in_as_it_stands(tmp_path, monkeypatch, capsys):
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    section = text.split("### Your own long table")[1].split("\n### ")[0]
    files = re.findall(r"`([\w./]+\.csv)`[^\n]*\n\n```\n(.*?)```", section, re.DOTALL)
    [entry] = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    assert len(files) == 2
    for name, content in files:
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "datasets.yaml").write_text(entry)
    [(name, content)] = yaml.safe_load(entry).items()
    cohort, _ = take_in(name, parse_entry(name, content, "x"), tmp_path / "raw", tmp_path / "cache")
    assert cohort.values.shape[1:] == (24, 4) and list(cohort.strata) == ["sex", "age_band"]
    monkeypatch.chdir(tmp_path)
    assert main(["ingest", name, "--catalog", str(tmp_path / "datasets.yaml"), "--raw-dir", str(tmp_path / "raw")]) == 0
    assert f"{name}: " in capsys.readouterr().out
