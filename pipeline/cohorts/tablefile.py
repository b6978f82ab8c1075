"""The wanted columns of a CSV or Parquet file, every cell as the text that stands in it."""

import csv
import gzip
import re
import unicodedata
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.smallcells import shown_of
from pipeline.words import counted

_SEPARATORS = ",;\t|"
_GZIP = b"\x1f\x8b"
# What a file that is no text begins with.
_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; expected it unpacked, or saved as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; expected it saved as CSV",
    b"PAR1": "a Parquet file; expected a name that ends in .parquet",
}
_AT_ONCE = 10_000  # rows


@dataclass(frozen=True)
class Cells:
    """One column: `texts`, each different text once, and `code` [N] int64, which of them a row holds (−1: none)."""

    texts: list[str]
    code: np.ndarray

    def of_each(self, judge: Callable[[str], bool]) -> np.ndarray:
        """[N] bool: what `judge` says of each row's text; False where there is none."""
        return np.array([*map(judge, self.texts), False], bool)[self.code]

    def without(self, texts: Iterable[str]) -> "Cells":
        """The same column with no text where one of `texts` stood."""
        return Cells(self.texts, np.where(self.of_each(set(texts).__contains__), -1, self.code))

    def rewritten(self, rewrite: Callable[[str], str]) -> "Cells":
        """The same column with `rewrite` of each text."""
        codes = _Codes()
        new = np.array([*(codes[rewrite(text)] for text in self.texts), -1], np.int64)
        return Cells(list(codes), new[self.code])

    def subset(self, rows: np.ndarray) -> "Cells":
        """The column of `rows` ([N] bool), and no other texts than theirs."""
        used = np.unique(self.code[rows & (self.code >= 0)])
        new = np.full(len(self.texts) + 1, -1, np.int64)
        new[used] = np.arange(len(used))
        return Cells([self.texts[code] for code in used], new[self.code[rows]])

    def counts(self, rows: np.ndarray) -> dict[str, int]:
        """How often each text stands in `rows` ([N] bool), the most frequent first; texts that do not are left out."""
        numbers = np.bincount(self.code[rows & (self.code >= 0)], minlength=len(self.texts))
        return {self.texts[code]: int(numbers[code]) for code in np.argsort(-numbers, kind="stable") if numbers[code]}


@dataclass(frozen=True)
class Texts:
    """The wanted columns of a file.

    Attributes
    ----------
    cells : the columns by name
    at : [N] int64, where each row begins: in a CSV file the line as an editor counts (1 is the header), else the row
    place : what `at` counts, "line" or "row"
    over_lines : [N] bool, which rows of a CSV file go over several lines, whatever the column that does it
    """

    cells: dict[str, Cells]
    at: np.ndarray
    place: str
    over_lines: np.ndarray

    def __len__(self) -> int:
        return len(self.at)

    def subset(self, rows: np.ndarray) -> "Texts":
        cells = {name: cells.subset(rows) for name, cells in self.cells.items()}
        return Texts(cells, self.at[rows], self.place, self.over_lines[rows])


class _Codes(dict):
    """Texts to numbers: a new text gets the next one."""

    def __missing__(self, text: str) -> int:
        code = self[text] = len(self)
        return code


def read_texts(path: Path, entry, wanted: list[str]) -> Texts:
    """Read the `wanted` columns; `entry` is a catalog entry of the source `table`.

    Raises `UserError` when the file cannot be read, a column is missing or stands twice, a row has more or fewer cells
    than the header, or there is no row.
    """
    import pyarrow as pa

    try:
        if not path.is_file():
            raise UserError(f"{path}: {_not_a_file(path)}; {entry.obtain or 'expected the table of the catalog entry'}")
        texts = (_read_parquet if path.suffix == ".parquet" else _read_csv)(path, entry, wanted)
    except UnicodeError as error:
        known = "UTF-8" if entry.encoding == "utf-8" else entry.encoding
        reason = getattr(error, "reason", error)
        raise UserError(f"{path}: not {known} text ({reason}){_encoding_hint(path, entry, wanted)}") from None
    except (OSError, EOFError, ValueError, zlib.error, csv.Error, pa.ArrowException) as error:
        raise UserError(f"{path}: not readable as a table ({' '.join(str(error).split())})") from None
    if not len(texts):
        raise UserError(f"{path}: no rows; expected one per sample")
    if path.suffix != ".parquet":
        _check_encoding(path, texts, entry)
    if entry.strip:
        stripped = {name: cells.rewritten(str.strip) for name, cells in texts.cells.items()}
        return replace(texts, cells=stripped)
    return texts


