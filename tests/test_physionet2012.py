"""PhysioNet/CinC Challenge 2012: the same cohort from every form of the files, what an hour holds, and bad input."""

import csv
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from pipeline.cohorts.catalog import parse_entry, read_catalog, source_of
from pipeline.errors import UserError
from pipeline.front import main

# Made up. RecordID → its rows in the order of the files, and whether the patient died in hospital.
STAYS = {
    7: (
        [
            ("00:00", "Age", 54),
            ("00:00", "Gender", 0),
            ("00:00", "Height", -1),
            ("00:00", "ICUType", 4),
            ("00:00", "Weight", -1),
            ("00:07", "HR", 80),
            ("00:50", "HR", 91),
            ("00:50", "Temp", 36.6),
            ("01:00", "HR", 70),
            ("01:05", "pH", 735),
            ("01:10", "pH", 7.25),
            ("02:00", "Urine", 30),
            ("02:59", "Urine", 40.5),
            ("03:00", "SaO2", 5),  # no plausible one
            ("23:59", "NISysABP", 120),
            ("24:00", "SysABP", 100),
            ("47:59", "Na", 140),
            ("48:00", "K", 4),  # the window is over
        ],
        0,
    ),
    9: (
        [
            ("00:00", "Age", 300),  # no plausible one
            ("00:00", "Gender", -1),
            ("00:00", "Height", 180.5),
            ("00:00", "ICUType", 1),
            ("00:00", "Weight", 75),
            ("05:30", "FiO2", 0.4),
            ("05:30", "MechVent", 1),
            ("30:00", "GCS", 15),
            ("30:30", "GCS", -1),
        ],
        1,
    ),
    8: ([("00:00", "Age", 60), ("00:00", "Gender", 1), ("00:00", "Height", 170), ("00:00", "ICUType", 2)], 0),
    10: ([("00:00", "Age", 70), ("00:00", "Gender", 1), ("40:00", "HR", 65)], 1),
}
Stays = dict[int, tuple[list[tuple], int | str]]


def patient_file(record: int, rows: list[tuple]) -> bytes:
    lines = ["Time,Parameter,Value", f"00:00,RecordID,{record}", *(",".join(map(str, row)) for row in rows)]
    return ("\n".join(lines) + "\n").encode()


def write_folder(folder: Path, stays: Stays) -> None:
    (folder / "set-a").mkdir()
    for record, (rows, _) in stays.items():
        (folder / "set-a" / f"{record}.txt").write_bytes(patient_file(record, rows))
    write_outcomes(folder, stays)


def write_tar(folder: Path, stays: Stays) -> None:
    with tarfile.open(folder / "set-a.tar.gz", "w:gz") as archive:
        for record, (rows, _) in stays.items():
            content = patient_file(record, rows)
            member = tarfile.TarInfo(f"./set-a/{record}.txt")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    write_outcomes(folder, stays)


def write_zip(folder: Path, stays: Stays) -> None:
    with zipfile.ZipFile(folder / "set-a.zip", "w") as archive:
        for record, (rows, _) in stays.items():
            archive.writestr(f"set-a/{record}.txt", patient_file(record, rows))
    write_outcomes(folder, stays)


def write_outcomes(folder: Path, stays: Stays) -> None:
    with (folder / "Outcomes-a.txt").open("w", newline="") as file:
        write = csv.writer(file, lineterminator="\n").writerow
        write(["RecordID", "SAPS-I", "SOFA", "Length_of_stay", "Survival", "In-hospital_death"])
        for record, (_, died) in stays.items():
            write([record, 6, 1, 5, -1, died])


