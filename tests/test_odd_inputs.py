"""Tables with the faults that real exports have: each is read as it was meant, refused in a sentence, or warned of."""

import gzip
import json
import os
import re
import subprocess
import sys
import unicodedata
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, make_cohort

from pipeline.cohorts.catalog import parse_entry, read_catalog
from pipeline.cohorts.cohort import read_cohort, windows_table, windows_values, write_cohort
from pipeline.cohorts.intake import account_lines, take_in, warnings
from pipeline.cohorts.tablecheck import near_key, number
from pipeline.errors import UserError
from pipeline.files import read_yaml
from pipeline.front import main

ENTRY = {
    "source": "table",
    "file": "ward.csv",
    "label": "died",
    "group": "patient",
    "features": {"sodium": {"unit": "mmol/L", "range": [100, 180]}, "sex": {"categories": ["f", "m"]}},
}


def ward(n: int = 400, **columns) -> pd.DataFrame:
    """A table of texts, as `ENTRY` describes it; `columns` are put in place of its own or beside them."""
    rng = np.random.default_rng(0)
    frame = {
        "patient": np.arange(1000, 1000 + n),
        "sodium": rng.normal(138, 4, n).round(1),
        "sex": rng.choice(["f", "m"], n),
        "died": rng.integers(0, 2, n),
    }
    return pd.DataFrame(frame | columns).astype(str).astype(object)


def write(folder: Path, table: pd.DataFrame | str | bytes, name: str = "ward.csv", **how) -> None:
    if isinstance(table, pd.DataFrame):
        table = table.to_csv(index=False, **how)
    (folder / name).write_bytes(table if isinstance(table, bytes) else table.encode())


def read(folder: Path, table: pd.DataFrame | str | bytes | None = None, how: dict | None = None, **changes):
    """The cohort and accounts of `table` (what lies in `folder` where there is none); `changes` are to the entry."""
    if table is not None:
        write(folder, table, **(how or {}))
    return take_in("ward", parse_entry("ward", ENTRY | changes, "catalog"), folder, folder / "cache")


def refused(folder: Path, table: pd.DataFrame | str | bytes, how: dict | None = None, **changes) -> str:
    with pytest.raises(UserError) as raised:
        read(folder, table, how, **changes)
    return str(raised.value)


def wrong_entry(**changes) -> str:
    with pytest.raises(UserError) as raised:
        parse_entry("ward", ENTRY | changes, "catalog")
    return str(raised.value)


# The label


def outcome(texts: list[str], n: int = 400) -> pd.DataFrame:
    return ward(n, outcome=(texts * n)[:n])


def test_both_texts_of_a_label_are_known_and_any_other_is_an_error(tmp_path):
    table = outcome(["died", "alive", "unknown", "Died."])
    message = refused(tmp_path, table, label="outcome", positive="died", negative="alive")
    assert "column 'outcome': 200 of 400 rows are wrong, first in line 4; expected one of the texts that pos" in message
    assert "unknown" not in message and "Died" not in message
    cohort, _ = read(tmp_path, label="outcome", positive=["died", "Died."], negative=["alive", "unknown"])
    np.testing.assert_array_equal(cohort.label, [1, 0, 0, 1] * 100)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positive": "died"}, "ward: positive needs negative beside it"),
        ({"negative": "alive"}, "ward: negative needs positive beside it"),
        ({"positive": ["died", "dead"], "negative": ["alive", "dead"]}, "positive and negative both list 'dead'"),
        ({"positive": "1", "negative": "NA"}, "'NA' is in positive or negative, and in missing too"),
    ],
)
def test_a_label_half_described_is_an_error(changes, message):
    assert message in wrong_entry(**changes)


def test_a_label_of_numbers_may_have_a_decimal_point(tmp_path):
    cohort, _ = read(tmp_path, ward(died=["1.0", "0.0"] * 200))
    np.testing.assert_array_equal(cohort.label, [1, 0] * 200)


# Ids


@pytest.mark.parametrize(
    ("one", "other"), [("P{}", "P{} "), ("{}", "{}.0"), ("p{}", "P{}"), ("{}", "00{}"), ("A {}", "A{}")]
)
def test_near_identical_groups_are_one_and_warned_of(tmp_path, one, other):
    ids = [pattern.format(number) for number in range(100, 300) for pattern in (one, other)]
    cohort, _ = read(tmp_path, ward(patient=ids))
    np.testing.assert_array_equal(cohort.group_id[::2], cohort.group_id[1::2])
    assert len(np.unique(cohort.group_id)) == 200
    [warning] = warnings(cohort)
    assert warning.startswith("warning: ward: column 'patient': 400 ids differ from another one only in capitals")


def test_groups_that_all_have_a_decimal_point_are_numbers_without_a_warning(tmp_path):
    cohort, _ = read(tmp_path, ward(patient=[f"{number}.0" for number in range(1, 401)]))
    np.testing.assert_array_equal(cohort.group_id, np.arange(1, 401))
    assert cohort.warnings == ()


def test_sample_ids_with_zeros_in_front_stay_apart_and_are_warned_of(tmp_path):
    ids = [text for number in range(1, 201) for text in (f"{number}", f"00{number}")]
    cohort, _ = read(tmp_path, ward(sid=ids), sample_id="sid")
    assert cohort.sample_id.tolist() == ids
    assert "column 'sid': 400 ids differ from another one only in" in warnings(cohort)[0]
    assert "column 'sid': under 10 of 400 rows are wrong, first in line 2; expected no id twice" in refused(
        tmp_path, ward(sid=["7.0", "7", *map(str, range(10, 408))]), sample_id="sid"
    )