def _not_a_file(path: Path) -> str:
    if path.is_dir():
        return "a folder, expected a file"
    return "a link that leads to no file" if path.is_symlink() else "no such file"


def _read_csv(path: Path, entry, wanted: list[str]) -> Texts:
    beginning = _beginning(path)
    if kind := next((kind for magic, kind in _OTHER_KINDS.items() if beginning.startswith(magic)), None):
        raise ValueError(f"it is {kind}")
    # utf-8-sig is UTF-8 with or without the mark that Excel puts in front.
    with _opened(path, "utf-8-sig" if entry.encoding == "utf-8" else entry.encoding) as file:
        reader = csv.reader(_composed(file), delimiter=entry.separator, strict=True)
        rows = _rows(reader)
        *_, header = next(rows, (1, 1, []))
        if said := re.fullmatch("sep=(.)", entry.separator.join(header)):  # a first line that Excel understands
            if said[1] != entry.separator:
                raise ValueError(f"its first line says sep={said[1]}; expected separator: {said[1]!r} in the catalog")
            *_, header = next(rows, (2, 2, []))
        if not header:
            raise ValueError("it is empty; expected a header and rows")
        header = [name.strip() for name in header] if entry.strip else header
        _check_header(path, header, wanted, entry)
        return _columns(path, rows, header, wanted)


def _opened(path: Path, encoding: str):
    """The text of a file, unpacked where it is gzipped, whatever its name."""
    packed = _beginning(path).startswith(_GZIP)
    return (gzip.open if packed else open)(path, "rt", encoding=encoding, newline="")


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def _composed(file: Iterable[str]) -> Iterator[str]:
    """Lines in which ü is one letter, also where the file has it as u and two dots."""
    return (line if line.isascii() else unicodedata.normalize("NFC", line) for line in file)


def _rows(reader) -> Iterator[tuple[int, int, list[str]]]:
    """Each row that is not blank, with the lines that it begins and ends in."""
    start = 1
    try:
        for cells in reader:
            if cells:
                yield start, reader.line_num, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{error}, in the row that begins in line {start}: a quote is not closed there, or not at a cell's end"
        ) from None


def _columns(path: Path, rows: Iterator[tuple[int, int, list[str]]], header: list[str], wanted: list[str]) -> Texts:
    pick = itemgetter(*(header.index(name) for name in wanted))
    codes, code = [_Codes() for _ in wanted], [array("q") for _ in wanted]
    at, over_lines = array("q"), array("b")
    chunk: list[tuple[str, ...]] = []
    too_few: list[int] = []
    too_many: list[int] = []

    def store() -> None:
        for known, column, cells in zip(codes, code, zip(*chunk, strict=True), strict=True):
            column.extend(map(known.__getitem__, cells))
        chunk.clear()

    for line, end, cells in rows:
        if len(cells) != len(header):
            (too_few if len(cells) < len(header) else too_many).append(line)
            continue
        at.append(line)
        over_lines.append(end > line)
        chunk.append(pick(cells))
        if len(chunk) == _AT_ONCE:
            store()
    if chunk:
        store()
    total = len(at) + len(too_few) + len(too_many)
    for which, lines in (("more", too_many), ("fewer", too_few)):
        if lines:
            raise UserError(
                f"{path}: {shown_of(len(lines), total)} of {total:,} rows have {which} cells than the header has "
                f"names, first in line {lines[0]}; expected {len(header)} (is there a separator or a quote inside a "
                "text?)"
            )
    columns = {
        name: Cells(list(known), np.array(column, np.int64))
        for name, known, column in zip(wanted, codes, code, strict=True)
    }
    return Texts(columns, np.array(at, np.int64), "line", np.array(over_lines, bool))


def _check_header(path: Path, header: list[str], wanted: list[str], entry) -> None:
    _refuse_twins(header, wanted)
    absent = [name for name in wanted if name not in header]
    if absent:  # the names found are not told: without a header they are the first patient's values
        raise UserError(_absent(path, absent, wanted, header, _header_hint(header, wanted, entry)))