def write_together(folder: Path, stays: Stays) -> None:
    with gzip.open(folder / "events_set_a.csv.gz", "wt") as file:
        print("RecordID,Time,Parameter,Value", file=file)
        for record, (rows, _) in stays.items():
            print(*(",".join(map(str, (record, *row))) for row in rows), sep="\n", file=file)
    with (folder / "outcomes.csv").open("w") as file:
        print("RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death,set", file=file)
        print(*(f"{record},6,1,5,-1,{died},a" for record, (_, died) in stays.items()), sep="\n", file=file)
        print("9,6,1,5,-1,0,b", file=file)  # the same number in a set that is not asked for


FORMS = [write_folder, write_tar, write_zip, write_together]
every_form = pytest.mark.parametrize("write", FORMS, ids=lambda write: write.__name__.removeprefix("write_"))


def load(raw_dir: Path, **changes):
    content = {"source": "physionet2012", "folder": "pn", "sets": ["a"]} | changes
    entry = parse_entry("made", content, "catalog")
    return source_of(entry).load("made", entry, raw_dir, raw_dir / "cache")


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "pn").mkdir()
    return tmp_path / "pn"


@every_form
def test_every_form_gives_the_values_worked_out_by_hand(folder, write):
    write(folder, STAYS)
    cohort, accounts = load(folder.parent)
    assert cohort.sample_id.tolist() == cohort.group_id.tolist() == [7, 9, 10], "8 has no measurement"
    assert cohort.label.tolist() == [0, 1, 1] and cohort.label.dtype == np.int8
    wanted = np.full((3, 48, len(cohort.features)), np.nan, np.float32)
    column = cohort.feature_names.index
    for stay, hour, name, value in [
        (0, 0, "heart_rate", 85.5),
        (0, 0, "temperature", 36.6),
        (0, 1, "heart_rate", 70),
        (0, 1, "ph", 7.3),  # (7.35 + 7.25) / 2
        (0, 2, "urine_output", 70.5),
        (0, 23, "sbp", 120),
        (0, 24, "sbp", 100),
        (0, 47, "sodium", 140),
        (1, 0, "weight", 75),
        (1, 5, "fio2", 40),
        (1, 5, "mech_vent", 1),
        (1, 30, "gcs", 15),
        (2, 40, "heart_rate", 65),
    ]:
        wanted[stay, hour, column(name)] = value
    for name, values in [("age", [54, np.nan, 70]), ("sex", [0, np.nan, 1]), ("height", [np.nan, 180.5, np.nan])]:
        wanted[:, :, column(name)] = np.float32(values)[:, None]
    wanted[:, :, column("icu_type")] = np.float32([3, 0, np.nan])[:, None]
    np.testing.assert_array_equal(cohort.values, wanted)
    found = {account.rows: (account.read, {why: n for why, n in account.dropped.items() if n}) for account in accounts}
    assert found == {
        "ICU stays": (4, {"without a measurement": 1}),
        "descriptors": (14, {"not known": 2, "outside the plausible range": 1}),
        "measurements": (20, {"outside the window": 1, "without a number": 2, "outside the plausible range": 1}),
        "hourly values": (13, {}),
    }


def test_archives_are_preferred_to_nothing_and_together_to_all(folder):
    write_folder(folder, {7: STAYS[7]})
    assert len(load(folder.parent)[0]) == 1
    write_together(folder, STAYS)
    assert len(load(folder.parent)[0]) == 3


@every_form
def test_rows_that_stand_twice_count_once(folder, write):
    stays = {record: (rows + rows, died) for record, (rows, died) in STAYS.items()}
    write(folder, STAYS)
    once, accounts = load(folder.parent)
    shutil.rmtree(folder)
    folder.mkdir()
    write(folder, stays)
    outcomes = next(path for path in folder.iterdir() if path.name in ("outcomes.csv", "Outcomes-a.txt"))
    header, *rows = outcomes.read_text().splitlines(keepends=True)
    outcomes.write_text("".join([header, *rows, *rows]))
    again, doubled = load(folder.parent)
    np.testing.assert_array_equal(again.values, once.values)
    assert again.label.tolist() == once.label.tolist()
    assert [account.kept for account in doubled] == [account.kept for account in accounts]
    assert (doubled[0].read, doubled[0].dropped["that stand twice"]) == (8, 4)
    assert (doubled[1].read, doubled[1].dropped["given before"]) == (28, 14)
    assert (doubled[2].read, doubled[2].dropped["that stand twice"]) == (40, 19), "one is outside the window"


