"""From timed measurements to hourly values: the variables tables, units, ranges, and what an hour becomes."""

import csv
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cohorts import timeline
from pipeline.errors import UserError

VARIABLES = sorted(Path("pipeline/cohorts/variables").glob("*.csv"))
HEADER = "variable,unit,hourly,table,itemid,item,item_unit,low,high,conversion"
TABLE = [
    "heart_rate,1/min,mean,chartevents,1,Heart Rate,bpm|BEATS/min,10,300,",
    "temperature,°C,mean,chartevents,2,Temperature,°C,25,45,",
    "temperature,°C,mean,chartevents,2,Temperature (charted in Fahrenheit),°C,77,113,(x - 32) / 1.8",
    "temperature,°C,mean,chartevents,3,Temperature Fahrenheit,°F,77,113,(x - 32) / 1.8",
    "fio2,%,mean,chartevents,4,Oxygen,,21,100,",
    "fio2,%,mean,chartevents,4,Oxygen (charted as a fraction),,0.21,1,x * 100",
    "gcs,points,total,chartevents,5,Eye Opening,,1,4,",
    "gcs,points,total,chartevents,6,Verbal Response,,1,5,",
    "gcs,points,total,chartevents,7,Motor Response,,1,6,",
    "urine_output,mL/h,sum,outputevents,8,Foley,mL,0,500,",
    "urine_output,mL/h,sum,outputevents,9,Void,mL,0,500,",
]
COLUMNS = {"table_name": "VARCHAR", "stay": "BIGINT", "hour": "BIGINT", "charted": "BIGINT", "code": "VARCHAR"}
COLUMNS |= {"x": "DOUBLE", "unit": "VARCHAR", "late": "BOOLEAN"}


def write_table(folder: Path, rows: list[str], header: str = HEADER) -> Path:
    path = folder / "variables.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> list[timeline.Item]:
    return timeline.read_items(write_table(tmp_path_factory.mktemp("variables"), TABLE))


