"""Which studies a question is about."""

import argparse
from pathlib import Path


def add_results_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results-dir", type=Path, help="the study's folder (default: results_dir in config/config.yaml)"
    )


def folder_of(args: argparse.Namespace) -> Path:
    """The results_dir that `add_results_argument` asked for."""
    from pipeline.database.reading import default_folder

    return args.results_dir or default_folder()


def folders_of(args: argparse.Namespace) -> list[Path]:
    """The same for a question about several studies, which may also be named one after the other; each once."""
    given = [*filter(None, [args.results_dir]), *args.folders]
    return list(dict.fromkeys(given)) or [folder_of(args)]
