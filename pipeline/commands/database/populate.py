"""Bring RESULTS_DIR/study.db up to what the files of the study say; made if there is none, never emptied."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.arguments import add_study_arguments, refuse_missing, study_of

if TYPE_CHECKING:
    from pipeline.study.config import Study
    from pipeline.study.stamps import Stamps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_study_arguments(parser)
    workflow = parser.add_argument_group("in place of these, by the workflow")
    workflow.add_argument("--study", metavar="JSON", help="the whole configuration")
    workflow.add_argument("--cohorts", metavar="JSON", help="the stamp of each dataset's cohort")


def run(args: argparse.Namespace) -> None:
    from pipeline.database.populate import populate

    print(populate(*asked_for(args)))


def asked_for(args: argparse.Namespace) -> "tuple[Study, Stamps]":
    """The study that `add_arguments` asked for, which has been started, and its stamps."""
    from pipeline.study.config import Study
    from pipeline.study.stamps import Stamp, Stamps, stamps_of

    if args.study is None:
        study = study_of(args)
        refuse_missing(Path(study.results_dir))
        return study, stamps_of(study)
    study = Study.model_validate_json(args.study)
    return study, Stamps(study, {name: Stamp.parse(text) for name, text in json.loads(args.cohorts).items()})