def frame_of(rows: list[tuple]) -> pd.DataFrame:
    """`rows` are (stay, minute, code, x, unit[, late]); the table is outputevents for the codes 8 and 9."""
    described = [
        ("outputevents" if code in ("8", "9") else "chartevents", stay, minute // 60, minute, code, x, unit, any(late))
        for stay, minute, code, x, unit, *late in rows
    ]
    return pd.DataFrame(described, columns=list(COLUMNS))


@contextmanager
def measured(frame: pd.DataFrame, threads: int = 1) -> Iterator[duckdb.DuckDBPyConnection]:
    typed = ", ".join(f"{column}::{kind} AS {column}" for column, kind in COLUMNS.items())
    with duckdb.connect() as connection:
        connection.execute(f"SET threads = {threads}")
        connection.register("frame", frame.astype({"unit": object, "x": float}))
        connection.execute(f"CREATE TABLE measurement AS SELECT {typed} FROM frame")
        yield connection


def hourly(items, rows: list[tuple], n_stays: int = 1) -> timeline.Hourly:
    """Two hours of each stay."""
    with measured(frame_of(rows)) as connection:
        return timeline.hourly_values(connection, items, n_stays, 2)


def all_of(items, frame: pd.DataFrame, threads: int) -> list:
    """Everything that comes of the measurements of up to three stays, with the values in double precision."""
    with measured(frame, threads) as connection:
        found = timeline.hourly_values(connection, items, 3, 2)
        exact = connection.execute("SELECT * FROM hourly ORDER BY ALL").fetchall()
        return [found.values.tobytes(), exact, found.judged, found.account]


HEART_RATE, TEMPERATURE, FIO2, GCS, URINE = range(5)


def test_a_table_becomes_items_and_features(items):
    assert len(items) == len(TABLE)
    assert items[0].units == ("bpm", "beats/min", "") and items[4].units is None
    assert items[0].conversion == "x" and items[2].bounds == pytest.approx((25, 45))
    found = {feature.name: (feature.unit, feature.low, feature.high) for feature in timeline.features(items)}
    assert list(found) == ["heart_rate", "temperature", "fio2", "gcs", "urine_output"]
    assert found["heart_rate"] == ("1/min", 10, 300)
    assert found["temperature"] == pytest.approx(("°C", 25, 45))
    assert found["fio2"] == ("%", 21, 100)
    assert found["gcs"] == ("points", 3, 15), "the sum of the parts"
    assert found["urine_output"] == ("mL/h", 0, 500)


def test_items_may_be_named_by_code(tmp_path):
    header = HEADER.replace("table,itemid", "code")
    (item,) = timeline.read_items(write_table(tmp_path, ["hr,1/min,mean,HR,Heart Rate,,10,300,"], header))
    assert (item.table, item.code) == ("", "HR")


@pytest.mark.parametrize("between", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_table_saved_by_a_spreadsheet(tmp_path, items, between, mark):
    """With a byte order mark, and semicolons or tabs in place of commas."""
    path = tmp_path / "variables.csv"
    path.write_text(mark + "\n".join([HEADER, *TABLE]).replace(",", between), encoding="utf-8")
    assert timeline.read_items(path) == items


def test_a_conversion_that_turns_the_range_around(tmp_path):
    (item,) = timeline.read_items(write_table(tmp_path, ["ph,,mean,labevents,1,H+,,10,100,9 - x * 0.02"]))
    assert item.bounds == pytest.approx((7, 8.8))


LINE = "hr,1/min,mean,chartevents,1,Heart Rate,bpm,10,300,"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows; expected one per item"),
        ([LINE, "hr,1/min,mean,chartevents"], "line 3: column 'item_unit' is missing"),
        ([LINE.replace("mean", "median")], "line 2: hourly: 'median' given, expected one of mean, sum, total"),
        ([LINE + "__import__('os')"], "line 2: conversion: .* given, expected arithmetic in x"),
        *(
            ([LINE + conversion], "line 2: conversion: .* given, expected arithmetic in x")
            for conversion in ("x ** 2", "x // 2", "x --1", "xx", "x10", "0x10 * x", "1 .x", "x /* 2", "1e3 * x")
        ),
        ([LINE.replace("hr,", ",", 1)], "line 2: expected the name of a variable and of its item"),
        ([LINE.replace(",1,", ",,")], "line 2: expected the name of a variable and of its item"),
        ([LINE.replace("300", "many")], "line 2: low, high or conversion is no number"),
        ([LINE.replace("300", "")], "line 2: low, high or conversion is no number"),
        ([LINE + "(x"], "line 2: low, high or conversion is no number or no arithmetic"),
        ([LINE + "x (1)"], "line 2: low, high or conversion is no number or no arithmetic"),
        ([LINE + "x / 0"], "line 2: low, high or conversion is no number or no arithmetic"),
        ([LINE + "5"], "line 2: expected low below high, and a conversion that tells them apart"),
        ([LINE + "()"], "line 2: low, high or conversion is no number or no arithmetic"),
        ([LINE.replace("10,300", "300,10")], "line 2: expected low below high"),
        ([LINE.replace("300", "nan")], "line 2: expected low below high"),
        ([LINE.replace("300", "inf")], "line 2: expected low and high below 1e\\+12 in size"),
        ([LINE.replace("300", "1" + "0" * 15)], "line 2: expected low and high below 1e\\+12 in size"),
        ([LINE, LINE.replace("1/min", "Hz").replace(",1,", ",2,")], "hr: unit or hourly differs between its rows"),
        ([LINE, LINE.replace("mean", "sum").replace(",1,", ",2,")], "hr: unit or hourly differs between its rows"),
        ([LINE, LINE], "hr: two rows of item 1 share values"),
        ([LINE, LINE.replace("10,300", "300,400")], "hr: two rows of item 1 share values"),
        ([LINE, LINE.replace("bpm", "Hz|BPM")], "hr: two rows of item 1 share values"),
        ([LINE, LINE.replace("bpm", "")], "hr: two rows of item 1 share values"),
        ([LINE, LINE.replace("hr,", "pulse,", 1)], "pulse: two rows of item 1 share values"),
    ],
)
def test_a_wrong_table_of_variables_is_one_sentence(tmp_path, rows, message):
    path = write_table(tmp_path, rows)
    with pytest.raises(UserError, match=f"^{path}(: |, ){message}") as raised:
        timeline.read_items(path)
    assert "\n" not in str(raised.value)


def test_rows_of_an_item_may_stand_side_by_side(tmp_path):
    rows = [LINE, LINE.replace("10,300", "301,500"), LINE.replace(",1,", ",2,")]
    assert len(timeline.read_items(write_table(tmp_path, rows))) == 3


@pytest.mark.parametrize("column", ["variable", "unit", "hourly", "table", "itemid", "item_unit", "low", "conversion"])
def test_a_missing_column_is_named(tmp_path, column):
    with pytest.raises(UserError, match=f"line 2: column '{column}' is missing"):
        timeline.read_items(write_table(tmp_path, [LINE], HEADER.replace(f"{column},", "x,").replace(column, "x")))


