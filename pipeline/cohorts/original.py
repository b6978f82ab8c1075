"""Reading original tables: CSV, gzipped CSV or Parquet, in pieces, with pinned column types and clear errors."""

import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

SUFFIXES = (".parquet", ".csv", ".csv.gz")
BLOCK = 8 << 20  # bytes of text that are parsed at a time


def find(stem: Path) -> Path | None:
    """The table `stem` in the first of the forms it may have; None where there is none.

    A broken link counts as found: reading it then fails, where passing over it would go unnoticed.
    """
    paths = (stem.with_name(stem.name + suffix) for suffix in SUFFIXES)
    return next((path for path in paths if os.path.lexists(path)), None)


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
        name = re.search(r"'(\w+)'", str(error))
        raise UserError(f"{where}: column {name[1]!r} is missing; {expected}") from None
    except (pa.ArrowException, OSError, EOFError, zlib.error, isal_zlib.error) as error:
        # What follows these words in Arrow's messages is a row of the file.
        what = re.split(r": invalid value|(?<=, got \d): |(?<=, got \d\d): ", str(error))[0]
        column = re.match(r"In CSV column #(\d+): CSV conversion error to (\w+)", what)
        if column:
            what = f"column {int(column[1]) + 1} of the file holds something else than {column[2]}"
        raise UserError(f"{where}: not readable: {what}; {expected}") from None


def _csv(source: Any, types: dict[str, Any]) -> Iterator:
    from isal import igzip
    from pyarrow import csv

    if str(source).endswith(".gz"):
        with igzip.open(source) as unpacked:  # three times as fast as the standard library
            yield from _csv(unpacked, types)
        return
    yield from csv.open_csv(
        source,
        read_options=csv.ReadOptions(block_size=BLOCK, use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=types, include_columns=list(types), strings_can_be_null=True, quoted_strings_can_be_null=True
        ),
    )


def _parquet(source: Path, types: dict[str, Any]) -> Iterator:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(types.items())
    with pq.ParquetFile(source) as file:
        absent = [name for name in types if name not in file.schema_arrow.names]
        if absent:
            raise KeyError(absent[0])
        for batch in file.iter_batches(columns=list(types)):
            yield pa.Table.from_batches([batch]).select(list(types)).cast(schema).combine_chunks().to_batches()[0]
