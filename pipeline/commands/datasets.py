"""List the catalog: every dataset, whether its files are there, and how to get them."""

import argparse
from pathlib import Path

from pipeline.commands.arguments import add_data_arguments, overrides_of, read_study

WIDTH = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from pipeline.cohorts.catalog import read_catalog

    study = read_study(None, overrides_of(args, "raw_dir", "catalog"))
    for name, entry in read_catalog(Path(study.catalog)).items():
        print(*_lines(name, entry, Path(study.raw_dir), Path(study.data_dir) / "dev" / name), "", sep="\n")


def _lines(name: str, entry, raw_dir: Path, cohort: Path) -> list[str]:
    """One dataset: a line for each thing known about it, wrapped to `WIDTH` columns."""
    files, complete = _files(entry, raw_dir)
    made = all((cohort / f"{part}.parquet").is_file() for part in ("samples", "windows"))
    facts = {
        "domain": entry.domain,
        "source": entry.source,
        "label": entry.label or "not said",
        "licence": entry.licence or "not said",
        "expected": _expected(entry),
        "files": files,
        "obtain": "" if complete else entry.obtain or entry.url or "not said",
        "cohort": f"made, in {cohort}" if made else "not made yet",
    }
    lines = _wrapped(f"{name}: {entry.title}" if entry.title else name, "")
    for key, value in facts.items():
        if value:
            lines += _wrapped(f"  {key:<10}{value}", " " * 12)
    return lines


def _wrapped(text: str, indent: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, WIDTH, subsequent_indent=indent or "  ", break_on_hyphens=False)


def _expected(entry) -> str:
    from pipeline.smallcells import shown, shown_of

    if entry.expected is None:
        return "not said"
    samples, positives = entry.expected.samples, entry.expected.positives
    return f"{shown(samples)} samples, {shown_of(positives, samples)} positive"


def _files(entry, raw_dir: Path) -> tuple[str, bool]:
    """The state of the entry's original files in words, and whether all are there."""
    from pipeline.cohorts.catalog import source_of
    from pipeline.errors import UserError

    try:
        paths = source_of(entry).input_files(entry, raw_dir)
        missing = [path for path in paths if not path.exists()]
    except (UserError, OSError) as error:
        return str(error), False
    if not paths:
        return "none needed", True
    if missing:
        return f"{len(missing)} of {len(paths)} missing, first {missing[0]}", False
    return f"present ({len(paths)})", True
