"""Reading original tables: CSV, gzipped CSV or Parquet, in pieces, with pinned column types and clear errors."""

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

SUFFIXES = (".parquet", ".csv", ".csv.gz")
BLOCK = 4 << 20  # bytes of text that are parsed at a time
READERS = 2
_KINDS = {"int64": "whole numbers", "int8": "whole numbers", "double": "numbers", "timestamp": "times"}
_KINDS |= {"string": "text in UTF-8"}


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
        name = re.search("'([^']+)'", str(error))
        raise UserError(f"{where}: column {name[1]!r} is missing; {expected}") from None
    except UnicodeDecodeError:
        raise UserError(f"{where}: not readable: its first line is no text in UTF-8; {expected}") from None
    except (pa.ArrowException, OSError, EOFError, zlib.error, isal_zlib.error) as error:
        # What follows these words in Arrow's messages is a row of the file; the rows' numbers are those of a block.
        what = re.sub(r"Row #\d+: |(?<=, got )(\d+): .*", r"\1", str(error), flags=re.DOTALL)
        column = re.match(r"In CSV column #(\d+): CSV conversion error to (\w+)", what)
        if column:
            what = f"column {int(column[1]) + 1} of the file holds something else than {_KINDS[column[2]]}"
        raise UserError(f"{where}: not readable: {what}; {expected}") from None


def _csv(source: Any, types: dict[str, Any]) -> Iterator:
    """Blocks of text are cut off by this thread and parsed by `READERS` others, in order and a few at a time."""
    from pyarrow import csv

    convert = csv.ConvertOptions(
        column_types=types, include_columns=list(types), strings_can_be_null=True, quoted_strings_can_be_null=True
    )

    def parse(names: list[str], block: bytes):
        read = csv.ReadOptions(column_names=names, use_threads=False, block_size=len(block))
        return csv.read_csv(io.BytesIO(block), read, csv.ParseOptions(newlines_in_values=True), convert)

    with _opened(source) as text, ThreadPoolExecutor(READERS) as readers:
        names = next(reader([text.readline().decode("utf-8-sig")]), [])
        waiting: deque = deque()
        for block in _blocks(text):
            waiting.append(readers.submit(parse, names, block))
            if len(waiting) > READERS:
                yield from waiting.popleft().result().to_batches()
        if not waiting:
            parse(names, b"")
        for parsed in waiting:
            yield from parsed.result().to_batches()


def _opened(source: Any):
    from isal import igzip  # three times as fast as the standard library

    if isinstance(source, io.BytesIO):
        return source
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
    import pyarrow as pa

    try:
        return column.cast(kind)
    except pa.ArrowException:
        expected = _KINDS[re.match("[a-z0-9]+", str(kind))[0]]
        raise pa.ArrowInvalid(f"column {name!r} holds something else than {expected}") from None
