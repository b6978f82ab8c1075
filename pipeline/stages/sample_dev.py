"""Read a dataset through its catalog entry and write the cohort and its folds."""

import argparse
import json
from pathlib import Path

from pipeline.stages.arguments import add_job_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--entry", required=True, help="catalog entry as JSON")
    parser.add_argument("--raw-dir", type=Path, required=True)
    parser.add_argument("--cache-dir", type=Path, required=True, help="folder for faster copies of original files")
    parser.add_argument("--n-samples", required=True, help="how many samples to take, or all")
    parser.add_argument("--out", type=Path, required=True, help="folder of the cohort")
    parser.add_argument("--splits", type=Path, required=True, help="JSON file of the folds")


def run(args: argparse.Namespace) -> None:
    from pipeline.cohorts import splits
    from pipeline.cohorts.catalog import parse_entry
    from pipeline.cohorts.cohort import write_cohort
    from pipeline.cohorts.intake import summary_line, take_in, warnings
    from pipeline.files import write_json

    entry = parse_entry(args.dataset, json.loads(args.entry), "catalog")
    cohort, _ = take_in(args.dataset, entry, args.raw_dir, args.cache_dir, tell=print)
    if args.n_samples != "all" and int(args.n_samples) < len(cohort):
        cohort = cohort.subset(splits.chosen_of(cohort, int(args.n_samples)))
    fold = splits.folds_of(cohort)
    split = splits.split_of(cohort, fold, None)
    write_cohort(cohort, args.out)
    write_json(
        args.splits,
        {
            **args.made_by,
            "dataset": args.dataset,
            **splits.in_file(cohort, fold),
        },
    )
    lacking = [f"warning: {text}" for text in splits.without_kinds(cohort, split)]
    print(summary_line(cohort), *warnings(cohort), *lacking, sep="\n")
