"""Bring the runs of a study that are done into its MLflow store, each once (needs the extra mlflow)."""

import argparse

from pipeline.commands.database.populate import add_arguments, asked_for

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> None:
    from pipeline.database.populate import populate
    from pipeline.database.tracking import track
    from pipeline.study import preflight

    study, stamps = asked_for(args)
    preflight.check_tracking(study)
    populate(study, stamps)
    print(track(study, stamps))