def test_an_unreadable_table_of_variables_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="none.csv: no such file; expected a table of variables"):
        timeline.read_items(tmp_path / "none.csv")
    path = tmp_path / "latin.csv"
    path.write_bytes(f"{HEADER}\n{TABLE[1]}\n".encode("latin-1"))
    with pytest.raises(UserError, match="latin.csv: not readable as a table of variables"):
        timeline.read_items(path)
    with pytest.raises(UserError, match=f"{tmp_path}: not readable as a table of variables"):
        timeline.read_items(tmp_path)
    loop = tmp_path / "loop.csv"
    loop.symlink_to(loop)
    with pytest.raises(UserError, match="loop.csv: not readable as a table of variables"):
        timeline.read_items(loop)


@pytest.mark.parametrize(
    ("code", "x", "unit", "column", "value"),
    [
        ("1", 80, "bpm", HEART_RATE, 80),
        ("1", 80, " BPM ", HEART_RATE, 80),
        ("1", 80, "beats/MIN", HEART_RATE, 80),
        ("1", 80, None, HEART_RATE, 80),
        ("1", 80, "", HEART_RATE, 80),
        ("1", 80, " ", HEART_RATE, 80),
        ("1", 10, "bpm", HEART_RATE, 10),
        ("1", 300, "bpm", HEART_RATE, 300),
        ("2", 37.5, "°C", TEMPERATURE, 37.5),
        ("2", 98.6, "°C", TEMPERATURE, 37),  # Fahrenheit, in the wrong field
        ("3", 98.6, "°f", TEMPERATURE, 37),
        ("3", 102.2, None, TEMPERATURE, 39),
        ("4", 0.4, "anything", FIO2, 40),
        ("4", 1, None, FIO2, 100),
        ("4", 21, None, FIO2, 21),
        ("8", 0, "ml", URINE, 0),
    ],
)
def test_a_measurement_becomes_a_value(items, code, x, unit, column, value):
    found = hourly(items, [(0, 70, code, x, unit)])
    wanted = np.full((1, 2, 5), np.nan, np.float32)
    wanted[0, 1, column] = value
    np.testing.assert_array_equal(found.values, wanted)
    assert found.values.dtype == np.float32


@pytest.mark.parametrize(
    ("code", "x", "unit", "late", "reason"),
    [
        ("1", None, "bpm", False, "without a number"),
        ("1", float("nan"), "bpm", True, "without a number"),
        ("1", 80, "bpm", True, "stored after the window"),
        ("1", 80, "Hz", False, "in an unknown unit"),
        ("1", 999, "Hz", False, "in an unknown unit"),
        ("3", 98.6, "°C", False, "in an unknown unit"),
        ("1", 9.999, "bpm", False, "outside the plausible range"),
        ("1", 300.001, "bpm", False, "outside the plausible range"),
        ("2", 60, "°C", False, "outside the plausible range"),
        ("4", 1.5, None, False, "outside the plausible range"),
        ("1", float("inf"), "bpm", False, "outside the plausible range"),
        ("1", 1e300, "bpm", False, "outside the plausible range"),
    ],
)
def test_a_measurement_that_does_not_count_is_counted(items, code, x, unit, late, reason):
    found = hourly(items, [(0, 10, code, x, unit, late), (0, 10, "8", 5, "mL")])
    assert found.judged == {"chartevents": {reason: 1}, "outputevents": {"": 1}}
    assert np.isnan(found.values[:, :, :URINE]).all()


def test_a_unit_goes_with_one_of_an_items_rows(tmp_path):
    """Glucose in mg/dL or mmol/L: 15 is a value in each. The unit tells which; without one, the first row's."""
    rows = [
        "glucose,mg/dL,mean,labevents,2,Glucose,mg/dL,10,2000,",
        "glucose,mg/dL,mean,labevents,2,Glucose (in mmol/L),mmol/L,1,100,x * 18",
    ]
    items = timeline.read_items(write_table(tmp_path, rows))
    rows_read = [(0, 1, "2", 15, "mmol/L"), (0, 61, "2", 15, "mg/dL"), (1, 1, "2", 15, ""), (1, 61, "2", 5, None)]
    found = hourly(items, rows_read, n_stays=2)
    np.testing.assert_array_equal(found.values[:, :, 0], [[270, 15], [15, np.nan]])
    assert found.judged == {"chartevents": {"": 3, "outside the plausible range": 1}}
    again = hourly(timeline.read_items(write_table(tmp_path, rows[::-1])), rows_read, n_stays=2)
    np.testing.assert_array_equal(again.values[:, :, 0], [[270, 15], [270, 90]])


