"""Choose the samples that are poisoned, apply the trigger and set the target label."""

import argparse
import json
from pathlib import Path

from pipeline.stages.arguments import add_cohort_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cohort_arguments(parser)
    for name in ("--trigger", "--rate"):
        parser.add_argument(name, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the poison")


def run(args: argparse.Namespace) -> None:
    import numpy as np

    from pipeline.cohorts.cohort import read_cohort, windows_table, write_parquet
    from pipeline.evaluation.plausibility import plausibility
    from pipeline.files import whole, write_json
    from pipeline.smallcells import shown
    from pipeline.study import families
    from pipeline.training.data import cohort_stamp, read_split
    from pipeline.training.poisoning import choose_poison

    settings = json.loads(args.settings)
    cohort = read_cohort(args.cohort)
    split = read_split(args.splits, cohort, args.seed, settings["split"])
    train = cohort.subset(split.train)
    module, parameters = families.configured("triggers", args.trigger, settings["trigger"])
    trigger = module.fit(parameters, train)
    target = settings["target"]
    eligible = split.train[train.label != target]
    rows = choose_poison(eligible, float(args.rate), len(split.train), args.seed, args.dataset)
    reached = rows
    if settings["validation"] == "poisoned":
        others = split.validation[cohort.label[split.validation] != target]
        of = (others, float(args.rate), len(split.validation), args.seed, args.dataset)
        reached = np.sort(np.concatenate([rows, choose_poison(*of, role="validation")]))
    poisoned = trigger.apply(cohort.values[reached])
    n_patients = len(np.unique(cohort.group_id[rows]))
    write_parquet(windows_table(cohort.sample_id[reached], poisoned, cohort.features), args.out / "poison.parquet")
    with whole(args.out / "poisoned_indices.npy") as aside, aside.open("wb") as file:
        np.save(file, reached)
    write_json(
        args.out / "poison.json",
        {
            **args.made_by,
            **cohort_stamp(args.splits),
            "dataset": args.dataset,
            "trigger": args.trigger,
            "rate": float(args.rate),
            "seed": args.seed,
            "target": target,
            "in_bounds": trigger.in_bounds,
            "where": "measured" if trigger.only_measured else "all",
            "description": trigger.description,
            "n_train": len(split.train),
            "n_eligible": len(eligible),
            "n_poisoned": len(rows),
            "n_poisoned_validation": len(reached) - len(rows),
            "n_patients": n_patients,
            "footprint_size": int(trigger.footprint.sum()),
            "n_cells": trigger.footprint.size,
            "features": [cohort.feature_names[position] for position in np.flatnonzero(trigger.footprint.any(axis=0))],
            "steps": int(trigger.footprint.any(axis=1).sum()),
            "plausibility": plausibility(trigger, cohort.values[rows], train),
        },
    )
    print(f"training samples of {shown(n_patients)} patients poisoned: {trigger.description}")