def test_hidden_files_in_an_archive_are_not_read(folder):
    write_zip(folder, STAYS)
    expected, _ = load(folder.parent)
    with zipfile.ZipFile(folder / "set-a.zip", "a") as archive:
        archive.writestr("set-a/.ipynb_checkpoints/7.txt", patient_file(7, STAYS[9][0]))
        archive.writestr("__MACOSX/set-a/._9.txt", b"no text")
    assert load(folder.parent)[0].values.tobytes() == expected.values.tobytes()
    (folder / "set-a.zip").unlink()
    with tarfile.open(folder / "set-a.tar.gz", "w:gz") as archive:
        for place in ("./set-a", "./set-a/.cache"):
            for record, (rows, _) in STAYS.items():
                member = tarfile.TarInfo(f"{place}/{record}.txt")
                member.size = len(content := patient_file(record, rows))
                archive.addfile(member, io.BytesIO(content))
    assert load(folder.parent)[0].values.tobytes() == expected.values.tobytes()


def test_a_day_is_the_first_half_of_two(folder):
    write_tar(folder, STAYS)
    two, one = load(folder.parent)[0], load(folder.parent, hours=24)[0]
    assert one.sample_id.tolist() == [7, 9], "10 has no measurement on the first day"
    np.testing.assert_array_equal(one.values, two.values[:2, :24])
    entry = parse_entry("made", {"source": "physionet2012", "hours": 24}, "catalog")
    assert source_of(entry).describe(entry, folder) == (24, one.features)


def test_rows_in_any_order_give_the_same(folder):
    write_folder(folder, STAYS)
    straight = load(folder.parent)[0]
    for record, (rows, _) in STAYS.items():
        (folder / "set-a" / f"{record}.txt").write_bytes(patient_file(record, rows[::-1]))
    assert load(folder.parent)[0].values.tobytes() == straight.values.tobytes()


def test_what_came_later_is_no_feature(folder):
    entry = parse_entry("made", {"source": "physionet2012"}, "catalog")
    _, features = source_of(entry).describe(entry, folder)
    outcomes = {"SAPS-I", "SOFA", "Length_of_stay", "Survival", "In-hospital_death", "RecordID"}
    with Path("pipeline/cohorts/variables/physionet2012.csv").open(encoding="utf-8", newline="") as file:
        assert not outcomes & {row["code"] for row in csv.DictReader(file)}
    assert not {name.lower() for name in outcomes} & {feature.name for feature in features}
    write_together(folder, {7: STAYS[7], 9: STAYS[9]})
    before = load(folder.parent)[0]
    text = (folder / "outcomes.csv").read_text().replace(",6,1,5,-1,", ",30,20,99,3,")
    (folder / "outcomes.csv").write_text(text)
    assert load(folder.parent)[0].values.tobytes() == before.values.tobytes()


def edited(path: str, old: str | bytes, new: str | bytes) -> Callable[[Path], None]:
    """Replace text in a file of the folder form."""

    def apply(folder: Path) -> None:
        content = (folder / path).read_bytes()
        wanted, given = (text.encode() if isinstance(text, str) else text for text in (old, new))
        assert wanted in content
        (folder / path).write_bytes(content.replace(wanted, given))

    return apply


