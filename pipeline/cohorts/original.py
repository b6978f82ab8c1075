"""Reading original tables: CSV, gzipped CSV or Parquet, in pieces, with pinned column types and clear errors.

CSV may begin with a byte order mark and have commas, semicolons or tabs between its cells. Times may have fractions of
a second, which are cut off, and a zone; those with one become UTC, those without are taken to be in it.
"""

import io
import os
import re
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from csv import reader
from pathlib import Path, PurePath
from typing import Any

from pipeline.errors import UserError
from pipeline.smallcells import shown_of

SUFFIXES = (".parquet", ".csv", ".csv.gz")
BLOCK = 4 << 20  # bytes of text that are parsed at a time
READERS = 2
# Per Arrow type what it holds in words, and the form of a text that it can be read from.
_KINDS = {
    "int64": ("whole numbers", r"-?\d+"),
    "int8": ("whole numbers", r"-?\d\d?"),
    "double": ("numbers, with a decimal point", r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?(nan|inf)"),
    "timestamp": (
        "times such as 2150-01-31 18:05:00 (also with T, fractions, Z, UTC or +00:00)",
        r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?\s*(Z|UTC|[-+]\d\d(:?\d\d)?)?)?",
    ),
    "string": ("text in UTF-8", ""),
}


class _WrongCells(Exception):
    """Cells of column `name` cannot be read as the Arrow type `kind`."""

    def __init__(self, name: str, kind: str):
        super().__init__(name, kind)
        self.name, self.kind = name, kind


def find(stem: Path) -> Path | None:
    """The table `stem` in the first of the forms it may have; None where there is none.

    A broken link counts as found: reading it then fails, where passing over it would go unnoticed.
    """
    paths = (stem.with_name(stem.name + suffix) for suffix in SUFFIXES)
    return next((path for path in paths if os.path.lexists(path)), None)


def visible(folder: Path, pattern: str) -> list[Path]:
    """The files below `folder` that match `pattern`, in order, without those that are hidden or lie in hidden folders.

    Tools keep copies there (.cache/, .ipynb_checkpoints/), which would be the same rows again.
    """
    return sorted(path for path in folder.rglob(pattern) if not hidden(path.relative_to(folder)))


def hidden(path: PurePath) -> bool:
    """Whether a part of the relative `path` begins with a point, as in `.cache/0.parquet`."""
    return any(part.startswith(".") and part not in (".", "..") for part in path.parts)


def read(source: Any, types: dict[str, Any], where: Path | None = None):
    """The columns `types` (name → Arrow type) of a table, a path or an open CSV file, as an Arrow table."""
    import pyarrow as pa

    return pa.Table.from_batches(batches(source, types, where), pa.schema(types.items()))


def batches(source: Any, types: dict[str, Any], where: Path | None = None) -> Iterator:
    """The same as record batches, one after the other; memory does not grow with the table.

    Raises `UserError` when the file is missing, damaged or of another form; it never tells a value.
    """
    import pyarrow as pa
    from isal import isal_zlib

    where = where or source
    expected = f"expected a table with {', '.join(types)}"
    try:
        yield from _parquet(source, types) if str(where).endswith(".parquet") else _csv(source, types)
    except FileNotFoundError:
        raise UserError(f"{where}: no such file") from None
    except (pa.ArrowKeyError, KeyError) as error:
        _, name, _ = str(error).split("'", 2)
        raise UserError(f"{where}: column {name!r} is missing; {expected}") from None
    except UnicodeDecodeError:
        raise UserError(f"{where}: not readable: its first line is no text in UTF-8; {expected}") from None
    # What isal raises is its own, of which its types know nothing.
    except (pa.ArrowException, OSError, EOFError, zlib.error, isal_zlib.error) as error:  # type: ignore[misc]
        # What follows these words in Arrow's messages is a row of the file; the rows' numbers are those of a block.
        what = re.sub(r"Row #\d+: |(?<=, got )(\d+): .*", r"\1", str(error), flags=re.DOTALL)
        raise UserError(f"{where}: not readable: {what}; {expected}") from None
    except _WrongCells as error:
        raise UserError(
            f"{where}: column {error.name!r}: {_wrong_rows(source, where, error)} something else than "
            f"{_KINDS[error.kind][0]}"
        ) from None


