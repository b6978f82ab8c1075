"""Command-line arguments that several commands share, and the study they name."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import Study


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """Which study: the same as for Snakemake."""
    parser.add_argument("--configfile", type=Path, help="a study configuration over config/config.yaml")
    parser.add_argument("--config", nargs="+", metavar="KEY=VALUE", help="in place of the study's keys")
    parser.add_argument("--results-dir", help="where the results are written")


def study_of(args: argparse.Namespace) -> "Study":
    """The study that `add_study_arguments` asked for."""
    from snakemake.cli import parse_config

    from pipeline.errors import UserError

    try:
        overrides = parse_config(args.config)
    except ValueError as error:
        raise UserError(f"--config: {error}") from None
    if args.results_dir:
        overrides["results_dir"] = args.results_dir
    return read_study(args.configfile, overrides)


def read_study(configfile: Path | None, overrides: dict[str, Any]) -> "Study":
    """config/config.yaml with `configfile` and then `overrides` laid over it, merged as Snakemake merges them."""
    from snakemake.utils import update_config

    from pipeline.config import load_study
    from pipeline.files import read_yaml

    config: dict = {}
    for path in filter(None, (Path("config/config.yaml"), configfile)):
        update_config(config, read_yaml(path))
    update_config(config, overrides)
    return load_study(config)