def loop(path: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / path).unlink()
        (folder / path).symlink_to(folder / path)

    return apply


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "Outcomes-a.txt").unlink(), "Outcomes-a.txt: no such file"),
        (edited("Outcomes-a.txt", "9,6,1,5,-1,1\n", ""), "pn: under 10 of the stays have no outcome; expected one"),
        (
            edited("Outcomes-a.txt", "9,6,1,5,-1,1", "9,6,1,5,-1,"),
            "Outcomes-a.txt: column .*: under 10 of 4 rows hold no value",
        ),
        (
            edited("Outcomes-a.txt", "9,6,1,5,-1,1", ",6,1,5,-1,1"),
            "Outcomes-a.txt: column .*: under 10 of 4 rows hold no value",
        ),
        (
            edited("Outcomes-a.txt", "9,6,1,5,-1,1", "9,6,1,5,-1,dead"),
            "Outcomes-a.txt: column 'In-hospital_death': under 10 of 4 rows hold",
        ),
        (edited("Outcomes-a.txt", "9,6,1,5,-1,1", "9,6,1"), "Outcomes-a.txt: not readable"),
        (
            edited("Outcomes-a.txt", "In-hospital_death", "Died"),
            "Outcomes-a.txt: column 'In-hospital_death' is missing",
        ),
        (
            edited("Outcomes-a.txt", "10,6,1,5,-1,1", "9,6,1,5,-1,0"),
            "Outcomes-a.txt: under 10 RecordIDs stand twice; expected each once",
        ),
        (loop("Outcomes-a.txt"), "Outcomes-a.txt: not readable"),
        (edited("set-a/7.txt", "00:07", "0:07"), "set-a: column 'Time': under 10 of 34 rows are wrong; expected hh:mm"),
        (
            edited("set-a/7.txt", "00:50", "00:60"),
            "set-a: column 'Time': under 10 of 34 rows are wrong; expected hh:mm",
        ),
        (
            edited("set-a/7.txt", "00:07", "-1:07"),
            "set-a: column 'Time': under 10 of 34 rows are wrong; expected hh:mm",
        ),
        (edited("set-a/7.txt", "00:07,", ","), "set-a: column 'Time': under 10 of 34 rows are wrong; expected hh:mm"),
        (
            edited("set-a/7.txt", "HR,80", "HR,eighty"),
            "set-a: column 'Value': under 10 of 34 rows hold something else than numbers",
        ),
        (edited("set-a/7.txt", "HR,80", "HR"), "set-a: not readable: .*Expected 4 columns, got 3"),
        (
            edited("set-a/7.txt", "HR,80", b"H\xe9,80"),
            "set-a: column 'Parameter': it holds something else than text in UTF-8",
        ),
        (edited("set-a/7.txt", "Time,", "time,"), "set-a: 7.txt: another first line; expected Time,Parameter,Value"),
        (edited("set-a/7.txt", "RecordID,7", "RecordID,8"), "set-a: 7.txt: another second line; expected the RecordID"),
        (edited("set-a/7.txt", "00:00,RecordID,7\n", ""), "set-a: 7.txt: another second line; expected the RecordID"),
        (lambda f: (f / "set-a/7.txt").write_bytes(b""), "set-a: 7.txt: another first line"),
        (lambda f: (f / "set-a/7.txt").write_bytes(b"Time,Parameter,Value\n"), "set-a: 7.txt: another second line"),
        (loop("set-a/7.txt"), "set-a: not readable as a folder or archive of stays"),
        (lambda f: [path.rename(f / path.name) for path in f.glob("set-a/*")], "set-a: no file <RecordID>.txt in it"),
        (lambda f: (f / "set-a").rename(f / "other"), "set-a.tar.gz: no such file"),
    ],
)
def test_wrong_files_are_one_sentence(folder, capsys, break_it, message):
    write_folder(folder, STAYS)
    break_it(folder)
    is_refused(folder, capsys, message)


