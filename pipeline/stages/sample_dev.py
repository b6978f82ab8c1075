"""Read a dataset through its catalog entry and write the cohort and its folds."""

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--entry", required=True, help="catalog entry as JSON")
    parser.add_argument("--raw-dir", type=Path, required=True)
    parser.add_argument("--n-samples", required=True, help="how many samples to take, or all")
    parser.add_argument("--out", type=Path, required=True, help="folder of the cohort")
    parser.add_argument("--splits", type=Path, required=True, help="JSON file of the folds")


def run(args: argparse.Namespace) -> None:
    import numpy as np

    from pipeline.cohorts import splits
    from pipeline.cohorts.catalog import parse_entry, source_of
    from pipeline.cohorts.cohort import write_cohort
    from pipeline.cohorts.schema import check_cohort
    from pipeline.errors import UserError
    from pipeline.files import write_json

    entry = parse_entry(args.dataset, json.loads(args.entry), "catalog")
    cohort = source_of(entry).load(args.dataset, entry, args.raw_dir)
    found = {"samples": len(cohort), "positives": int(cohort.label.sum())}
    if entry.expected and found != entry.expected.model_dump():
        raise UserError(
            f"{args.dataset}: {found['samples']} samples with {found['positives']} positives were read; the catalog "
            f"expects {entry.expected.samples} with {entry.expected.positives}: another version of the data?"
        )
    if args.n_samples != "all" and int(args.n_samples) < len(cohort):
        cohort = cohort.subset(splits.choose_samples(cohort.group_id, cohort.label, int(args.n_samples)))
    check_cohort(cohort)
    fold = splits.assign_folds(cohort.group_id, cohort.label)
    splits.deal(fold, cohort.label, None, args.dataset)
    write_cohort(cohort, args.out)
    write_json(
        args.splits,
        {
            "dataset": args.dataset,
            "roles": splits.ROLES,
            "folds": [cohort.sample_id[fold == number].tolist() for number in range(splits.N_FOLDS)],
        },
    )
    print(
        f"{args.dataset}: {len(cohort)} of {found['samples']} samples, {len(np.unique(cohort.group_id))} groups, "
        f"{cohort.label.mean():.1%} positive, {cohort.n_steps} steps × {len(cohort.features)} features, "
        f"{np.isnan(cohort.values).mean():.1%} not measured"
    )
