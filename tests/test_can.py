"""CAN captures: what is read of each layout, what is refused, how windows come about and how they are dealt."""

import csv
import gzip
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cohorts import splits
from pipeline.cohorts.can_capture import Capture, read_capture
from pipeline.cohorts.can_windows import MOST_WINDOWS, Windowed, windows_of
from pipeline.cohorts.catalog import parse_entry, read_catalog, source_of
from pipeline.cohorts.cohort import Cohort, Feature, read_cohort, write_cohort
from pipeline.cohorts.intake import account_lines, take_in, warnings
from pipeline.cohorts.preprocessing import Preprocessor
from pipeline.cohorts.schema import check_cohort
from pipeline.cohorts.sources import can, can_synthetic
from pipeline.cohorts.splits import ROLES_BESIDE_PUBLISHED
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.seeding import generator
from pipeline.study import families, preflight, stamps
from pipeline.training.data import read_split

HEADER = "timestamp,arbitration_id,data_field,attack"
GOOD = ["1.0,1E5,0011AAFF,0", "1.5,0C1,,0", "1.5,7FF,0102030405060708,1", "2.25,1FFFFFFF,ff,0"]


def write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def frames(n: int, seed: int = 0, attacks: range | tuple = (), start: float = 100.0) -> list[tuple]:
    """(seconds, id, payload in hex, attack) of `n` frames of five ids, payloads of 0 to 8 bytes."""
    rng = np.random.default_rng(seed)
    seconds = np.round(start + np.cumsum(rng.uniform(0.0001, 0.002, n)), 6)
    ids = np.array([0x0C1, 0x1E5, 0x2F9, 0x771, 0x18DAF110])[rng.choice(5, n, p=[0.4, 0.3, 0.2, 0.05, 0.05])]
    payloads = [rng.bytes(int(length)).hex().upper() for length in rng.integers(0, 9, n)]
    return [
        (float(s), int(i), p, int(k in attacks)) for k, (s, i, p) in enumerate(zip(seconds, ids, payloads, strict=True))
    ]


def write_csv(path: Path, rows: list[tuple]) -> Path:
    return write(path, [HEADER, *(f"{s!r},{i:03X},{p},{a}" for s, i, p, a in rows)])


def write_car_hacking(path: Path, rows: list[tuple]) -> Path:
    lines = []
    for s, i, p, a in rows:
        cells = [p[at : at + 2].lower() for at in range(0, len(p), 2)]
        lines.append(",".join([repr(s), f"{i:04x}", str(len(cells)), *cells, "T" if a else "R"]))
    return write(path, lines)


def write_parquet(path: Path, rows: list[tuple], ids=lambda i: i, label: str = "label") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    s, i, p, a = zip(*rows, strict=True)
    pq.write_table(pa.table({"timestamp": s, "id": [ids(one) for one in i], "data_field": p, label: a}), path)
    return path


def entry_of(source: str = "can", **keys):
    return parse_entry("cars", {"source": source, **keys}, "here")


def load(raw_dir: Path, **keys) -> tuple[Cohort, list]:
    return source_of(entry_of(**keys)).load("cars", entry_of(**keys), raw_dir, raw_dir / "cache")


# What is read.


def test_a_capture_is_what_its_lines_say(tmp_path):
    capture = read_capture(write(tmp_path / "a.csv", [HEADER, *GOOD]), "a", "dos")
    np.testing.assert_array_equal(capture.seconds, [1, 1.5, 1.5, 2.25])
    np.testing.assert_array_equal(capture.id, [0x1E5, 0x0C1, 0x7FF, 0x1FFFFFFF])
    np.testing.assert_array_equal(capture.dlc, [4, 0, 8, 1])
    np.testing.assert_array_equal(capture.payload[0], [0, 0x11, 0xAA, 0xFF, 0, 0, 0, 0])
    np.testing.assert_array_equal(capture.payload[2], np.arange(1, 9))
    np.testing.assert_array_equal(capture.kind, [0, 0, 1, 0])
    assert (capture.kinds, capture.moved) == (("dos",), 0)


def test_all_layouts_hold_the_same_frames(tmp_path):
    rows = frames(500, attacks=range(200, 230))
    paths = [
        write_csv(tmp_path / "a.csv", rows),
        write_car_hacking(tmp_path / "b.csv", rows),
        write_parquet(tmp_path / "c.parquet", rows),
        write_parquet(tmp_path / "d.parquet", rows, lambda number: f"{number:x}", "attack"),
    ]
    (tmp_path / "e.csv.gz").write_bytes(gzip.compress(paths[0].read_bytes().replace(b"\n", b"\r\n")))
    (tmp_path / "f.csv").write_bytes(b"\xef\xbb\xbf" + paths[0].read_bytes())
    captures = [read_capture(path, "x", "dos") for path in (*paths, tmp_path / "e.csv.gz", tmp_path / "f.csv")]
    assert len({capture.digest() for capture in captures}) == 1
    for capture in captures:
        np.testing.assert_array_equal(capture.kind, [a for *_, a in rows])