def test_ids_that_a_spreadsheet_has_shortened_are_warned_of(tmp_path):
    ids = [f"1.{number}E+11" for number in range(200)] * 2
    cohort, _ = read(tmp_path, ward(patient=ids))
    assert "column 'patient': the ids of 400 rows are numbers that a spreadsheet has shortened" in warnings(cohort)[0]
    few = [*map(str, range(396)), *["1.23E+11"] * 4]
    assert "the ids of under 10 rows are numbers" in warnings(read(tmp_path, ward(patient=few))[0])[0]
    assert "first in line 2; expected no id twice; a spreadsheet has shortened them" in refused(
        tmp_path, ward(sid=ids), sample_id="sid"
    )


def test_large_numbers_of_parquet_are_ids(tmp_path):
    ward(patient=0).assign(patient=1.2e11 + np.arange(400.0)).to_parquet(tmp_path / "ward.parquet")
    cohort, _ = read(tmp_path, file="ward.parquet")
    np.testing.assert_array_equal(cohort.group_id, 120_000_000_000 + np.arange(400))
    assert cohort.warnings == ()


def test_rows_that_stand_twice_are_warned_of_where_nothing_groups_them(tmp_path):
    table = ward(glucose=np.random.default_rng(1).normal(140, 30, 400).round(1))
    features = ENTRY["features"] | {"glucose": {"range": [0, 1000]}}
    twice = pd.concat([table, table[:20]])
    cohort, _ = read(tmp_path, twice, group=None, features=features)
    assert "20 (4.8%) of the rows repeat another in all features and the label" in warnings(cohort)[0]
    assert "within their group" in read(tmp_path, twice, features=features)[0].warnings[0]
    assert read(tmp_path, table, group=None, features=features)[0].warnings == ()
    # Rows of two categories are alike by chance.
    assert read(tmp_path, twice, group=None, features={"sex": {"categories": ["f", "m"]}})[0].warnings == ()


def test_warnings_travel_with_the_cohort(tmp_path):
    cohort, _ = read(tmp_path, ward(patient=[f"{zero}{number}" for zero in ("", 0) for number in range(200)]))
    write_cohort(cohort, tmp_path / "ward")
    assert read_cohort(tmp_path / "ward").subset(np.arange(30)).warnings == cohort.warnings != ()


# Missing and categories


def test_a_category_that_is_missing_too_is_refused_until_it_has_a_missing_of_its_own(tmp_path):
    region = {"region": {"categories": ["EU", "NA", "AS"]}}
    assert "features.region: missing has 'NA', and so has its categories" in wrong_entry(features=region)
    region["region"]["missing"] = ""
    table = ward(region=["EU", "NA", "AS", ""] * 100)
    cohort, _ = read(tmp_path, table, features=ENTRY["features"] | region)
    np.testing.assert_array_equal(cohort.values[:4, 0, 2], [0, 1, 2, np.nan])


def test_a_missing_code_that_is_a_value_elsewhere_is_refused_until_it_is_said_of_a_feature(tmp_path):
    features = ENTRY["features"] | {"age": {"range": [0, 120]}, "smoker": {"categories": ["1", "2"]}}
    message = wrong_entry(features=features, missing=["", "97", "99"])
    assert "features.age: missing has '97', '99', and so has its range" in message and "smoker" not in message
    features["smoker"] = features["smoker"] | {"missing": ["", "97", "99"]}
    table = ward(age=["99", "97", "", "40"] * 100, smoker=["1", "97", "2", "99"] * 100)
    cohort, _ = read(tmp_path, table, features=features)
    np.testing.assert_array_equal(cohort.values[:4, 0, 2], [99, 97, np.nan, 40])
    np.testing.assert_array_equal(cohort.values[:4, 0, 3], [0, np.nan, 1, np.nan])


def test_missing_is_compared_as_it_stands(tmp_path):
    features = {"score": {"range": [0, 120], "missing": ["99"]}}
    cohort, _ = read(tmp_path, ward(score=["99", "99.0", "099", "9"] * 100), features=features)
    np.testing.assert_array_equal(cohort.values[:4, 0, 0], [np.nan, 99, 99, 9])
    features = {"smoker": {"categories": ["1", "2"]}}
    table = ward(smoker=["1", "97", "97.0", "2"] * 100)
    assert "column 'smoker': 100 of 400 rows are wrong, first in line 4; expected one of 1, 2" in refused(
        tmp_path, table, features=features, missing=["", "97"]
    )


def test_what_other_takes_is_counted_and_what_is_nearly_listed_warned_of(tmp_path):
    features = {"ward": {"categories": ["1", "2"], "other": "elsewhere"}}
    cohort, accounts = read(tmp_path, ward(ward=["1", "1.0", "9", "2"] * 100), features=features)
    np.testing.assert_array_equal(cohort.values[:4, 0, 0], [0, 2, 2, 1])
    lines = account_lines(accounts)
    assert lines[1] == "values of ward: 400 read, 400 kept; note: 200 (50.0%) not listed, taken as 'elsewhere'"
    assert "feature 'ward': 100 texts differ from a listed category only in capitals, blanks or zeros" in str(
        warnings(cohort)
    )
    _, accounts = read(tmp_path, ward(ward=["1"] * 395 + ["9"] * 5), features=features)
    assert account_lines(accounts)[1].endswith("note: under 10 not listed, taken as 'elsewhere'")


