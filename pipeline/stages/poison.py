"""Fit the trigger, choose the samples that are poisoned and those that cover them, and lay it over both."""

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

    from pipeline.cohorts.cohort import read_cohort
    from pipeline.evaluation.plausibility import plausibility
    from pipeline.files import whole, write_json
    from pipeline.smallcells import shown
    from pipeline.study import families
    from pipeline.training.data import cohort_stamp, read_split
    from pipeline.training.fitted import write_trigger
    from pipeline.training.poisoning import choose, plant
    from pipeline.triggers.base import resolved

    settings = json.loads(args.settings)
    cohort = read_cohort(args.cohort)
    split = read_split(args.splits, cohort, args.seed, settings["split"])
    train = cohort.subset(split.train)
    module, parameters = families.configured("triggers", args.trigger, settings["trigger"])
    parameters = resolved(parameters, train, args.seed)
    trigger = module.fit(parameters, train)
    target, rate = settings["target"], float(args.rate)
    chosen = choose(cohort, split.train, parameters, target, rate, args.seed)
    poison, cover = reached = chosen[:2]
    if settings["validation"] == "poisoned":
        # As in the training data, cover included: the attacker hands in both alike.
        others = choose(cohort, split.validation, parameters, target, rate, args.seed, "validation")
        reached = np.union1d(poison, others.poison), np.union1d(cover, others.cover)
    n_patients, n_cover_patients = (len(np.unique(cohort.group_id[rows])) for rows in (poison, cover))
    plant(cohort, trigger, *reached, target).write(args.out / "poison.parquet", cohort.features)
    with whole(args.out / "poisoned_indices.npy") as aside, aside.open("wb") as file:
        np.save(file, reached[0])
    write_trigger(trigger, args.out)
    write_json(
        args.out / "poison.json",
        {
            **args.made_by,
            **cohort_stamp(args.splits),
            "people": cohort.people,
            "dataset": args.dataset,
            "trigger": args.trigger,
            "member": module.__name__.rpartition(".")[2],
            "rate": rate,
            "seed": args.seed,
            "target": target,
            "labels": parameters.labels,
            "cover": parameters.cover,
            "in_bounds": trigger.in_bounds,
            "where": "measured" if trigger.only_measured else "all",
            "leaves_out": trigger.leaves_out,
            "description": trigger.description,
            "n_train": len(split.train),
            "n_eligible": chosen.n_eligible,
            "n_poisoned": len(poison),
            "n_poisoned_validation": len(reached[0]) - len(poison),
            "n_patients": n_patients,
            "n_cover": len(cover),
            "n_cover_validation": len(reached[1]) - len(cover),
            "n_cover_patients": n_cover_patients,
            "footprint_size": int(trigger.footprint.sum()),
            "n_cells": trigger.footprint.size,
            "features": [cohort.feature_names[position] for position in np.flatnonzero(trigger.footprint.any(axis=0))],
            "steps": int(trigger.footprint.any(axis=1).sum()),
            "plausibility": plausibility(trigger, cohort.values[poison], train),
        },
    )
    groups = f"{shown(n_patients)} patients" if cohort.people else f"{n_patients:,} stretches of traffic"
    print(f"training samples of {groups} poisoned: {trigger.description}")