def is_refused(folder: Path, capsys, message: str) -> None:
    """The stage ends with one sentence and status 1, and leaves nothing."""
    out = folder.parent / "out"
    entry = json.dumps({"source": "physionet2012", "folder": "pn", "sets": ["a"]})
    arguments = ["sample_dev", "--dataset", "made", "--entry", entry, "--raw-dir", str(folder.parent)]
    arguments += ["--cache-dir", str(out / "cache"), "--n-samples", "all", "--out", str(out / "made")]
    before = sorted(folder.rglob("*"))
    assert main([*arguments, "--splits", str(out / "made.json")]) == 1
    said = capsys.readouterr()
    assert re.fullmatch(rf"error: .*{message}.*\n", said.err) and not said.out
    assert not re.search("eighty|dead\n", said.err), "a patient's value in a message"
    assert not out.exists() and sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("write", FORMS[1:], ids=["tar", "zip", "together"])
def test_a_truncated_file_is_one_sentence(folder, capsys, write, share):
    write(folder, STAYS)
    (packed,) = (path for path in folder.iterdir() if path.suffix in (".gz", ".zip"))
    packed.write_bytes(packed.read_bytes()[: int(share * packed.stat().st_size)])
    is_refused(folder, capsys, f"{packed.name}: not readable")


@pytest.mark.parametrize("name", ["set-a.tar.gz", "set-a.zip", "events_set_a.csv.gz"])
def test_another_file_by_that_name_is_one_sentence(folder, capsys, name):
    (folder / name).write_bytes(b"no archive of any kind")
    write_outcomes(folder, STAYS)
    (folder / "outcomes.csv").write_text("RecordID,In-hospital_death,set\n7,0,a\n9,1,a\n")
    is_refused(folder, capsys, f"{name}: not readable")


def test_a_record_in_two_files_of_an_archive_is_one_sentence(folder, capsys):
    with zipfile.ZipFile(folder / "set-a.zip", "w") as archive:
        for place in ("one", "two"):
            archive.writestr(f"{place}/7.txt", patient_file(7, STAYS[7][0]))
    write_outcomes(folder, STAYS)
    is_refused(folder, capsys, "set-a.zip: 7.txt: its RecordID stands in two files; expected one per stay")


def test_a_record_in_two_sets_is_one_sentence(folder):
    write_folder(folder, STAYS)
    (folder / "set-b").symlink_to("set-a")
    (folder / "Outcomes-b.txt").symlink_to("Outcomes-a.txt")
    with pytest.raises(UserError, match="under 10 RecordIDs stand twice; expected each once"):
        load(folder.parent, sets=["a", "b"])


@pytest.mark.parametrize(
    ("key", "value"), [("hours", 0), ("hours", 49), ("sets", []), ("sets", ["d"]), ("stays", "all")]
)
def test_a_wrong_entry_names_its_key(key, value):
    with pytest.raises(UserError, match=rf"catalog: made\.{key}"):
        parse_entry("made", {"source": "physionet2012", key: value}, "catalog")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory is read from /proc")
def test_the_real_files_are_read_fast_and_in_little_memory(real_data):
    """8,000 stays in at most 60 s and 1.5 GiB; the catalog's expectation checks 7,991 stays with 1,122 deaths."""
    expected = read_catalog(Path("data/datasets.yaml"))["physionet2012"].expected
    assert (expected.samples, expected.positives) == (7991, 1122)
    code = (
        "import sys; from pathlib import Path; from pipeline.front import main\n"
        f"assert main(['ingest', 'physionet2012', '--raw-dir', {str(real_data)!r}]) == 0\n"
        "print(next(line for line in Path('/proc/self/status').read_text().splitlines() if 'VmHWM' in line))\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 60
    *said, peak = done.stdout.splitlines()
    assert int(peak.split()[1]) < 1.5 * 2**20, "KiB"
    assert said[0] == "ICU stays: 7,991 kept; dropped: under 10 without a measurement"
    assert any(line.startswith("physionet2012: 7,991 samples, 7,991 groups, 14.0% positive, 48 steps") for line in said)