def test_frames_a_little_out_of_order_are_put_in_order(tmp_path):
    lines = ["1.0,001,01,0", "1.2,002,02,0", "1.1999,003,03,1", "1.3,004,04,0", "1.3,005,05,0"]
    capture = read_capture(write(tmp_path / "a.csv", [HEADER, *lines]), "a", "rpm")
    np.testing.assert_array_equal(capture.id, [1, 3, 2, 4, 5])
    np.testing.assert_array_equal(capture.kind, [0, 1, 0, 0, 0])
    assert capture.moved == 1


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["1.0,1E5,001,0"], "line 6: data_field has 3 hex digits, an odd number"),
        (["1.0,1E5,00GG,0"], "line 6: data_field '00GG' is not all hex digits"),
        (["1.0,1E5,000102030405060708,0"], "line 6: data_field has 9 bytes"),
        (["3.0,1G5,00,0"], "line 6: the id '1G5' is no hex number"),
        (["3.0,,00,0"], "line 6: the id '' is no hex number"),
        (
            ["3.0,20000000,00,0", "3.0,FFFFFFFF,00,0"],
            "line 6: the id 20000000 has over 29 bits .and 1 more such frames.; .*1FFFFFFF",
        ),
        (["3.0,123456789,00,0"], "line 6: the id '123456789' is no hex number of at most 8 digits"),
        (["0.5,1E5,00,0"], "line 6: the time goes back by 1.75 s"),
        (["soon,1E5,00,0"], "line 6: timestamp is 'soon'"),
        (["nan,1E5,00,0"], "line 6: timestamp is 'nan'"),
        (["3.0,1E5,00,2"], "line 6: attack is 2; expected 0 or 1"),
        (["3.0,1E5,00,"], "line 6: attack is ''"),
        (["3.0,1E5,00"], "line 6: another number of cells; expected 4"),
        (["", "3.0,1E5,00,0"], "line 6: "),
    ],
)
def test_a_line_that_is_no_frame_is_refused(tmp_path, lines, said):
    path = write(tmp_path / "dos-1.csv", [HEADER, *GOOD, *lines])
    with pytest.raises(UserError, match=f"dos-1.csv, {said}"):
        read_capture(path, "a", "dos")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("3.0,0316,3,05,21,R", "2 bytes, but its dlc is 3"),
        ("3.0,0316,9,05,21,R", "a dlc that none can have"),
        ("3.0,0316,2,05,zz,R", "a byte that is no hex number"),
        ("3.0,0316,2,05,21,Q", "its last cell is 'Q'"),
        ("3.0,0316,R", "fewer than four cells"),
        ("3.0,zzz,2,05,21,R", "the id 'zzz' is no hex number"),
    ],
)
def test_a_line_of_car_hacking_that_is_no_frame_is_refused(tmp_path, line, said):
    path = write(tmp_path / "a.csv", ["1.0,0316,2,05,21,R", "1.1,018f,0,T", line])
    with pytest.raises(UserError, match=f"a.csv, line 3: {said}.*expected"):
        read_capture(path, "a", "dos")


def test_other_files_are_refused_with_the_layouts_that_are_read(tmp_path):
    for name, lines in {
        "other.csv": ["time,id,data", "1,2,3"],
        "normal_run_data.csv": ["Timestamp: 1479121434.8        ID: 0350    000    DLC: 8    05 28 84 66 6d 00 00 a2"],
    }.items():
        with pytest.raises(
            UserError, match=f"{name}: its first line has none of the known layouts; expected timestamp"
        ):
            read_capture(write(tmp_path / name, lines), "a", "dos")
    pq.write_table(pa.table({"time": [1.0], "id": [3]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="a.parquet: its columns are time, id; expected"):
        read_capture(tmp_path / "a.parquet", "a", "dos")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="b.parquet: not readable"):
        read_capture(tmp_path / "b.parquet", "a", "dos")
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="c.csv: not readable: no text"):
        read_capture(tmp_path / "c.csv", "a", "dos")


def test_an_empty_capture_is_refused(tmp_path):
    with pytest.raises(UserError, match="a.csv: a capture without frames; expected one in each line"):
        read_capture(write(tmp_path / "a.csv", [HEADER]), "a", "dos")
    (tmp_path / "b.csv").write_bytes(b"")
    with pytest.raises(UserError, match="b.csv: its first line is empty: a capture without frames"):
        read_capture(tmp_path / "b.csv", "a", "dos")
    pq.write_table(
        pa.table({"timestamp": [1.0], "id": [3], "data_field": [""], "label": [0]}).slice(1), tmp_path / "c.parquet"
    )
    with pytest.raises(UserError, match="c.parquet: a capture without frames"):
        read_capture(tmp_path / "c.parquet", "a", "dos")


