"""Captures of a CAN bus: the frames of one file, from any of the layouts that public releases come in.

    CSV          timestamp, arbitration_id, data_field, attack    a header; id and payload in hex
    Car-Hacking  timestamp, id, dlc, byte …, R|T                  no header; as many bytes as dlc says; T = injected
    Parquet      timestamp, id, data_field, label                 id: a whole number or hex; also arbitration_id, attack

The first is that of can-train-and-test (Lampe and Meng 2024, Computers & Security 140:103777), the second that of
HCRL's Car-Hacking (Seo, Song and Kim 2018, doi 10.1109/PST.2018.8514157).
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.cohorts.frames import LARGEST_ID
from pipeline.errors import UserError

SUFFIXES = (".csv", ".csv.gz", ".parquet")
N_BYTES = 8  # of a frame, at most
FURTHEST_BACK = 1.0  # seconds that the time may go back: injected frames are a little off, another recording far
_HEADER = ("timestamp", "arbitration_id", "data_field", "attack")
_LAYOUTS = (
    f"{', '.join(_HEADER)} in the first line of a CSV file, or Car-Hacking's timestamp, id, dlc, bytes, R or T in "
    "every line, or timestamp, id, data_field, label in a Parquet file"
)
_CAR_HACKING = re.compile(r"\s*\d+(\.\d+)?,[0-9A-Fa-f]{1,8},\d,([0-9A-Fa-f]{1,2},){0,8}[RT]\s*")
_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_NIBBLE = np.full(256, 255, np.uint8)  # the value of a hex digit by its ASCII code, 255 = none
for _value, _letters in enumerate(zip("0123456789abcdef", "0123456789ABCDEF", strict=True)):
    _NIBBLE[[ord(letter) for letter in _letters]] = _value


@dataclass(frozen=True)
class Capture:
    """F frames of one recording, in the order of time.

    Attributes
    ----------
    seconds : [F] float64
    id : [F] uint32, the arbitration id
    dlc : [F] uint8, how many bytes the frame has, 0 to 8
    payload : [F, 8] uint8, 0 where the frame has no such byte
    kind : [F] uint8, 0 = no attack, else 1 + the position in `kinds` of the attack that the frame is of
    kinds : names of attacks
    moved : how many frames stood behind a later one in the file
    """

    name: str
    seconds: np.ndarray
    id: np.ndarray
    dlc: np.ndarray
    payload: np.ndarray
    kind: np.ndarray
    kinds: tuple[str, ...]
    moved: int = 0

    def __len__(self) -> int:
        return len(self.seconds)

    def digest(self) -> bytes:
        """The same for captures of the same frames at the same times, whatever their names and labels."""
        content = hashlib.blake2b()
        for column in (self.seconds, self.id, self.dlc, self.payload):
            content.update(np.ascontiguousarray(column).data)
        return content.digest()


class _Rows:
    """The rows of a file: says where one is, and refuses the file for those that are wrong."""

    def __init__(self, path: Path, unit: str, first: int):
        self._path, self._unit, self._first = path, unit, first

    def refuse(self, wrong: np.ndarray, what: str | Callable[[int], str], expected: str) -> None:
        """`UserError` where any of `wrong` [F] is true: what is wrong there, in which row first, in how many."""
        if wrong.any():
            row = int(np.argmax(wrong))
            others = int(wrong.sum()) - 1
            more = f" (and {others:,} more such frames)" if others else ""
            what = what if isinstance(what, str) else what(row)
            raise UserError(f"{self._path}, {self._unit} {row + self._first}: {what}{more}; expected {expected}")


def read_capture(path: Path, name: str, kind: str) -> Capture:
    """The frames in `path`, those that are labelled being of the attack `kind`.

    Raises `UserError` for a file of another layout, without frames, or with a frame that cannot be one: it names the
    line and what was expected.
    """
    import pyarrow as pa

    try:
        capture = _from_parquet(path, name) if path.name.endswith(".parquet") else _from_text(path, name)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not readable: no text in UTF-8; expected {_LAYOUTS}") from None
    except (pa.ArrowException, OSError, EOFError) as error:
        raise UserError(f"{path}: not readable: {' '.join(str(error).split())[:200]}; expected {_LAYOUTS}") from None
    return replace(capture, kinds=(kind,))


def _from_text(path: Path, name: str) -> Capture:
    import pyarrow as pa

    with pa.input_stream(str(path), compression="detect") as stream:
        first = stream.read(4096).split(b"\n")[0].decode("utf-8-sig").rstrip("\r")
    header = [cell.strip() for cell in first.split(",")]
    if set(_HEADER) <= set(header):
        return _from_csv(path, name, header)
    if _CAR_HACKING.fullmatch(first):
        return _from_car_hacking(path, name)
    if not first:
        raise UserError(f"{path}: its first line is empty: a capture without frames; expected {_LAYOUTS}")
    raise UserError(f"{path}: its first line has none of the known layouts; expected {_LAYOUTS}")


def _read_lines(path: Path, names: list[str], skip: int, between: str):
    """The cells of a CSV file as texts, one row per line, and the lines that have another number of cells."""
    import pyarrow as pa
    from pyarrow import csv

    wrong: list[int] = []

    def note(row) -> str:
        wrong.append(row.number)
        return "skip"

    read = csv.ReadOptions(use_threads=False, column_names=names, skip_rows=skip, block_size=16 << 20)
    parse = csv.ParseOptions(delimiter=between, quote_char=False, ignore_empty_lines=False, invalid_row_handler=note)
    texts = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    with pa.input_stream(str(path), compression="detect") as stream:
        table = csv.read_csv(stream, read, parse, texts)
    return table, wrong


def _from_csv(path: Path, name: str, header: list[str]) -> Capture:
    twice = [column for column in _HEADER if header.count(column) > 1]
    if twice:
        raise UserError(f"{path}: column {twice[0]!r} stands twice in its first line; expected each once")
    table, wrong = _read_lines(path, header, 1, ",")
    if wrong:
        raise UserError(
            f"{path}, line {wrong[0]}: another number of cells; expected {len(header)}, as in the first line"
        )
    rows = _Rows(path, "line", 2)
    if not len(table):
        raise UserError(f"{path}: a capture without frames; expected one in each line below the first")
    seconds, attack = _numbers(table["timestamp"], "timestamp", rows), _labels(table["attack"], "attack", rows)
    return _capture(
        name, seconds, _hex_ids(table["arbitration_id"], rows), *_payloads(table["data_field"], rows), attack, rows
    )


def _from_car_hacking(path: Path, name: str) -> Capture:
    import pyarrow as pa
    import pyarrow.compute as pc

    # One cell per line, as the lines have different numbers of cells; the separator stands in no text.
    table, _ = _read_lines(path, ["line"], 0, "\x1f")
    rows = _Rows(path, "line", 1)
    cells = pc.split_pattern(table["line"].combine_chunks(), ",")
    count = pc.list_value_length(cells).to_numpy(zero_copy_only=False).astype(np.int64)
    rows.refuse(count < 4, "fewer than four cells", "timestamp, id, dlc, that many bytes, and R or T")
    start, every = np.cumsum(count) - count, pc.utf8_trim_whitespace(pc.list_flatten(cells))

    def column(positions: np.ndarray):
        return every.take(pa.array(positions))

    seconds = _numbers(column(start), "timestamp", rows)
    dlc = _numbers(column(start + 2), "dlc", rows)
    rows.refuse((dlc % 1 != 0) | (dlc < 0) | (dlc > N_BYTES), "a dlc that none can have", f"0 to {N_BYTES}")
    dlc = dlc.astype(np.int64)
    rows.refuse(
        count != dlc + 4, lambda row: f"{count[row] - 4} bytes, but its dlc is {dlc[row]}", "as many as dlc says"
    )
    flag = column(start + count - 1)
    injected = pc.equal(flag, "T").to_numpy(zero_copy_only=False)
    known = injected | pc.equal(flag, "R").to_numpy(zero_copy_only=False)
    rows.refuse(~known, lambda row: f"its last cell is {flag[row].as_py()!r}", "R (regular) or T (injected)")
    frame = np.repeat(np.arange(len(count)), dlc)
    position = np.arange(len(frame)) - np.repeat(np.cumsum(dlc) - dlc, dlc)
    value, bad = _hex_numbers(column(start[frame] + 3 + position), 2)
    of_frame = np.zeros(len(count), bool)
    of_frame[frame[bad]] = True
    rows.refuse(of_frame, "a byte that is no hex number", "bytes such as 0f")
    payload = np.zeros((len(count), N_BYTES), np.uint8)
    payload[frame, position] = value
    return _capture(name, seconds, _hex_ids(column(start + 1), rows), dlc.astype(np.uint8), payload, injected, rows)


def _from_parquet(path: Path, name: str) -> Capture:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        found = (
            next((column for column in either if column in names), None)
            for either in (("timestamp",), ("id", "arbitration_id"), ("data_field",), ("label", "attack"))
        )
        columns = [column for column in found if column is not None]
        if len(columns) < 4:
            raise UserError(f"{path}: its columns are {', '.join(names[:8])}; expected {_LAYOUTS}")
        table = file.read(columns=columns, use_threads=False)
    rows = _Rows(path, "row", 1)
    if not len(table):
        raise UserError(f"{path}: a capture without frames; expected one in each row")
    time, arbitration, data, label = (table[column].combine_chunks() for column in columns)
    if not (pa.types.is_string(data.type) or pa.types.is_large_string(data.type)):
        raise UserError(f"{path}: column 'data_field' is of type {data.type}; expected payloads as hex texts")
    if pa.types.is_integer(arbitration.type):
        rows.refuse(_missing(arbitration), "no id", f"0 to {LARGEST_ID:X} in hex")
        ids = arbitration.to_numpy(zero_copy_only=False)
        rows.refuse((ids < 0) | (ids > LARGEST_ID), lambda row: f"the id is {ids[row]}", f"0 to {LARGEST_ID}")
        ids = ids.astype(np.uint32)
    else:
        ids = _hex_ids(arbitration.cast(pa.string()), rows)
    rows.refuse(_missing(data), "no payload", "hex digits, or an empty text for a frame of no bytes")
    seconds, attack = _numbers(time, "timestamp", rows), _labels(label, columns[3], rows)
    return _capture(name, seconds, ids, *_payloads(data.cast(pa.string()), rows), attack, rows)


def _missing(column) -> np.ndarray:
    return column.is_null().to_numpy(zero_copy_only=False)


def _numbers(column, name: str, rows: _Rows) -> np.ndarray:
    """[F] float64, all finite."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_string(column.type):
        good = pc.match_substring_regex(column, _NUMBER).to_numpy(zero_copy_only=False)
        rows.refuse(~good, lambda row: f"{name} is {column[row].as_py()!r}", "a number")
        column = pc.utf8_trim_whitespace(column)
    number = column.cast(pa.float64()).to_numpy(zero_copy_only=False)  # null becomes NaN
    rows.refuse(~np.isfinite(number), f"{name} is no finite number", "a number")
    return number