def test_a_column_of_missing_texts_alone_says_so(tmp_path):
    features = ENTRY["features"] | {"ph": {"column": "pH", "range": [6.7, 7.9]}}
    message = refused(tmp_path, ward(pH=["NA", ""] * 200), features=features)
    assert message.endswith("column 'pH': no value of feature 'ph' is left: every row holds missing texts")
    message = refused(tmp_path, ward(pH=["NA", "42"] * 200), features=features, outside="missing")
    assert message.endswith("is left: every row holds missing texts or outside 6.7 to 7.9")


# Rows and numbers


def lines_of(table: pd.DataFrame) -> list[str]:
    return table.to_csv(index=False).splitlines()


def test_rows_cut_short_are_an_error(tmp_path):
    lines = lines_of(ward())
    lines[7], lines[9] = lines[7].rsplit(",", 1)[0], "1003"
    message = refused(tmp_path, "\n".join(lines))
    assert (
        "ward.csv: under 10 of 400 rows have fewer cells than the header has names, first in line 8; expected 4"
        in message
    )


def test_a_line_break_in_a_cell_is_warned_of_and_counted_as_a_line(tmp_path):
    lines = lines_of(ward(note="x"))
    lines[3] = lines[3].replace(",x", ',"two\nlines"')
    lines[9] = lines[9].replace(",m,", ",w,").replace(",f,", ",w,")
    features = ENTRY["features"] | {"note": {"categories": ["x", "two\nlines"]}}
    message = refused(tmp_path, "\n".join(lines), features=features)
    assert "column 'sex': under 10 of 400 rows are wrong, first in line 11; expected one of f, m" in message
    lines[9] = lines[9].replace(",w,", ",m,")
    cohort, _ = read(tmp_path, "\r\n".join(lines), features=features)
    assert "column 'note' has line breaks inside under 10 of its cells; is there a quote too many" in cohort.warnings[0]


def test_letters_of_another_alphabet_may_be_bytes_of_utf_8_too(tmp_path):
    """女 in GBK is what Ů is in UTF-8; 男 is nothing there."""
    table = ward()
    table["sex"] = table["sex"].map({"m": "男", "f": "女"})
    features = ENTRY["features"] | {"sex": {"categories": ["女", "男"]}}
    cohort, _ = read(tmp_path, "\n".join(lines_of(table)).encode("gbk"), features=features, encoding="gbk")
    assert cohort.features[cohort.feature_names.index("sex")].categories == ("女", "男")


def test_a_warning_of_all_but_a_few_tells_no_few(tmp_path):
    table = ward()
    table["patient"] = [f"1.{n}E+11" if n < 395 else str(n) for n in range(400)]
    cohort, _ = read(tmp_path, table)
    assert any("the ids of all but under 10 rows are numbers" in text for text in cohort.warnings)


def test_a_stray_quote_is_an_error(tmp_path):
    lines = lines_of(ward(note="x"))
    lines[5] = lines[5].replace(",x", ',"x')
    assert "not readable as a table (unexpected end of data, in the row that begins in line 6" in refused(
        tmp_path, "\n".join(lines)
    )
    lines[15] = lines[15].replace(",x", ',x"')
    features = ENTRY["features"] | {"note": {"categories": ["x"], "other": "else"}}
    cohort, accounts = read(tmp_path, "\n".join(lines), features=features)
    assert accounts[0].read == 390 and "line breaks inside under 10 of its cells" in cohort.warnings[0]
    # Rows are lost to a column that nobody reads too.
    cohort, accounts = read(tmp_path, "\n".join(lines))
    assert accounts[0].read == 390
    assert "a column that is not read has line breaks inside under 10 of its cells" in cohort.warnings[0]


@pytest.mark.parametrize(
    "text", ["1_40", "inf", "-inf", "nan.", "1e400", "0x8C", "140mmol", "1,40", "１４０", "1.4e2.0"]
)
def test_numbers_are_plain_decimals(tmp_path, text):
    table = ward()
    table.loc[7, "sodium"] = text
    message = refused(tmp_path, table)
    assert (
        "column 'sodium': under 10 of 400 rows are wrong, first in line 9; expected a number from 100 to 180" in message
    )
    assert text not in message


def test_numbers_as_they_are_written():
    for text, value in {"1.4e2": 140, "+140": 140, ".5": 0.5, "140.": 140, "-1E-2": -0.01, "007": 7}.items():
        assert number(text) == value
    assert number("1,5", ",") == 1.5 and np.isnan(number("1.5", ",")) and np.isnan(number("1.000,5", ","))


def test_a_range_is_finite():
    for bound in (float("inf"), float("nan"), 1e39):
        assert "ward.features.sodium.range.1: " in wrong_entry(features={"sodium": {"range": [0, bound]}})


def test_numbers_outside_the_range_are_missing_where_the_entry_says_so(tmp_path):
    sodium = ENTRY["features"]["sodium"]
    table = ward(age=["40", "200", "-1", "50"] * 100)
    table.loc[:19, "sodium"] = "999"
    features = ENTRY["features"] | {"age": {"range": [0, 120], "outside": "missing"}}
    message = refused(tmp_path, table, features=features)
    assert "column 'sodium': 20 of 400 rows are wrong" in message and "outside: missing" in message
    cohort, accounts = read(tmp_path, table, features=features, outside="missing")
    np.testing.assert_array_equal(cohort.values[:4, 0, 2], [40, np.nan, np.nan, 50])
    assert np.isnan(cohort.values[:20, 0, 0]).all() and not np.isnan(cohort.values[20:, 0, 0]).any()
    assert account_lines(accounts)[1:] == [
        "values of sodium: 400 read, 400 kept; note: 20 (5.0%) outside 100 to 180, taken as not measured",
        "values of age: 400 read, 400 kept; note: 200 (50.0%) outside 0 to 120, taken as not measured",
    ]
    features["sodium"] = sodium | {"outside": "error"}
    assert "column 'sodium': 20 of 400" in refused(tmp_path, table, features=features, outside="missing")


