"""Command-line arguments that several commands share, and the study they name."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from pipeline.study.config import Study


class Parser(argparse.ArgumentParser):
    """Takes no abbreviations (`--config` is not `--configfile`), keeps line breaks, and its errors are one line."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def add_study_arguments(parser: argparse.ArgumentParser, results: str = "as in the study") -> None:
    """Which study: the same as for Snakemake. `results` says where they go by default."""
    parser.add_argument("--configfile", type=Path, help="a study configuration over config/config.yaml")
    parser.add_argument(
        "--config",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="in place of the study's keys; quote lists and mappings: 'seeds=[1, 2]'",
    )
    parser.add_argument("--results-dir", help=f"where the results are written (default: {results})")


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the data lies."""
    parser.add_argument("--raw-dir", help="where the original files lie (default: as in config/config.yaml)")
    parser.add_argument("--catalog", help="the catalog (default: as in config/config.yaml)")


def overrides_of(args: argparse.Namespace, *flags: str) -> dict[str, Any]:
    """The configuration's keys that the command line gives: by --config, and by `flags` that are called like them."""
    overrides = _parsed(getattr(args, "config", []))
    return overrides | {key: getattr(args, key) for key in flags if getattr(args, key) is not None}


def study_of(args: argparse.Namespace) -> "Study":
    """The study that `add_study_arguments` asked for."""
    return read_study(args.configfile, overrides_of(args, "results_dir"))


def refuse_missing(results_dir: Path) -> None:
    """`UserError` where nothing can have been made: a folder that is asked about is not made by asking."""
    from pipeline.errors import UserError

    if not results_dir.is_dir():
        raise UserError(f"{results_dir}: no such folder; expected the results_dir of a study that has been started")


def read_study(configfile: Path | None, overrides: dict[str, Any]) -> "Study":
    """config/config.yaml with `configfile` and then `overrides` laid over it, merged as Snakemake merges them."""
    from pipeline.files import read_yaml
    from pipeline.study.config import load_study
    from pipeline.study.places import study_file
    from pipeline.study.variants import merged

    config: dict[str, Any] = {}
    for path in filter(None, (study_file(), configfile)):
        config = merged(config, read_yaml(path))
    return load_study(config, overrides)


def _parsed(texts: list[str]) -> dict[str, Any]:
    """The texts after --config, read as Snakemake reads them."""
    from pipeline.errors import UserError

    if not texts:
        return {}
    for number, text in enumerate(texts):
        if _unclosed(text):
            rest = iter(texts[number + 1 :])
            while _unclosed(text) and (more := next(rest, None)) is not None:
                text += f" {more}"
            raise UserError(f"--config: {texts[number]!r} is only the beginning of a value; quote it: '{text}'")
    from snakemake.cli import parse_config

    try:
        return parse_config(texts)
    except ValueError as error:
        raise UserError(f"--config: {error}") from None
    except AssertionError:  # of Snakemake's, for a comment
        raise UserError("--config: expected a value after every =") from None


def _unclosed(text: str) -> bool:
    """Whether `text` is KEY=VALUE with a list or mapping that does not end in it."""
    value = text.partition("=")[2]
    return value.startswith(("[", "{")) and sum(map(value.count, "[{")) > sum(map(value.count, "]}"))