def _wrong_rows(source: Any, where: Path, wrong: _WrongCells) -> str:
    """How many rows of the whole table are wrong, in words: what was read until then is a part of it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if wrong.kind == "string":
        return "it holds"
    n_rows = n_wrong = 0
    pattern = rf"(?i)^\s*({_KINDS[wrong.kind][1]})\s*$"
    try:
        for batch in batches(source, {wrong.name: pa.string()}, where):
            n_rows += len(batch)
            n_wrong += pc.sum(pc.invert(pc.match_substring_regex(batch[wrong.name], pattern))).as_py() or 0
    except UserError:  # its texts cannot be read either
        return "it holds"
    return f"{shown_of(n_wrong, n_rows)} of {n_rows:,} rows hold" if n_wrong else "it holds"


def separator(header: str) -> str:
    """What stands between the names in the first line of a CSV file: a comma, a semicolon or a tab."""
    return max(",;\t", key=header.count)


def _csv(source: Any, types: dict[str, Any]) -> Iterator:
    """Blocks of text are cut off by this thread and parsed by `READERS` others, in order and a few at a time."""
    import pyarrow as pa
    from pyarrow import csv

    times = [name for name, kind in types.items() if pa.types.is_timestamp(kind)]

    def parse(names: list[str], between: str, block: bytes, types: dict[str, Any] = types):
        read = csv.ReadOptions(column_names=names, use_threads=False, block_size=len(block))
        options = csv.ParseOptions(delimiter=between, newlines_in_values=True)
        convert = csv.ConvertOptions(
            column_types=types, include_columns=list(types), strings_can_be_null=True, quoted_strings_can_be_null=True
        )
        try:
            return csv.read_csv(io.BytesIO(block), read, options, convert)
        except pa.ArrowException as error:
            wrong = re.match(r"In CSV column #(\d+): (?:Row #\d+: )?CSV conversion error to (\w+)", str(error))
            if not wrong:
                raise
            name, kind = names[int(wrong[1])], wrong[2]
        if kind != "timestamp":
            raise _WrongCells(name, kind)
        # Arrow takes plain times alone: the others are read as texts, block by block, where there are some.
        table = parse(names, between, block, types | dict.fromkeys(times, pa.string()))
        for name in times:
            position = table.column_names.index(name)
            table = table.set_column(position, name, _cast(table[name], types[name], name))
        return table

    with _opened(source) as text, ThreadPoolExecutor(READERS) as readers:
        header = text.readline().decode("utf-8-sig")
        between = separator(header)
        names = next(reader([header], delimiter=between), [])
        waiting: deque = deque()
        for block in _blocks(text):
            waiting.append(readers.submit(parse, names, between, block))
            if len(waiting) > READERS:
                yield from waiting.popleft().result().to_batches()
        if not waiting:
            parse(names, between, b"")
        for parsed in waiting:
            yield from parsed.result().to_batches()


def _opened(source: Any):
    from isal import igzip  # three times as fast as the standard library

    if isinstance(source, io.BytesIO):
        return io.BytesIO(source.getvalue())
    return igzip.open(source) if source.name.endswith(".gz") else source.open("rb")


def _blocks(text: Any) -> Iterator[bytes]:
    """The text in blocks of about `BLOCK` bytes that end with a row; a line break between quotes ends none."""
    import pyarrow as pa

    rest = b""
    while piece := text.read(BLOCK):
        piece = rest + piece
        end = piece.rfind(b"\n") + 1
        while piece.count(b'"', 0, end) % 2:
            end = piece.rfind(b"\n", 0, piece.rfind(b'"', 0, end)) + 1
        if not end and len(piece) > 16 * BLOCK:
            raise pa.ArrowInvalid("a quoted text or a row without an end")
        if end:
            yield piece[:end]
        rest = piece[end:]
    if rest:
        yield rest


def _parquet(source: Path, types: dict[str, Any]) -> Iterator:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        absent = [name for name in types if name not in file.schema_arrow.names]
        if absent:
            raise KeyError(absent[0])
        if not file.metadata.num_rows:
            raise pa.ArrowInvalid("it has no rows")
        for batch in file.iter_batches(columns=list(types)):
            columns = [_cast(batch[name], kind, name) for name, kind in types.items()]
            yield pa.RecordBatch.from_arrays(columns, schema=pa.schema(types.items()))


def _cast(column: Any, kind: Any, name: str):
    """`column` as the Arrow type `kind`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        if not pa.types.is_timestamp(kind):
            return column.cast(kind)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = _in_utc(column)
        if pa.types.is_timestamp(column.type):  # before the cast, which takes no nanoseconds
            column = pc.floor_temporal(column, unit="second")
        # A zone is only how Arrow shows a time: without it, it is the one in UTC.
        return pc.floor_temporal(column.cast(pa.timestamp("us")), unit="second").cast(kind)
    except pa.ArrowException:
        raise _WrongCells(name, re.split("[^a-z0-9]", str(kind), maxsplit=1)[0]) from None


def seconds(texts: list[str]) -> list[float]:
    """Each text as a time in seconds since 1970, in UTC as when tables are read; NaN where it is none."""
    import pyarrow as pa

    pattern = re.compile(rf"(?i)\s*({_KINDS['timestamp'][1]})\s*")
    good = [text for text in texts if text.strip() and pattern.fullmatch(text)]
    try:
        found = _in_utc(pa.array(good, pa.string())).cast(pa.int64()).to_pylist()
    except pa.ArrowException:  # a 31st of June
        if len(texts) == 1:
            return [float("nan")]
        return [seconds([text])[0] for text in texts]
    known = dict(zip(good, found, strict=True))
    return [known[text] // 1_000_000 if text in known else float("nan") for text in texts]


def _in_utc(texts: Any):
    """Texts as times with the zone UTC."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for pattern, written in (
        (r"^\s+|\s+$", ""),
        (r"(\.\d{6})\d+", r"\1"),  # a time holds microseconds
        (r"^(\d{4}-\d\d-\d\d)$", r"\1T00:00"),
        (r"\s*(?:Z|z|UTC)$", "+00:00"),
        (r"\s+([-+])", r"\1"),
        (r"^(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)$", r"\1+00:00"),
    ):
        texts = pc.replace_substring_regex(texts, pattern, written)
    return texts.cast(pa.timestamp("us", "UTC"))