def test_the_same_row_twice_is_one_measurement(items):
    """In sums and in means; a row that differs in anything is another one, and nulls are alike."""
    urine = [(0, 5, "8", 40, "mL")] * 3 + [(0, 6, "8", 40, "mL"), (0, 5, "9", 40, "mL"), (1, 5, "8", 40, "mL")]
    pulse = [(0, 1, "1", 80, None)] * 2 + [(0, 1, "1", 80, "bpm"), (0, 1, "1", 110, "bpm"), (0, 1, "1", None, "bpm")]
    found = hourly(items, urine + [*pulse, pulse[-1]], 2)
    assert found.values[:, 0, URINE].tolist() == [120, 40]
    assert found.values[0, 0, HEART_RATE] == 90
    assert found.judged == {
        "chartevents": {"": 3, "without a number": 1, "that stand twice": 2},
        "outputevents": {"": 4, "that stand twice": 2},
    }
    account = found.account_of("outputevents", 10, 6)
    assert (account.kept, account.dropped["of other items"]) == (4, 4)


def test_why_a_variable_has_no_value_is_told(items):
    rows = [(0, minute, "1", 80, "Hz") for minute in range(12)] + [(0, 0, "5", 4, None), (0, 0, "4", 60, None)]
    note = hourly(items, [*rows, (0, 0, "8", 40, "mL"), (0, 0, "2", 36, None)]).account.note
    assert note == (
        "measured, but never with a value that counts: heart_rate (10 in an unknown unit; known units: bpm, "
        "beats/min), "
        "gcs (under 10 in no hour within the plausible range; known units: any)"
    )
    note = hourly(items, rows).account.note
    assert note.startswith(
        "not measured in any window: temperature (chartevents 2, chartevents 3), urine_output (outputevents 8, "
        "outputevents 9); measured, but"
    )


def test_an_hour_is_the_mean_of_all_its_values(items):
    rows = [(0, 0, "1", 80, "bpm"), (0, 59, "1", 91, "bpm"), (0, 60, "1", 100, "bpm"), (1, 30, "1", 60, "bpm")]
    found = hourly(items, [*rows, (0, 58, "1", 91, "bpm"), (0, 5, "2", 36, "°C"), (0, 6, "3", 100.4, "°F")], 2)
    np.testing.assert_array_equal(found.values[:, :, HEART_RATE], np.float32([[262 / 3, 100], [60, np.nan]]))
    np.testing.assert_array_equal(found.values[0, :, TEMPERATURE], [37, np.nan])


def test_an_hour_of_output_is_its_sum(items):
    rows = [(0, 0, "8", 40, "mL"), (0, 30, "9", 60.5, "ml"), (0, 30, "8", 9.5, None), (0, 60, "8", 0, "mL")]
    np.testing.assert_array_equal(hourly(items, rows).values[0, :, URINE], [110, 0])


def test_a_total_needs_all_parts_at_the_same_time(items):
    complete = [(0, 10, "5", 4, None), (0, 10, "6", 5, None), (0, 10, "7", 6, None)]
    two_parts = [(0, 20, "5", 1, None), (0, 20, "7", 1, None), (0, 21, "6", 1, None)]
    again = [(0, 50, "5", 2, None), (0, 50, "6", 3, None), (0, 50, "7", 4, None)]
    np.testing.assert_array_equal(hourly(items, complete).values[0, :, GCS], [15, np.nan])
    assert np.isnan(hourly(items, two_parts).values).all()
    np.testing.assert_array_equal(hourly(items, complete + two_parts + again).values[0, :, GCS], [12, np.nan])
    out_of_range = [*complete[:2], (0, 10, "7", 7, None)]
    assert np.isnan(hourly(items, out_of_range).values).all()


def test_a_part_charted_twice_counts_once(items):
    rows = [(0, 10, "5", 4, None), (0, 10, "5", 2, None), (0, 10, "6", 5, None), (0, 10, "7", 6, None)]
    np.testing.assert_array_equal(hourly(items, rows).values[0, :, GCS], [14, np.nan])
    doubled = [(0, 10, "5", 4, None), (0, 10, "5", 2, None), (0, 10, "6", 5, None)]
    assert np.isnan(hourly(items, doubled).values).all(), "two values of one part are not two parts"


