"""List the catalog: every dataset, whether its files are there, and how to get them."""

import argparse
from pathlib import Path

WIDTH = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--raw-dir", type=Path, help="where the original files lie (default: as in config/config.yaml)")
    parser.add_argument("--catalog", type=Path, help="the catalog (default: as in config/config.yaml)")


def run(args: argparse.Namespace) -> None:
    from pipeline.cohorts.catalog import read_catalog
    from pipeline.config import load_study
    from pipeline.files import read_yaml

    study = load_study(read_yaml(Path("config/config.yaml")))
    catalog = read_catalog(args.catalog or Path(study.catalog))
    raw_dir = args.raw_dir or Path(study.raw_dir)
    for name, entry in catalog.items():
        print(*_lines(name, entry, raw_dir, Path(study.data_dir) / "dev" / name), "", sep="\n")


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
    from pipeline.cohorts.intake import shown

    if entry.expected is None:
        return "not said"
    return f"{shown(entry.expected.samples)} samples, {shown(entry.expected.positives)} positive"


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