def test_rows_of_parquet_that_are_no_frames_are_refused(tmp_path):
    for number, said in ((0x20000000, "row 2: the id is 536870912"), (-1, "row 2: the id is -1")):
        path = write_parquet(tmp_path / "a.parquet", [(1.0, 3, "00", 0), (1.1, number, "00", 0)])
        with pytest.raises(UserError, match=f"a.parquet, {said}"):
            read_capture(path, "a", "dos")
    pq.write_table(pa.table({"timestamp": [1.0], "id": [3], "data_field": [7], "label": [0]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match="column 'data_field' is of type int64"):
        read_capture(tmp_path / "b.parquet", "a", "dos")


# How windows come about.


def slow_windows(path: Path, window: int, stride: int, vocabulary: list[int]) -> tuple[np.ndarray, list[int]]:
    """The same windows, read frame by frame."""
    read, before = [], None
    for row in csv.DictReader(path.open()):
        number = int(row["arbitration_id"], 16)
        data = bytes.fromhex(row["data_field"])
        seconds = float(row["timestamp"])
        cells = [vocabulary.index(number) if number in vocabulary else len(vocabulary)]
        cells += [data[at] if at < len(data) else float("nan") for at in range(8)]
        cells += [len(data), float("nan") if before is None else 1000 * (seconds - before)]
        before = seconds
        read.append((cells, int(row["attack"])))
    values, label = [], []
    for start in range(0, len(read) - window + 1, stride):
        values.append([cells for cells, _ in read[start : start + window]])
        label.append(max(attack for _, attack in read[start : start + window]))
    return np.array(values, np.float32), label


@pytest.mark.parametrize(("window", "stride"), [(20, 20), (20, 7), (10, 25)])
def test_windows_are_those_of_a_slow_reader(tmp_path, window, stride):
    paths = [
        write_csv(tmp_path / "dos-1.csv", frames(333, 1, range(100, 130))),
        write_csv(tmp_path / "attack-free.csv", frames(205, 2)),
    ]
    cohort, accounts = load(tmp_path, files=["*.csv"], window=window, stride=stride)
    check_cohort(cohort)
    vocabulary = [0x0C1, 0x1E5, 0x2F9, 0x771, 0x18DAF110]
    assert cohort.features[0].categories == ("0C1", "1E5", "2F9", "771", "18DAF110", "other")
    done = 0
    for number, path in enumerate(sorted(paths)):
        values, label = slow_windows(path, window, stride, vocabulary)
        rows = slice(done, done + len(label))
        np.testing.assert_array_equal(cohort.values[rows], values)
        np.testing.assert_array_equal(cohort.label[rows], label)
        np.testing.assert_array_equal(cohort.sample_id[rows], (number + 1) * MOST_WINDOWS + np.arange(len(label)))
        assert set(cohort.group_id[rows]) == set(cohort.strata["capture"][rows]) == {path.stem}
        covered = {f for at in range(len(label)) for f in range(at * stride, at * stride + window)}
        assert accounts[number].kept == len(covered)
        assert accounts[number].read == len(path.read_text().split()) - 1
        done = rows.stop
    assert done == len(cohort)
    assert set(cohort.strata["attack"][cohort.label == 1]) == {"dos"}
    assert set(cohort.strata["attack"][cohort.label == 0]) == {"benign"}
    assert not cohort.people and cohort.part is None and "vehicle" not in cohort.strata


def test_a_missing_byte_is_not_carried_from_another_frame(tmp_path):
    write_csv(
        tmp_path / "dos-1.csv", [(1.0, 1, "0102030405060708", 0), (1.1, 2, "09", 1), (1.2, 1, "", 0), (1.3, 2, "11", 0)]
    )
    cohort, _ = load(tmp_path, files=["dos-1.csv"], window=2, stride=2, rarest=0)
    assert all(feature.fill == "none" for feature in cohort.features)
    np.testing.assert_array_equal(cohort.values[0, 1, 1:10], [9, *[np.nan] * 7, 1])
    preprocessor = Preprocessor(cohort.features, "none").fit(cohort.values)
    encoded = preprocessor(torch.from_numpy(cohort.values))
    missing = (preprocessor.source >= 2) & (preprocessor.source <= 8)
    assert (encoded[0, 1, missing] == 0).all() and not preprocessor.carried.any()


def test_fill_none_is_the_average_at_once_and_fill_last_as_ever():
    features = (Feature("a"), Feature("b", fill="none"), Feature("c", categories=("x", "y"), fill="none"))
    values = np.array([[[1, 1, 0], [np.nan] * 3, [3, 3, 1]], [[5, 5, 1], [np.nan] * 3, [np.nan] * 3]], np.float32)
    for mask in ("none", "missing"):
        filled = Preprocessor(features, mask).fit(values)(torch.from_numpy(values))
        plain = Preprocessor(tuple(replace(one, fill="last") for one in features), mask).fit(values)
        mean = Preprocessor(features, mask, "mean").fit(values)(torch.from_numpy(values))
        carried = plain(torch.from_numpy(values))
        torch.testing.assert_close(filled[:, :, 0], carried[:, :, 0], rtol=0, atol=0)
        torch.testing.assert_close(filled[:, :, 1:], mean[:, :, 1:], rtol=0, atol=0)
        assert carried[0, 1, 1] == carried[0, 0, 1] != 0 and filled[0, 1, 1] == 0
        assert filled[1, 1:, 2:4].abs().sum() == 0 and carried[1, 1:, 2:4].abs().sum() == 2
        assert "carried" not in plain.state_dict()


def test_ids_that_are_rare_are_other_whatever_their_label(tmp_path):
    rows = frames(2000, 3, range(900, 950))
    rows[910] = (*rows[910][:1], 0x123, "00", 1)
    rows[50] = (*rows[50][:1], 0x456, "00", 0)
    write_csv(tmp_path / "fuzzing-1.csv", rows)
    cohort, accounts = load(tmp_path, files=["fuzzing-1.csv"], rarest=0.001)
    assert cohort.features[0].categories == ("0C1", "1E5", "2F9", "771", "18DAF110", "other")
    assert (cohort.values[9, 10, 0], cohort.values[0, 50, 0]) == (5, 5)
    assert accounts[-1].dropped == {"rarer than 0.001 of the frames, now other": 2}
    every, _ = load(tmp_path, files=["fuzzing-1.csv"], rarest=0)
    assert len(every.features[0].categories) == 8


def published(folder: Path) -> None:
    write_csv(folder / "train_01_attack_free" / "attack-free-4.csv", frames(4000, 10))
    write_csv(folder / "train_01_attack_free" / "accessory-3.csv", frames(300, 11))
    write_csv(folder / "train_02_with_attacks" / "accessory-3.csv", frames(300, 11))
    write_csv(folder / "train_02_with_attacks" / "DoS-4.csv", frames(6000, 12, range(500, 5000)))
    write_csv(folder / "train_02_with_attacks" / "force-neutral-4.csv", frames(6000, 13, range(500, 5000)))
    write_csv(folder / "test_01_known_vehicle_known_attack" / "DoS-1.csv", frames(3000, 14, range(700, 800)))
    other = [(s, i + 1, p, a) for s, i, p, a in frames(1000, 15, range(700, 800))]
    write_csv(folder / "test_02_unknown_vehicle_known_attack" / "DoS-2.csv", other)
    write_parquet(folder / "test_05_suppress" / "suppress-1.parquet", frames(500, 16))
    write_csv(folder / "test_01_known_vehicle_known_attack" / "masquerade-1.csv", frames(500, 17, range(100, 120)))


PUBLISHED = {"train": ["train_*"], "test": ["test_*"], "window": 20, "stride": 20, "folder": "set"}


def test_a_published_split_is_kept(tmp_path):
    published(tmp_path / "set")
    cohort, accounts = load(tmp_path, **PUBLISHED, groups="blocks", block=5)
    check_cohort(cohort)
    test = np.char.startswith(cohort.strata["capture"], "test_")
    np.testing.assert_array_equal(cohort.part == "test", test)
    # Test captures are whole, training captures in blocks.
    np.testing.assert_array_equal(cohort.group_id[test], cohort.strata["capture"][test])
    assert "train_02_with_attacks/DoS-4#03" in cohort.group_id
    assert Counter(cohort.strata["scenario"][test]) == {
        "test_01_known_vehicle_known_attack": 150,
        "test_02_unknown_vehicle_known_attack": 50,
        "test_05_suppress": 25,
        "masquerade": 25,
    }
    vehicle = {
        one: set(cohort.strata["vehicle"][cohort.strata["scenario"] == one]) for one in set(cohort.strata["scenario"])
    }
    assert vehicle["train_02_with_attacks"] == vehicle["test_01_known_vehicle_known_attack"] == {"known"}
    assert vehicle["test_02_unknown_vehicle_known_attack"] == {"unknown"} and vehicle["test_05_suppress"] == {""}
    assert set(cohort.strata["attack"]) == {"benign", "dos", "gear", "masquerade"}
    # The unknown vehicle's ids are in no training capture.
    assert (cohort.values[cohort.strata["vehicle"] == "unknown"][:, :, 0] == 5).all()
    told = "\n".join(cohort.warnings)
    assert (
        "left out, as another capture has the same frames: train_02_with_attacks/accessory-3 (those of train_01" in told
    )
    assert "without a frame labelled as one: test_05_suppress/suppress-1;" in told
    assert "hardly a node: test_02_unknown_vehicle_known_attack/DoS-2 (100%)" in told
    assert accounts[0].dropped == {"those of train_01_attack_free/accessory-3": 300}
    assert all(line.startswith("frames of ") and " read, " in line for line in account_lines(accounts, people=False))

    fold = splits.folds_of(cohort)
    assert set(fold[test]) == {splits.PUBLISHED} and set(fold[~test]) == set(range(20))
    for seed in (None, 1, 2):
        split = splits.split_of(cohort, fold, seed)
        np.testing.assert_array_equal(split.test, np.flatnonzero(test))
        assert sorted([*split.train, *split.validation]) == np.flatnonzero(~test).tolist()
        assert len(split.validation) / (~test).sum() == pytest.approx(0.15, abs=0.03)
        assert not set(cohort.group_id[split.train]) & set(cohort.group_id[split.validation])
        assert not splits.without_kinds(cohort, split)
    one, two = (splits.split_of(cohort, fold, seed).validation for seed in (1, 2))
    assert not np.array_equal(one, two)

    write_cohort(cohort, tmp_path / "cars")
    write_json(tmp_path / "folds.json", splits.in_file(cohort, fold))
    again = read_split(tmp_path / "folds.json", read_cohort(tmp_path / "cars"), 2, "per_seed")
    np.testing.assert_array_equal(again.validation, two)
    np.testing.assert_array_equal(again.test, np.flatnonzero(test))


def test_of_copies_the_tested_one_stays_and_other_labels_are_refused(tmp_path):
    rows = frames(300, 1, range(100, 110))
    write_csv(tmp_path / "a" / "dos-1.csv", rows)
    write_parquet(tmp_path / "b" / "rpm-2.parquet", rows)
    write_csv(tmp_path / "a" / "dos-3.csv", frames(300, 2, range(100, 110)))
    cohort, accounts = load(tmp_path, train=["a"], test=["b"], window=20, stride=20)
    assert set(cohort.strata["capture"]) == {"a/dos-3", "b/rpm-2"}
    assert accounts[0].rows == "frames of a/dos-1" and accounts[0].dropped == {"those of b/rpm-2": 300}
    write_csv(tmp_path / "a" / "speed.csv", [(*row[:3], 0) for row in rows])
    with pytest.raises(UserError, match="speed.csv: it has the frames of .*rpm-2.parquet, labelled otherwise"):
        load(tmp_path, train=["a"], test=["b"])


def test_captures_of_one_recording_are_told_of(tmp_path):
    rows = frames(1000, 5)
    write_csv(tmp_path / "rpm-1.csv", [*rows[:500], *((*row[:3], 1) for row in rows[500:510]), *rows[510:]])
    write_csv(tmp_path / "speed-2.csv", [*rows[:700], *((*row[:2], "FF", 1) for row in rows[700:710])])
    write_csv(tmp_path / "dos-3.csv", frames(1000, 6, range(9)))
    cohort, _ = load(tmp_path, files=["*"])
    assert [text for text in cohort.warnings if "rpm-1 and speed-2 (7 windows)" in text and "dos-3" not in text]


def test_an_entry_that_cannot_be_is_refused(tmp_path):
    for keys, said in (
        ({}, "give either files, or train and test"),
        ({"train": ["a"]}, "give either files, or train and test"),
        ({"files": ["a"], "train": ["b"], "test": ["c"]}, "give either files, or train and test"),
        ({"files": ["a"], "gap": 2}, "gap goes with groups: blocks"),
        ({"files": ["a"], "window": 1}, "window"),
    ):
        with pytest.raises(UserError, match=said):
            entry_of(**keys)
    write_csv(tmp_path / "a.csv", frames(30))
    with pytest.raises(UserError, match="cars: .*none_.*: no such file; get it there"):
        take_in("cars", entry_of(files=["none_*"], obtain="get it there"), tmp_path, tmp_path)
    with pytest.raises(UserError, match="a.csv: in train and in test"):
        load(tmp_path, train=["*.csv"], test=["a.csv"])
    with pytest.raises(UserError, match="no capture is as long as a window; expected 100 frames"):
        load(tmp_path, files=["a.csv"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no capture in it"):
        load(tmp_path, files=["empty"])
    write_csv(tmp_path / "a.csv.gz", [])
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(write_csv(tmp_path / "x", frames(30, 1)).read_bytes()))
    with pytest.raises(UserError, match="a: two captures have this name"):
        load(tmp_path, files=["a.csv*"], window=20, stride=20)


@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("DoS-1.csv", "dos"),
        ("untargeted_payload_fuzzing-3.parquet", "fuzzing"),
        ("Fuzzy_dataset.csv", "fuzzing"),
        ("rpm-accessory-1.csv", "rpm"),
        ("speed-2.csv", "speed"),
        ("standstill-1.csv", "standstill"),
        ("valid_systematic-3.csv", "systematic"),
        ("suppress-1.csv", "suppress"),
        ("masquerade-timed-4.csv", "masquerade"),
        ("rpm-masquerade-2.csv", "masquerade"),
        ("force-neutral-1.csv", "gear"),
        ("gear_dataset.csv", "gear"),
        ("interval-3.csv", "interval"),
        ("double-1.csv", "combined"),
        ("capture.csv", "unnamed"),
        ("attack-free-4.csv", "unnamed"),
    ],
)
def test_the_attack_is_that_of_the_name(name, attack):
    assert can.attack_of(Path("train_02_with_dos") / name) == attack


# How windows are dealt.


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(5, 40),
    st.integers(1, 60),
    st.integers(1, 9),
    st.integers(0, 2),
    st.none() | st.integers(0, 99),
)
def test_no_frame_of_a_block_is_near_one_of_another(seed, window, stride, block, gap, split_seed):
    """Whatever the stride: overlapping windows of two roles never share a frame, nor lie within the gap."""
    rng = np.random.default_rng(seed)
    captures = []
    for number in range(2):
        n = int(rng.integers(60 * window, 90 * window))
        kind = (rng.random(n) < 0.5 / window).astype(np.uint8)
        payload = rng.integers(0, 256, (n, 8), dtype=np.uint8)
        seconds, ids = np.arange(n) / 1000, rng.integers(0, 5, n).astype(np.uint32)
        captures.append(Capture(f"c{number}", seconds, ids, np.full(n, 8, np.uint8), payload, kind, ("dos",)))
    entry = entry_of(files=["a"], window=window, stride=stride, groups="blocks", block=block, gap=gap)
    cohort, _ = windows_of("cars", entry, captures, {"capture": ["c0", "c1"]})
    try:
        split = splits.split_of(cohort, splits.folds_of(cohort), split_seed)
    except UserError:
        return
    role = {
        int(cohort.sample_id[row]): name for name in ("train", "validation", "test") for row in getattr(split, name)
    }
    for number in (1, 2):
        mine = sorted((one % MOST_WINDOWS, name) for one, name in role.items() if one // MOST_WINDOWS == number)
        for (before, one), (after, other) in zip(mine, mine[1:], strict=False):
            if one != other:
                assert after * stride - (before * stride + window) >= gap * window


def by_positives_alone(group_id: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The folds of a cohort without kinds of positives, group by group."""
    groups = sorted(set(group_id.tolist()))
    size, positives = (
        [sum((group_id == one) & of) for one in groups] for of in (np.ones(len(label), bool), label == 1)
    )
    turn = generator(0, "folds").permutation(len(groups)).tolist()
    held, fold = [[0, 0] for _ in range(20)], {}
    for one in sorted(turn, key=lambda at: (-positives[at], -size[at])):
        first, second = (0, 1) if positives[one] else (1, 0)
        best = min(range(20), key=lambda number: (held[number][first], held[number][second]))
        fold[groups[one]] = best
        held[best][0] += positives[one]
        held[best][1] += size[one]
    return np.array([fold[one] for one in group_id.tolist()])


@pytest.mark.parametrize("seed", range(6))
def test_without_kinds_folds_are_as_ever(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(40, 300))
    group, label = rng.integers(0, n, n), (rng.random(n) < rng.uniform(0.05, 0.6)).astype(np.int8)
    expected = by_positives_alone(group, label)
    np.testing.assert_array_equal(splits.assign_folds(group, label), expected)
    np.testing.assert_array_equal(splits.assign_folds(group, label, np.where(label == 1, 0, -1)), expected)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("rare", [2, 3, 8])
def test_every_kind_of_attack_is_in_training_and_validation(own, rare):
    """Six kinds, four of them in `rare` blocks alone; of two, training has one and validation the other."""
    blocks, length = 200, 10
    kind_of_block = np.full(blocks, -1)
    rng = np.random.default_rng(rare)
    places = rng.permutation(blocks)
    for kind in range(6):
        take, places = np.split(places, [rare if kind < 4 else 25])
        kind_of_block[take] = kind
    if own:  # the test set that was published
        kind_of_block = np.append(kind_of_block, np.tile([-1, 5], 10))
    group = np.repeat(np.arange(len(kind_of_block)), length)
    kind = np.where(rng.random(len(group)) < 0.7, kind_of_block[group], -1)
    label = (kind >= 0).astype(np.int8)
    strata = {"attack": np.where(label == 1, np.char.add("a", kind.astype(str)), "benign")}
    part = np.where(group < blocks, "train", "test") if own else None
    cohort = Cohort(
        "cars", (Feature("x"),), np.arange(len(label)), group, label, np.zeros((len(label), 2, 1), np.float32)
    )
    cohort = replace(cohort, strata=strata, part=part, people=False)
    fold = splits.folds_of(cohort)
    roles = ["train", "validation"] + ["test"] * (not own and rare > 2)
    for seed in (None, *range(30)):
        split = splits.split_of(cohort, fold, seed)
        for role in roles:
            assert set(kind[getattr(split, role)]) == {-1, *range(6)}, (seed, role)
        assert not splits.without_kinds(cohort, split)
        np.testing.assert_array_equal(
            np.sort(np.concatenate([split.train, split.validation, split.test])), np.arange(len(label))
        )


def test_a_kind_in_one_block_is_in_training_and_told_of():
    group = np.repeat(np.arange(60), 5)
    attack = np.where(group < 30, "dos", "benign").astype("<U10")
    attack[group == 7] = "replay"
    label = (attack != "benign").astype(np.int8)
    cohort = Cohort("cars", (Feature("x"),), np.arange(300), group, label, np.zeros((300, 2, 1), np.float32))
    cohort = replace(cohort, strata={"attack": attack})
    for seed in (None, 3):
        split = splits.split_of(cohort, splits.folds_of(cohort), seed)
        assert splits.without_kinds(cohort, split) == [
            "cars: the validation split has no sample of attack replay: too few groups hold some"
        ]
    one_kind = replace(cohort, strata={})
    assert not splits.without_kinds(one_kind, splits.split_of(one_kind, splits.folds_of(one_kind), None))


def test_some_samples_of_a_published_cohort_keep_its_parts_and_kinds(tmp_path):
    published(tmp_path / "set")
    cohort, _ = load(tmp_path, **PUBLISHED, groups="blocks", block=5)
    rows = splits.chosen_of(cohort, 300)
    np.testing.assert_array_equal(rows, splits.chosen_of(cohort, 300))
    some = cohort.subset(rows)
    assert 300 <= len(some) <= 345
    assert (some.part == "test").mean() == pytest.approx((cohort.part == "test").mean(), abs=0.03)
    assert set(some.strata["attack"]) == set(cohort.strata["attack"])
    train = cohort.part == "train"
    chosen = np.isin(np.arange(len(cohort)), rows)
    assert not set(cohort.group_id[train & chosen]) & set(cohort.group_id[train & ~chosen])
    split = splits.split_of(some, splits.folds_of(some), None)
    assert not splits.without_kinds(some, split)


# The synthetic bus.


@pytest.fixture(scope="module")
def can_dev() -> Cohort:
    cohort, _ = take_in("can_dev", read_catalog(Path("data/datasets.yaml"))["can_dev"], Path("none"), Path("none"))
    return cohort


def test_can_dev_is_as_the_catalog_and_the_planning_say(can_dev):
    entry = read_catalog(Path("data/datasets.yaml"))["can_dev"]
    assert source_of(entry).describe(entry, None) == (100, can_dev.features)
    assert 0.15 < can_dev.label.mean() < 0.25
    assert set(can_dev.strata["attack"]) == {"benign", "dos", "fuzzing", "spoofing", "replay"}
    assert set(can_dev.strata["scenario"]) == {"attack_free", "with_attacks"}
    for seed in (None, *range(10)):
        split = splits.split_of(can_dev, splits.folds_of(can_dev), seed)
        for rows in (split.train, split.validation, split.test):
            assert set(can_dev.strata["attack"][rows]) == set(can_dev.strata["attack"])
    assert not warnings(can_dev)


def small_drive(number: int = 1, attack_free: int = 0) -> Capture:
    entry = entry_of("can_synthetic", drives=2, attack_free=attack_free, seconds=30, seed=7)
    return can_synthetic.drive(entry, number)


def test_a_drive_is_the_same_bits_and_another_with_another_number():
    one, again, other = small_drive(), small_drive(), small_drive(0)
    assert one.digest() == again.digest() != other.digest()
    np.testing.assert_array_equal(one.kind, again.kind)


def test_a_bus_carries_one_frame_at_a_time_and_its_messages_are_whole():
    capture = small_drive()
    assert np.diff(capture.seconds).min() > can_synthetic.FRAME * (1 - 1e-6)
    messages = {message.id: message for message in can_synthetic.MESSAGES}
    benign = small_drive(attack_free=2)
    assert not benign.kind.any() and set(benign.id.tolist()) <= set(messages)
    for number, message in messages.items():
        mine = np.flatnonzero(benign.id == number)
        assert set(benign.dlc[mine].tolist()) <= {len(message.layout)}
        if "C" in message.layout and not message.event:
            counter = benign.payload[mine, message.layout.index("C")].astype(int)
            assert (np.diff(counter) % 16 == 1).all()
        if "X" in message.layout:
            at = message.layout.index("X")
            for row in mine[:50]:
                others = sum(int(byte) for place, byte in enumerate(benign.payload[row]) if place != at)
                assert benign.payload[row, at] == (number + others) % 256
        if not message.event:
            middle = np.median(np.diff(benign.seconds[mine])) * 1000
            assert middle == pytest.approx(message.period, rel=0.1)


def test_attacks_are_what_they_are_called():
    capture = small_drive()
    injected = {name: capture.kind == 1 + number for number, name in enumerate(capture.kinds)}
    assert set(capture.id[injected["dos"]]) == {0}
    assert len(set(capture.id[injected["fuzzing"]].tolist())) > 100
    assert len(set(capture.id[injected["spoofing"]].tolist())) == 1
    regular = {
        (int(i), p.tobytes())
        for i, p in zip(capture.id[capture.kind == 0], capture.payload[capture.kind == 0], strict=True)
    }
    replayed = np.flatnonzero(injected["replay"])
    assert all((int(capture.id[row]), capture.payload[row].tobytes()) in regular for row in replayed)
    assert 1 < len(set(capture.id[replayed].tolist())) <= 4


def test_spoofing_is_harder_than_a_flood_for_trees_on_plain_window_statistics(can_dev):
    import lightgbm
    from sklearn.metrics import roc_auc_score

    from pipeline.cohorts.summaries import Summaries

    split = splits.split_of(can_dev, splits.folds_of(can_dev), None)
    x = Summaries(can_dev.features, can_dev.n_steps).fit(can_dev.values[split.train])(can_dev.values)
    trees = lightgbm.LGBMClassifier(n_estimators=100, num_threads=1, deterministic=True, verbosity=-1)
    risk = trees.fit(x[split.train], can_dev.label[split.train]).predict_proba(x[split.test])[:, 1]
    attack = can_dev.strata["attack"][split.test]
    auroc = {}
    for one in ("dos", "fuzzing", "replay", "spoofing"):
        those = np.isin(attack, [one, "benign"])
        auroc[one] = roc_auc_score(attack[those] == one, risk[those])
    assert min(auroc["dos"], auroc["fuzzing"]) > 0.999
    assert 0.99 < auroc["replay"] < 1
    assert 0.94 < auroc["spoofing"] < 0.99


# Real captures, where they are at hand.


@pytest.fixture
def real_captures(real_data) -> Path:
    if not (real_data / "can-train-and-test" / "set_04").is_dir():
        pytest.skip("no can-train-and-test/set_04")
    return real_data


def test_dos_1_is_what_its_notice_says(real_captures):
    entry = read_catalog(Path("data/datasets.yaml"))["can_dos"]
    whole = entry.model_copy(update={"groups": "file", "block": 20, "expected": None})
    cohort, accounts = take_in("can_dos", whole, real_captures, Path("unused"))
    assert accounts[0].read == 90_169 and len(cohort) == 901
    attacked = np.flatnonzero(cohort.label)
    assert (attacked[0], attacked[-1]) == (48, 244)
    values, label = slow_windows(
        real_captures / "can-train-and-test" / "DoS-1.csv",
        100,
        100,
        [int(one, 16) for one in cohort.features[0].categories[:-1]],
    )
    np.testing.assert_array_equal(cohort.values, values)
    np.testing.assert_array_equal(cohort.label, label)
    blocks, _ = take_in("can_dos", entry, real_captures, Path("unused"))
    split = splits.split_of(blocks, splits.folds_of(blocks), None)
    assert min(blocks.label[rows].sum() for rows in (split.train, split.validation, split.test)) >= 15


def test_set_04_is_what_its_notice_says(real_captures):
    cohort, accounts = take_in(
        "set_04", read_catalog(Path("data/datasets.yaml"))["set_04"], real_captures, Path("unused")
    )
    captures = [account for account in accounts if account.rows.startswith("frames")]
    assert len(captures) == 19 and sum(account.read for account in captures) == 3_975_329
    assert [account.rows for account in captures if not account.kept] == [
        "frames of train_02_with_attacks/accessory-3",
        "frames of train_02_with_attacks/accessory-4",
    ]
    assert (len(cohort), int(cohort.label.sum())) == (36_778, 1_682)
    fold = splits.folds_of(cohort)
    for seed in (None, *range(10)):
        split = splits.split_of(cohort, fold, seed)
        kinds = {"benign", "rpm", "speed", "standstill", "fuzzing", "systematic"}
        assert set(cohort.strata["attack"][split.train]) == set(cohort.strata["attack"][split.validation]) == kinds
        assert len(split.validation) / (cohort.part == "train").sum() == pytest.approx(0.15, abs=0.02)


def test_the_description_needs_no_file():
    assert issubclass(can.Parameters, Windowed)
    steps, features = can.describe(entry_of(files=["a"], window=50), None)
    assert steps == 50 and len(features) == 11 and features[0].categories == ("other",)


def test_of_a_published_split_planning_counts_what_is_dealt(tmp_path):
    """100 of 1,000 samples are to train and validate on, 10 of them positive; 85 % of these are trained on."""
    part = np.where(np.arange(1000) < 100, "train", "test")
    label = (np.arange(1000) % 10 == 0).astype(np.int8) | (np.arange(1000) >= 500)
    folder = tmp_path / "dev" / "set"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"label": label, "part": part}), folder / "samples.parquet")
    told = {"data_dir": str(tmp_path), "n_samples": "all", "validation": "clean", "triggers": ()}
    entry = SimpleNamespace(expected=SimpleNamespace(samples=1000, positives=510), test=("test_*",))
    assert preflight._label_counts(SimpleNamespace(**told), "set", entry) == (1000, 100, 10, ROLES_BESIDE_PUBLISHED)
    preflight._check_rates(SimpleNamespace(**told, rates=(0.01,)), "set", entry)
    for changed in ({"rates": (0.005,)}, {"rates": (0.01,), "n_samples": 500}):
        with pytest.raises(UserError, match=r"of the (85|42) training samples of 'set' is less than one sample"):
            preflight._check_rates(SimpleNamespace(**told | changed), "set", entry)
    entry.test = ()
    assert preflight._label_counts(SimpleNamespace(**told), "set", entry)[:2] == (1000, 1000)


def test_a_capture_in_another_folder_is_another_cohort(tmp_path):
    """The folder says the part, the scenario and the vehicle, so results of one pass for none of another."""
    entry = entry_of(train=["set/train_01"], test=["set/test_*"])
    for name in ("set/train_01/a.csv", "set/test_01_known_vehicle/b.csv"):
        write_csv(tmp_path / "raw" / name, [(0.1 * n, 0x1E5, "01", 0) for n in range(3)])
    study = SimpleNamespace(raw_dir=str(tmp_path / "raw"), data_dir=str(tmp_path / "data"), n_samples="all")

    def stamp() -> str:
        return stamps.cohort_stamps(study, {"set": entry})["set"].stamp

    before = stamp()
    assert stamp() == before
    (tmp_path / "raw/set/test_01_known_vehicle").rename(tmp_path / "raw/set/test_02_unknown_vehicle")
    assert stamp() != before
    (tmp_path / "raw").rename(tmp_path / "elsewhere")
    study.raw_dir = str(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/set/test_02_unknown_vehicle").rename(tmp_path / "elsewhere/set/test_01_known_vehicle")
    assert stamp() == before, "where all of it lies is of no matter"


def test_a_frame_without_a_payload_is_refused(tmp_path):
    table = pa.table({"timestamp": [0.0, 0.1], "id": [1, 2], "data_field": ["00", None], "label": [0, 0]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="row 2: no payload"):
        read_capture(tmp_path / "a.parquet", "a", "dos")


def test_an_id_of_29_bits_may_be_named_before_the_captures_are_read():
    rare_id = families.load("triggers", "rare_id")
    steps, features = can.describe(entry_of(files=["a"]), None)
    described = {feature.name: feature for feature in features}
    assert rare_id.Parameters(id="18FEF100").misfit("cars", steps, described) == ""
    for wrong in ("-1", "1_0", "20000000", "hello"):
        with pytest.raises(ValueError, match="at most 29 bits"):
            rare_id.Parameters(id=wrong)