def _encoding_hint(path: Path, entry, wanted: list[str]) -> str:
    """The encoding of most files that are not in that of the entry, and what its header says of the rest."""
    if path.suffix == ".parquet":
        return ""
    with _opened(path, "latin-1") as file:
        line = file.readline().rstrip("\r\n")
    if line[:2] in ("\xff\xfe", "\xfe\xff"):
        return "; does the entry need encoding: utf-16?"
    header = next(csv.reader([line], delimiter=entry.separator), [])
    more = "" if {*wanted} <= {*header} else _header_hint(header, wanted, entry)
    return f"; does the entry need encoding: cp1252 (or latin-1)?{more}"


def _check_encoding(path: Path, texts: Texts, entry) -> None:
    """Refuse texts that the entry's encoding reads without an error, and as other letters than were meant."""
    if entry.encoding == "utf-8":
        return
    odd = [text for cells in texts.cells.values() for text in cells.texts if not text.isascii()]
    if odd and all(_is_utf8(text, entry.encoding) for text in odd):
        raise UserError(f"{path}: it is UTF-8 text; does the entry need encoding: utf-8?")
    # Between these two latin-1 has no letters, and cp1252 has €, „ and the like.
    if any("\x80" <= letter <= "\x9f" for text in odd for letter in text):
        raise UserError(
            f"{path}: some of its letters are none in {entry.encoding}; does the entry need encoding: cp1252?"
        )


def _is_utf8(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding).decode("utf-8")
    except UnicodeError:
        return False
    return True


def _absent(path: Path, absent: list[str], wanted: list[str], found: list[str], hint: str) -> str:
    those = f"column {absent[0]!r} is" if len(absent) == 1 else f"columns {', '.join(map(repr, absent))} are"
    return (
        f"{path}: {those} missing ({len(absent)} of {len(wanted)} expected columns); the file has "
        f"{counted(len(found), 'column')}{hint}"
    )


def _header_hint(header: list[str], wanted: list[str], entry) -> str:
    """What may be wrong with the entry where the header has not all of `wanted`."""
    line, found = entry.separator.join(header), len({*wanted} & {*header})

    def known(names: Iterable[str]) -> int:
        return len({*wanted} & {*names})

    for separator in _SEPARATORS:
        names = next(csv.reader([line], delimiter=separator))
        if separator != entry.separator and (known(names) > found or len(header) == 1 < len(names)):
            return f"; does the entry need separator: {_yaml(separator)}?"
    if known(name.strip() for name in header) > found:
        return "; there are blanks around its names: does the entry need strip: true?"
    try:
        if known(line.encode(entry.encoding).decode("utf-8-sig").split(entry.separator)) > found:
            return "; it is UTF-8 text: does the entry need encoding: utf-8?"
    except UnicodeError:
        pass
    if len({name.casefold() for name in wanted} & {name.casefold() for name in header}) > found:
        return "; it has such a name with other capitals"
    return ""


def _yaml(separator: str) -> str:
    return '"\\t"' if separator == "\t" else f'"{separator}"'


def _refuse_twins(names: list[str], wanted: list[str]) -> None:
    twins = [name for name in wanted if names.count(name) > 1]
    if twins:
        raise ValueError(f"it has column {twins[0]!r} more than once")


def _read_parquet(path: Path, entry, wanted: list[str]) -> Texts:
    """Numbers, booleans and categories as the texts that a CSV file has for them: 1 (not 1.0), True, a name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table = file.read()
    names = [unicodedata.normalize("NFC", name) for name in table.column_names]
    names = [name.strip() for name in names] if entry.strip else names
    _refuse_twins(names, wanted)
    absent = [name for name in wanted if name not in names]
    if absent:
        raise UserError(_absent(path, absent, wanted, names, ""))
    cells = {}
    for name in wanted:
        encoded = _arrow_texts(table.column(names.index(name)), entry.decimal).dictionary_encode()
        encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
        code = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        cells[name] = Cells(encoded.dictionary.to_pylist(), code)
    return Texts(cells, np.arange(1, len(table) + 1), "row", np.zeros(len(table), bool))


def _arrow_texts(column, decimal: str):
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
        sizes = pc.abs(column)
        if pc.all(pc.and_(pc.equal(pc.floor(column), column), pc.less(sizes, 2.0**53))).as_py():
            column = column.cast(pa.int64())  # 1.2e11 would be the text of a large one
    texts = column.cast(pa.string())
    if decimal != "." and (pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        texts = pc.replace_substring(texts, ".", decimal)
    if pa.types.is_boolean(column.type):
        return pc.utf8_capitalize(texts)
    return pc.utf8_normalize(texts, form="NFC")