def test_rows_that_the_entry_excludes_are_dropped_by_reason(tmp_path):
    table = ward(gone=["home", "dead", "hospice", "hospice"] * 100)
    table.loc[table["gone"] == "dead", ["sodium", "died"]] = "?"
    exclude = {"gone": {"died": "dead", "went to a hospice": ["hospice"], "left": ["away"]}}
    cohort, accounts = read(tmp_path, table, exclude=exclude)
    np.testing.assert_array_equal(cohort.group_id, np.arange(1000, 1400, 4))
    assert account_lines(accounts) == [
        "rows: 400 read, 100 kept; dropped: 100 died, 200 went to a hospice; note: none dropped as left"
    ]
    assert "ward.csv: exclude takes all of its 400 rows" in refused(
        tmp_path, ward(gone="x"), exclude={"gone": {"gone": "x"}}
    )


# The catalog


def catalog(folder: Path, text: str) -> Path:
    (folder / "datasets.yaml").write_text(text, encoding="utf-8")
    return folder / "datasets.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "line 4: key 'b' stands twice in one mapping, first in line 2"),
        ("a: {b: 1, b: 2}\n", "line 1: key 'b' stands twice in one mapping, first in line 1"),
        ("a: 1\n'a': 2\n", "line 2: key 'a' stands twice"),
        ("yes: 1\ntrue: 2\n", "line 2: key 'true' stands twice"),
    ],
)
def test_a_key_that_stands_twice_is_an_error(tmp_path, text, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_yaml(catalog(tmp_path, text))


def test_a_key_that_stands_twice_in_a_configuration_stops_the_workflow(tmp_path):
    (tmp_path / "study.yaml").write_text("seeds: [1]\nrates: [0.05]\nseeds: [2]\n")
    command = [sys.executable, "-m", "snakemake", "-n", "--nolock", "--configfile", str(tmp_path / "study.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and "study.yaml: line 3: key 'seeds' stands twice" in done.stdout + done.stderr


def test_a_key_may_override_what_is_merged_in(tmp_path):
    text = "a: &a {b: 1, c: 2}\nd:\n  <<: *a\n  b: 3\ne: {<<: [*a, *a], f: 1}\n"
    assert read_yaml(catalog(tmp_path, text))["d"] == {"b": 3, "c": 2}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("2012", "dataset 2012: YAML reads this as a number, expected a text; put it in quotes"),
        ("NO", "dataset False: YAML reads this as true or false (as which it takes yes, no, on and off too)"),
        ("NULL", "dataset None: YAML reads this as nothing"),
        ("2012-01-01", "YAML reads this as a date, expected a text; put it in quotes"),
        ("my ward", "dataset 'my ward': expected a name of the letters a to z, digits, _ . and -"),
        ("w$(touch x)", "expected a name of the letters"),
        ("'..'", "expected a name of the letters"),
        ("'x{y}'", "expected a name of the letters"),
        ("a/b", "expected a name of the letters"),
        ("-x", "expected a name of the letters"),
        ("wärd", "expected a name of the letters"),
        ('"a\\n"', "expected a name of the letters"),
    ],
)
def test_names_that_yaml_or_a_shell_reads_otherwise_are_refused(tmp_path, name, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_catalog(catalog(tmp_path, f"{name}: {json.dumps(ENTRY)}\n"))


def test_names_in_quotes_and_of_plain_letters_are_names(tmp_path):
    text = "".join(f"{name}: {json.dumps(ENTRY)}\n" for name in ("'2012'", "ward_7.b-x", "A"))
    assert list(read_catalog(catalog(tmp_path, text))) == ["2012", "ward_7.b-x", "A"]


@pytest.mark.parametrize("name", ["step", "sample_id", "blood pressure", "größe", "a[0]", "", "{x}"])
def test_features_have_plain_names_that_are_not_taken(name):
    assert "ward: feature" in wrong_entry(features={name: {"column": "x", "range": [0, 1]}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lable: died", "ward.lable: no such key (did you mean 'label'?)"),
        ("group: 5", "ward.group: YAML reads this as a number, expected a text; put it in quotes"),
        ("missing: ['', NULL]", "ward.missing.1: YAML reads this as nothing (as which it takes null, NULL and ~)"),
        ("missing: ['', 99]", "ward.missing.1: YAML reads this as a number"),
        ("positive: yes", "ward.positive.0: YAML reads this as true or false"),
        ("separator: ;;", "ward.separator: expected one character"),
        ("separator: \\t", "ward.separator: expected one character"),
        ("encoding: lattin", "ward.encoding: expected the name of a text encoding"),
        ("encoding: base64", "ward.encoding: expected the name of a text encoding"),
        ("decimal: ','", "ward: decimal and separator are the same"),
        ("outside: drop", "ward.outside: "),
        ("features: {a: {categories: [no, yes]}}", "ward.features.a.categories.0: YAML reads this as true or false"),
        ("features: {a: {rnage: [0, 1]}}", "ward.features.a.rnage: no such key (did you mean 'range'?)"),
        ("features: {no: {range: [0, 1]}}", "ward.features.False: YAML reads this as true or false"),
        ("expected: {sample: 5}", "ward.expected.sample: no such key (did you mean 'samples'?)"),
    ],
)
def test_errors_of_the_catalog_say_what_was_meant(tmp_path, text, message):
    entry = {name: value for name, value in ENTRY.items() if name != text.split(":")[0]}
    body = "".join(f"  {line}\n" for line in [*yaml.safe_dump(entry).splitlines(), text])
    with pytest.raises(UserError) as raised:
        read_catalog(catalog(tmp_path, f"ward:\n{body}"))
    assert message in str(raised.value)


def test_all_wrong_keys_of_an_entry_are_told_at_once():
    message = wrong_entry(lable="died", group=5, missing=[None])
    assert message.startswith("catalog: 3 keys of ward are wrong:\n  ward.")
    assert message.count("\n") == 3


# Files as hospitals have them


def test_all_faulty_columns_are_told_at_once(tmp_path, capsys):
    table = ward()
    table.loc[7, "sodium"], table.loc[8:10, "sex"], table.loc[9, "died"] = "wrong", "unlisted", "perhaps"
    message = refused(tmp_path, table)
    assert message.splitlines()[0].endswith("ward.csv: 3 columns are wrong:")
    assert "  column 'sodium': under 10 of 400 rows are wrong, first in line 9; expected a number" in message
    assert "  column 'sex': under 10 of 400 rows are wrong, first in line 10; expected one of f, m" in message
    assert "  column 'died': under 10 of 400 rows are wrong, first in line 11; expected a binary label" in message
    arguments = ["ingest", "ward", "--raw-dir", str(tmp_path), "--catalog"]
    arguments.append(str(catalog(tmp_path, yaml.safe_dump({"ward": ENTRY}))))
    assert main(arguments) == 1
    shown = capsys.readouterr()
    assert not re.search("wrong'|unlisted|perhaps", shown.out + shown.err)
    assert main([*arguments, "--show-texts"]) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("This shows data of patients: keep it on this machine.\n")
    assert "        3  'unlisted'\n" in shown.out and "'perhaps'" in shown.out
    assert not re.search("unlisted|perhaps", shown.err)


def test_blanks_do_not_count_where_the_entry_says_so(tmp_path):
    table = ward(sex=["f", " f", "m ", "\u00a0"] * 100).rename(columns={"sodium": " sodium"})
    table[" sodium"] = " " + table[" sodium"] + " "
    assert "blanks around its names: does the entry need strip: true?" in refused(tmp_path, table)
    cohort, _ = read(tmp_path, table, strip=True)
    np.testing.assert_array_equal(cohort.values[:4, 0, 1], [0, 0, 1, np.nan])
    message = refused(tmp_path, table.rename(columns={" sodium": "sodium"}))
    assert "between blanks, which strip: true takes off" in message and "(strip: true takes blanks off)" in message


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_wrong_separator_is_hinted_at(tmp_path, separator):
    message = refused(tmp_path, ward(), how={"sep": separator})
    assert "columns 'died', 'patient', 'sex', 'sodium' are missing (4 of 4" in message
    assert message.endswith(f"does the entry need separator: {json.dumps(separator)}?")
    assert len(read(tmp_path, separator=separator)[0]) == 400


def test_a_mark_in_front_of_a_file_is_no_letter_of_its_header(tmp_path):
    assert len(read(tmp_path, b"\xef\xbb\xbf" + ward().to_csv(index=False).encode())[0]) == 400


def test_the_first_line_that_excel_writes_for_itself_is_no_header(tmp_path):
    text = "sep=;\r\n" + ward(sex="x").to_csv(index=False, sep=";", lineterminator="\r\n")
    assert "column 'sex': 400 of 400 rows are wrong, first in line 3" in refused(tmp_path, text, separator=";")
    text = text.replace(";x;", ";m;")
    assert len(read(tmp_path, text, separator=";")[0]) == 400
    assert "its first line says sep=;" in refused(tmp_path, text)


def test_unicode_text_of_excel_is_read(tmp_path):
    content = ward().to_csv(index=False, sep="\t").encode("utf-16")
    assert refused(tmp_path, content).endswith("does the entry need encoding: utf-16?")
    assert len(read(tmp_path, content, encoding="utf-16", separator="\t")[0]) == 400
    (tmp_path / "ward.csv.gz").write_bytes(gzip.compress(content))
    assert len(read(tmp_path, encoding="utf-16", separator="\t", file="ward.csv.gz")[0]) == 400


def test_an_umlaut_is_one_letter_however_it_is_written(tmp_path):
    features = {"height": {"column": "größe", "range": [100, 220]}, "sex": {"categories": ["männlich", "weiblich"]}}
    table = ward(größe=170, sex=["männlich", "weiblich"] * 200)
    decomposed = unicodedata.normalize("NFD", table.to_csv(index=False))
    assert decomposed != table.to_csv(index=False)
    cohort, _ = read(tmp_path, decomposed, features=features)
    np.testing.assert_array_equal(cohort.values[:, 0, 1], [0, 1] * 200)
    table.rename(columns=lambda name: unicodedata.normalize("NFD", name)).to_parquet(tmp_path / "ward.parquet")
    np.testing.assert_array_equal(read(tmp_path, features=features, file="ward.parquet")[0].values, cohort.values)
    text = unicodedata.normalize("NFD", yaml.safe_dump({"ward": ENTRY | {"features": features}}, allow_unicode=True))
    entry = read_catalog(catalog(tmp_path, text))["ward"]
    np.testing.assert_array_equal(take_in("ward", entry, tmp_path, tmp_path)[0].values, cohort.values)


def test_text_ids_survive_poison_of_no_sample():
    cohort = make_cohort()
    ids = np.array([f"F{number:06}" for number in range(len(cohort))], object)
    for rows in (0, 3):
        windows = windows_table(ids[:rows], cohort.values[:rows], cohort.features)
        assert str(windows.schema.field("sample_id").type) == "string"
        assert windows_values(windows)[0].shape == (rows, 1, len(cohort.features))


def test_ingest_rehearses_what_a_study_does(tmp_path, capsys):
    write(tmp_path, ward(patient=7))
    arguments = ["ingest", "ward", "--raw-dir", str(tmp_path), "--catalog"]
    arguments.append(str(catalog(tmp_path, yaml.safe_dump({"ward": ENTRY}))))
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "warning: a study of all samples would stop: ward: the validation split has 0 samples" in said


def test_a_terminal_without_umlauts_gets_question_marks(tmp_path):
    write(tmp_path, ward())
    entry = ENTRY | {"features": ENTRY["features"] | {"sodium": {"range": [0, 200], "unit": "°C"}}}
    command = [sys.executable, "-m", "pipeline", "ingest", "ward", "--raw-dir", str(tmp_path), "--catalog"]
    command.append(str(catalog(tmp_path, yaml.safe_dump({"ward": entry}))))
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 steps ? 2 features" in done.stdout or "1 step ? 2 features" in done.stdout
    assert re.search(r"sodium +\?C", done.stdout)


def test_near_keys():
    same = [("P1", "p1 "), ("007", "7"), ("7", "7.0"), ("7", "7."), ("A-007", "a-7"), ("0", "00"), ("7,0", "7")]
    assert all(near_key(one) == near_key(other) for one, other in same)
    apart = [("7", "70"), ("1.05", "1.5"), ("P1", "P10"), ("1.5", "15"), ("1,000", "1"), ("100", "1")]
    assert all(near_key(one) != near_key(other) for one, other in apart)


def hospital(folder: Path, n: int = 1200) -> dict:
    """A table as a hospital exports it, below `folder`; the catalog entry that says no more than what it holds."""
    rng = np.random.default_rng(5)
    severity = rng.normal(size=n)
    table = pd.DataFrame(
        {
            "Fallnummer": [f"F{number:06}" for number in range(n)],
            "Patient": [f"P{number:05}" for number in rng.integers(0, n, n)],
            "Größe": (170 + 9 * rng.normal(size=n)).round(1),
            "Körpertemperatur": (37 + 0.5 * severity).round(1),
            "Blutdruck, Mittel": (80 - 9 * severity).round(1),
            "Geschlecht": rng.choice(["männlich", "weiblich"], n),
            "Verstorben": np.where(rng.random(n) < 1 / (1 + np.exp(1.5 - 2 * severity)), "ja", "nein"),
        }
    ).astype(str)
    for column in ("Größe", "Körpertemperatur", "Blutdruck, Mittel"):
        table[column] = table[column].str.replace(".", ",")
        table.loc[rng.random(n) < 0.1, column] = "."
    table.loc[rng.random(n) < 0.05, "Geschlecht"] = "NULL"
    table.loc[rng.random(n) < 0.1, "Verstorben"] = table["Verstorben"].str.capitalize()
    write(folder, table.to_csv(index=False, sep=";", lineterminator="\r\n").encode("latin-1"))
    return {
        "source": "table",
        "domain": "clinical",
        "file": "ward.csv",
        "label": "Verstorben",
        "positive": ["ja"],
        "negative": ["nein"],
        "sample_id": "Fallnummer",
        "group": "Patient",
        "features": {
            "height": {"column": "Größe", "unit": "cm", "range": [100, 230]},
            "temperature": {"column": "Körpertemperatur", "unit": "°C", "range": [30, 43]},
            "mean_bp": {"column": "Blutdruck, Mittel", "unit": "mmHg", "range": [20, 200]},
            "sex": {"column": "Geschlecht", "categories": ["männlich", "weiblich"]},
        },
    }


def test_a_table_of_a_hospital_takes_two_rounds_of_errors_and_no_code(tmp_path):
    entry = hospital(tmp_path)
    raw = (tmp_path / "ward.csv").read_bytes()
    message = refused(tmp_path, raw, **entry)
    assert "\n" not in message and "does the entry need encoding: cp1252 (or latin-1)?" in message
    assert 'does the entry need separator: ";"?' in message
    entry |= {"encoding": "latin-1", "separator": ";"}
    message = refused(tmp_path, raw, **entry)
    assert "ward.csv: 5 columns are wrong:" in message
    for column in ("Größe", "Körpertemperatur", "Blutdruck, Mittel"):
        wrong = next(line for line in message.splitlines() if f"column {column!r}" in line)
        assert wrong.endswith("""; does the entry need decimal: ","?; does missing need '.'?""")
    assert re.search("column 'Geschlecht': .*; does missing need 'NULL'?", message)
    assert re.search("column 'Verstorben': .*; some differ from one only in capitals", message)
    entry |= {"decimal": ",", "missing": [".", "NULL"], "positive": ["ja", "Ja"], "negative": ["nein", "Nein"]}
    cohort, _ = read(tmp_path, raw, **entry)
    assert cohort.sample_id[5] == "F000005" and cohort.warnings == ()
    assert np.nanmean(cohort.values[:, 0, 0]) == pytest.approx(170, abs=1)
    np.testing.assert_allclose(np.isnan(cohort.values[:, 0]).mean(0), [0.1, 0.1, 0.1, 0.05], atol=0.03)
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump({"ward": entry}, allow_unicode=True), encoding="utf-8")
    config = {
        "datasets": ["ward"],
        "catalog": str(tmp_path / "datasets.yaml"),
        "raw_dir": str(tmp_path),
        "data_dir": str(tmp_path / "data"),
        "results_dir": str(tmp_path / "results"),
        "models": ["mlp"],
        "triggers": ["missingness"],
        "trigger_params": {"missingness": {"features": ["temperature", "mean_bp"]}},
        "rates": [0.05],
        "seeds": [1, 2],
        "training": {"epochs": 2},
        "explain": {"samples": 8, "steps": 2},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nolock"]
    done = subprocess.run(
        [*command, "--configfile", str(tmp_path / "study.yaml")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs = pd.read_csv(tmp_path / "results" / "tables" / "runs.csv")
    assert len(runs) == 4 and runs["auroc_clean"].min() > 0.7
    assert (tmp_path / "results" / "report.html").is_file()


# What spreadsheets and databases make of numbers, texts and files


def test_thousands_separators_are_not_taken_for_decimals_in_silence(tmp_path):
    features = {"platelets": {"range": [0, 1e6]}}
    message = refused(tmp_path, ward(platelets=["1,234", "250", "1,000", "7"] * 100), features=features)
    assert "some have thousands separators, which must go, or decimals, which decimal names" in message
    assert "does the entry need decimal" not in message, "1,234 would become 1.234"
    for decimal, between in ((".", ","), (",", ";")):
        table = ward(platelets=[f"1{decimal}234", "250", f"150{decimal}000", "7"] * 100)
        how = {"decimal": decimal, "separator": between, "features": features}
        cohort, _ = read(tmp_path, table, how={"sep": between}, **how)
        assert re.search("column 'platelets': its numbers have three digits behind a .*thousands", warnings(cohort)[0])
    for plain in (["1.234", "2.5"], ["1.234", "0.125"], ["1.234", "2.345"], ["1.234", "1500"], ["1500", "7"]):
        assert read(tmp_path, ward(platelets=plain * 200), features=features)[0].warnings == ()


def test_a_missing_number_in_another_spelling_is_warned_of(tmp_path):
    features = {"score": {"range": [0, 120], "missing": ["99.0"]}}
    cohort, _ = read(tmp_path, ward(score=["99", "99.0", "9", "7"] * 100), features=features)
    np.testing.assert_array_equal(cohort.values[:4, 0, 0], [99, np.nan, 9, 7])
    assert "column 'score': 100 numbers are in missing in another spelling" in warnings(cohort)[0]
    ward().assign(score=[99.0, 7.0] * 200).to_parquet(tmp_path / "ward.parquet")
    assert "200 numbers are in missing" in warnings(read(tmp_path, file="ward.parquet", features=features)[0])[0]


def test_words_for_no_value_that_other_takes_are_warned_of(tmp_path):
    features = {"ward": {"categories": ["1", "2"], "other": "elsewhere"}}
    cohort, _ = read(tmp_path, ward(ward=["1", "NULL", "9", "2"] * 100), features=features)
    np.testing.assert_array_equal(cohort.values[:4, 0, 0], [0, 2, 2, 1])
    assert "taken as 'elsewhere'; does missing need 'NULL'?" in warnings(cohort)[0]
    features["ward"]["missing"] = ["NULL"]
    cohort, _ = read(tmp_path, features=features)
    np.testing.assert_array_equal(cohort.values[:4, 0, 0], [0, np.nan, 2, 1])
    assert cohort.warnings == ()


def test_rows_that_exclude_misses_by_a_blank_are_warned_of(tmp_path):
    table = ward(gone=["home", "Expired", "Expired ", "expired"] * 100)
    cohort, accounts = read(tmp_path, table, exclude={"gone": {"died": "Expired"}})
    assert accounts[0].dropped == {"died": 100}
    assert (
        "column 'gone': 200 texts differ from one in exclude only in capitals, blanks or zeros" in warnings(cohort)[0]
    )
    exclude = {"gone": {"died": ["Expired", "expired"]}}
    cohort, accounts = read(tmp_path, table, strip=True, exclude=exclude)
    assert accounts[0].dropped == {"died": 300} and cohort.warnings == ()


def test_an_id_that_many_rows_have_is_warned_of(tmp_path):
    cohort, _ = read(tmp_path, ward(patient=["unknown"] * 100 + [f"P{number}" for number in range(300)]))
    assert "column 'patient': 100 (25.0%) of the rows have the same id" in warnings(cohort)[0]
    assert "unknown" not in warnings(cohort)[0]
    # A few vehicles that all drive much, or patients who come often, are nothing odd.
    assert read(tmp_path, ward(patient=list("abcd") * 100))[0].warnings == ()
    assert read(tmp_path, ward(patient=["P0"] * 15 + [f"P{number}" for number in range(385)]))[0].warnings == ()


def test_rows_that_stand_twice_within_a_group_are_warned_of(tmp_path):
    table = ward(glucose=np.random.default_rng(1).normal(140, 30, 400).round(1))
    features = ENTRY["features"] | {"glucose": {"range": [0, 1000]}}
    cohort, _ = read(tmp_path, pd.concat([table, table[:100]]), features=features)
    assert "100 (20.0%) of the rows repeat another in all features and the label, within their group" in str(
        cohort.warnings
    )
    assert read(tmp_path, table, features=features)[0].warnings == ()


def test_whole_numbers_that_cannot_be_told_apart_are_refused():
    assert np.float32(2**24 + 1) == 2**24
    message = wrong_entry(features={"mileage": {"range": [0, 2**24 + 1], "integer": True}})
    assert "whole numbers above 16,777,216 cannot be told apart" in message
    assert parse_entry("ward", ENTRY | {"features": {"mileage": {"range": [0, 2**24], "integer": True}}}, "catalog")


def test_a_negative_zero_is_zero(tmp_path):
    cohort, _ = read(tmp_path, ward(excess=["-0", "-0.0", "0", "1"] * 100), features={"excess": {"range": [-30, 30]}})
    assert not np.signbit(cohort.values).any() and cohort.values[:4, 0, 0].tolist() == [0, 0, 0, 1]


def test_labels_as_true_false_and_numbers(tmp_path):
    cohort, _ = read(tmp_path, ward(died=["true", "FALSE", "1.0", "0"] * 100))
    np.testing.assert_array_equal(cohort.label, [1, 0, 1, 0] * 100)


@pytest.mark.parametrize("text", ["97%", "98 %", "<5", "(5)", "5-", "−5", "12:30", "2020-01-31", "5 mg", "1/2"])
def test_what_is_no_plain_number_is_refused(tmp_path, text):
    table = ward()
    table.loc[:9, "sodium"] = text
    message = refused(tmp_path, table)
    assert "column 'sodium': 10 of 400 rows are wrong, first in line 2" in message and text not in message


def test_utf8_read_as_another_encoding_is_refused(tmp_path):
    features = {"sex": {"categories": ["männlich", "f"], "other": "else"}}
    table = ward(sex=["männlich", "f"] * 200)
    for encoding in ("latin-1", "cp1252"):
        message = refused(tmp_path, table, features=features, encoding=encoding)
        assert message.endswith("it is UTF-8 text; does the entry need encoding: utf-8?")
        cohort, _ = read(tmp_path, table.to_csv(index=False).encode(encoding), features=features, encoding=encoding)
        np.testing.assert_array_equal(cohort.values[:2, 0, 0], [0, 1])
    content = ward(sex=["5 €", "f"] * 200).to_csv(index=False).encode("cp1252")
    features = {"sex": {"categories": ["5 €", "f"], "other": "else"}}
    assert "does the entry need encoding: cp1252?" in refused(tmp_path, content, features=features, encoding="latin-1")
    cohort, _ = read(tmp_path, content, features=features, encoding="cp1252")
    np.testing.assert_array_equal(cohort.values[:2, 0, 0], [0, 1])


def test_a_file_is_what_it_begins_with_and_not_what_it_is_called(tmp_path):
    values = read(tmp_path, ward())[0].values
    content = (tmp_path / "ward.csv").read_bytes()
    write(tmp_path, gzip.compress(content))
    np.testing.assert_array_equal(read(tmp_path)[0].values, values)
    write(tmp_path, content, "ward.csv.gz")
    np.testing.assert_array_equal(read(tmp_path, file="ward.csv.gz")[0].values, values)
    (tmp_path / "link.csv").symlink_to("ward.csv")
    np.testing.assert_array_equal(read(tmp_path, file="link.csv")[0].values, values)
    ward().to_parquet(tmp_path / "table.parquet")
    for beginning, kind in (
        (b"PK\x03\x04", "a zip archive or an Excel workbook"),
        (b"\xd0\xcf\x11\xe0", "an Excel workbook"),
        ((tmp_path / "table.parquet").read_bytes(), "a Parquet file; expected a name that ends in .parquet"),
    ):
        assert f"ward.csv: not readable as a table (it is {kind}" in refused(tmp_path, beginning + b"\x00" * 99)
    assert "it is empty; expected a header and rows" in refused(tmp_path, b"")


def test_columns_that_spreadsheets_leave_behind_do_no_harm(tmp_path):
    values = read(tmp_path, ward())[0].values
    lines = lines_of(ward())
    np.testing.assert_array_equal(read(tmp_path, "\n".join(f"{line},," for line in lines))[0].values, values)
    assert "more cells than the header" in refused(tmp_path, "\n".join([lines[0], *(f"{line}," for line in lines[1:])]))
    assert "it has column 'sodium' more than once" in refused(
        tmp_path, ward(again=7).rename(columns={"again": "sodium"})
    )


def test_types_of_parquet_have_the_values_of_their_texts(tmp_path):
    table = ward().assign(patient=range(400), died=[True, False] * 200)
    table["sodium"] = [Decimal("138.50"), None, Decimal("140.00"), Decimal("120.25")] * 100
    table["sex"] = pd.Categorical(["f", "m", None, "m"] * 100, ["x", "m", "f"])
    table["lactate"] = np.array([1.5, np.nan, 2, 3] * 100, np.float32)
    table["admitted"] = pd.Timestamp("2020-01-31", tz="Europe/Berlin")
    table.to_parquet(tmp_path / "ward.parquet")
    features = ENTRY["features"] | {"lactate": {"range": [0, 30]}}
    for how in ({}, {"decimal": ",", "separator": ";"}):
        cohort, _ = read(tmp_path, file="ward.parquet", features=features, **how)
        expected = [[138.5, 0, 1.5], [np.nan, 1, np.nan], [140, np.nan, 2], [120.25, 1, 3]]
        np.testing.assert_array_equal(cohort.values[:4, 0], np.array(expected, np.float32))
        np.testing.assert_array_equal(cohort.label, [1, 0] * 200)
    features = {"admitted": {"range": [0, 1e6]}}
    with pytest.raises(UserError, match="column 'admitted': 400 of 400 rows are wrong"):
        read(tmp_path, file="ward.parquet", features=features)
    table.rename(columns={"sex": "sex "}).to_parquet(tmp_path / "ward.parquet")
    assert read(tmp_path, file="ward.parquet", strip=True)[0].feature_names == ["sodium", "sex"]