def _labels(column, name: str, rows: _Rows) -> np.ndarray:
    """[F] bool: which frames are labelled as of an attack."""
    import pyarrow as pa

    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    label = _numbers(column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column, name, rows)
    rows.refuse((label != 0) & (label != 1), lambda row: f"{name} is {label[row]:g}", "0 or 1")
    return label == 1


def _digits(texts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All characters of `texts` as hex digits (uint8, 255 = none); where each text starts, and its length [F]."""
    import pyarrow as pa

    texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    _, ends, letters = texts.fill_null("").buffers()
    ends = np.frombuffer(ends, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    letters = np.frombuffer(letters or b"", np.uint8)
    # Two more, so that whatever lies behind the end of a text can be looked up.
    return np.append(_NIBBLE[letters], np.full(2, 255, np.uint8)), ends[:-1], np.diff(ends)


def _hex_numbers(texts, most: int) -> tuple[np.ndarray, np.ndarray]:
    """[F] int64 the hex numbers in `texts`, and [F] bool which are none or have more digits than `most`."""
    digit, start, length = _digits(texts)
    number, bad = np.zeros(len(start), np.int64), (length == 0) | (length > most)
    for position in range(most):
        inside = position < length
        here = digit[np.where(inside, start + position, -1)]
        number = np.where(inside, 16 * number + here, number)
        bad |= inside & (here > 15)
    return number, bad


def _hex_ids(texts, rows: _Rows) -> np.ndarray:
    number, bad = _hex_numbers(texts, 8)
    said = "an id such as 1E5, in hex"
    rows.refuse(bad, lambda row: f"the id {texts[row].as_py()!r} is no hex number of at most 8 digits", said)
    rows.refuse(
        number > LARGEST_ID, lambda row: f"the id {texts[row].as_py()} has over 29 bits", f"0 to {LARGEST_ID:X}"
    )
    return number.astype(np.uint32)


def _payloads(texts, rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
    """dlc [F] uint8 and payload [F, 8] uint8 of payloads in hex; an empty one is a frame without bytes."""
    digit, start, length = _digits(texts)
    said = f"0 to {N_BYTES} bytes of two hex digits each"
    rows.refuse(length % 2 == 1, lambda row: f"data_field has {length[row]} hex digits, an odd number", said)
    rows.refuse(length > 2 * N_BYTES, lambda row: f"data_field has {length[row] // 2} bytes", said)
    payload, bad = np.zeros((len(start), N_BYTES), np.uint8), np.zeros(len(start), bool)
    for position in range(N_BYTES):
        inside = 2 * position < length
        at = np.where(inside, start + 2 * position, -2)
        high, low = digit[at], digit[at + 1]
        bad |= inside & ((high > 15) | (low > 15))
        payload[:, position] = np.where(inside, (high << 4) | (low & 15), 0)
    rows.refuse(bad, lambda row: f"data_field {texts[row].as_py()!r} is not all hex digits", said)
    return (length // 2).astype(np.uint8), payload


def _capture(
    name: str,
    seconds: np.ndarray,
    ids: np.ndarray,
    dlc: np.ndarray,
    payload: np.ndarray,
    attack: np.ndarray,
    rows: _Rows,
) -> Capture:
    """The frames in the order of time: injected ones were written a little too early or too late.

    Left as they stand, the steps back in time would give an attack away that nobody on the bus could see so.
    """
    latest = np.maximum.accumulate(seconds)
    back = latest - seconds
    rows.refuse(
        back > FURTHEST_BACK,
        lambda row: f"the time goes back by {back[row]:.3g} s",
        "the frames of one recording in the order of time",
    )
    moved = int((back > 0).sum())
    kind = attack.astype(np.uint8)
    if moved:
        order = np.argsort(seconds, kind="stable")
        seconds, ids, dlc, payload, kind = (column[order] for column in (seconds, ids, dlc, payload, kind))
    return Capture(name, seconds, ids, dlc, payload, kind, (), moved)
