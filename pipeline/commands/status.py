"""Say how far a study is and why cells of it failed or are outdated, and write it to RESULTS_DIR/cells.csv."""

import argparse
from pathlib import Path

from pipeline.commands.arguments import add_study_arguments, refuse_missing, study_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_study_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from pipeline.study import progress
    from pipeline.study.stamps import stamps_of

    study = study_of(args)
    refuse_missing(Path(study.results_dir))
    rows = progress.states(study, stamps_of(study))
    for row in rows:
        if row.state in (progress.FAILED, progress.OUTDATED):
            print(f"{'/'.join(row.cell)}: {row.stage}: {row.why}")
    print(progress.record(study, rows))