def test_a_sum_outside_the_range_is_no_value_and_counted(items):
    rows = [(0, 5, "8", 300, "mL"), (0, 6, "9", 200.001, "mL"), (0, 65, "8", 300, "mL"), (0, 66, "9", 200, "mL")]
    found = hourly(items, rows)
    np.testing.assert_array_equal(found.values[0, :, URINE], [np.nan, 500])
    assert found.judged == {"outputevents": {"": 4}}
    assert (found.account.read, found.account.dropped) == (2, {"outside the plausible range": 1})


def test_accounts_add_up(items):
    kept = [(0, 1, "1", 80, "bpm"), (0, 2, "1", 90, "bpm")]
    dropped = [
        (0, 3, "1", None, "bpm"),
        (0, 3, "1", 80, "Hz"),
        (0, 3, "1", 1, "bpm"),
        (0, 3, "2", 1, "°C"),
        (0, 3, "1", 80, "bpm", True),
    ]
    account = hourly(items, kept + dropped).account_of("chartevents", 100, 20)
    assert account.dropped == {
        "of other items": 80,
        "outside the window": 13,
        "in an unknown unit": 1,
        "outside the plausible range": 2,
        "stored after the window": 1,
        "without a number": 1,
    }
    assert (account.rows, account.read, account.kept) == ("chartevents", 100, 2)
    nothing = hourly(items, []).account_of("labevents", 7, 3)
    assert nothing.dropped == {"of other items": 4, "outside the window": 3} and nothing.kept == 0


MEASUREMENTS = st.lists(
    st.one_of(
        st.tuples(
            st.integers(0, 1), st.integers(0, 119), st.just("1"), st.floats(5, 310), st.sampled_from(["bpm", "Hz"])
        ),
        st.tuples(st.integers(0, 1), st.integers(0, 119), st.just("3"), st.floats(70, 115), st.just("°F")),
        st.tuples(st.integers(0, 1), st.integers(0, 119), st.just("8"), st.floats(0, 100), st.just("mL")),
        st.tuples(st.integers(0, 1), st.integers(0, 4), st.sampled_from("567"), st.floats(1, 4), st.none()),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=15, deadline=None)
@given(rows=MEASUREMENTS, random=st.randoms(use_true_random=False))
def test_order_and_threads_change_no_bit(items, rows, random):
    found = all_of(items, frame_of(rows), 1)
    assert all_of(items, frame_of(random.sample(rows, len(rows))), 4) == found
    assert sum(sum(counts.values()) for counts in found[2].values()) == len(rows)


def test_many_rows_on_many_threads_change_no_bit(items):
    """Enough of them that DuckDB shares them out: it gives out rows by 122,880."""
    rng = np.random.default_rng(0)
    n = 400_000
    frame = pd.DataFrame(
        {
            "table_name": "chartevents",
            "stay": rng.integers(0, 3, n),
            "hour": 0,
            "charted": 0,
            "code": rng.choice(["1", "3"], n),
            "x": rng.normal(90, 20, n),
            "unit": None,
            "late": False,
        }
    )
    found = all_of(items, frame, 1)
    assert len(found[1]) == 6
    assert all_of(items, frame.sample(frac=1, random_state=0), 4) == found


@pytest.mark.parametrize("path", VARIABLES, ids=lambda path: path.stem)
def test_shipped_tables_are_valid_and_name_what_triggers_use(path):
    described = {feature.name: feature for feature in timeline.features(timeline.read_items(path))}
    assert {"heart_rate", "mean_bp", "resp_rate", "temperature", "sodium", "glucose"} <= set(described)
    assert not {"age", "sex", "admission_type", "height", "icu_type"} & set(described), "names of static features"
    assert all(np.isfinite([feature.low, feature.high]).all() for feature in described.values())


def test_the_two_shipped_tables_agree_on_units():
    units = [{f.name: f.unit for f in timeline.features(timeline.read_items(path))} for path in VARIABLES]
    assert len(units) == 2
    shared = set(units[0]) & set(units[1])
    assert len(shared) > 20
    assert {name: units[0][name] for name in shared} == {name: units[1][name] for name in shared}


def test_items_have_the_labels_of_the_dictionaries(real_data):
    labels = {}
    for name, linked in (("hosp/d_labitems", "labevents"), ("icu/d_items", None)):
        with gzip.open(real_data / "mimic-iv-demo-2.2" / f"{name}.csv.gz", "rt", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                labels[row["itemid"]] = (linked or row["linksto"], row["label"])
    with Path("pipeline/cohorts/variables/mimiciv.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            table, label = labels[row["itemid"]]
            assert row["table"] == table, row["itemid"]
            assert row["item"] == label or row["item"].startswith(f"{label} ("), row["itemid"]
