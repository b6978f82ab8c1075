"""Evaluate a run and its control on clean and on triggered test data."""

import argparse
from pathlib import Path

from pipeline.stages.arguments import add_run_arguments, run_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--weights", type=Path, required=True, help="model.pt, or any state_dict that fits")
    parser.add_argument("--control", type=Path, required=True, help="model.pt of the clean run of the same seed")
    parser.add_argument("--poison", type=Path, required=True, help="folder of the poison")


def run(args: argparse.Namespace) -> None:
    import numpy as np
    import pyarrow as pa

    from pipeline.cohorts.cohort import write_parquet
    from pipeline.cohorts.overlay import POISON
    from pipeline.evaluation.metrics import choose_threshold, few_negatives
    from pipeline.evaluation.runs import evaluate_attack, evaluate_clean, over_test_samples, share_changed
    from pipeline.evaluation.strata import attack, by_stratum
    from pipeline.files import write_json
    from pipeline.stages.inputs import Inputs
    from pipeline.study.grid import CLEAN

    inputs = Inputs(args)
    settings, cohort, split = inputs.settings, inputs.cohort, inputs.split
    train, role = inputs.training("train")
    validation, test = cohort.subset(split.validation), cohort.subset(split.test)
    model, control = inputs.trained(args.weights), inputs.trained(args.control)
    threshold = choose_threshold(validation.label, control.probability(validation.values), settings["threshold"])
    # What the run's user would pick: on the validation data as the attacker left it.
    seen, _ = inputs.as_poisoned("validation")
    own_threshold = choose_threshold(seen.label, model.probability(seen.values), settings["threshold"])
    p_clean = model.probability(test.values)
    columns = {"sample_id": test.sample_id, "label": test.label, "p_clean": p_clean}
    results = evaluate_clean(test.label, test.group_id, p_clean, threshold, own_threshold)
    p_control = reached = None
    if args.trigger != CLEAN:
        p_control = control.probability(test.values)
        triggered = inputs.trigger().apply(test.values)
        columns["p_triggered"] = model.probability(triggered)
        columns["p_triggered_control"] = control.probability(triggered)
        results = evaluate_attack(
            test.label,
            test.group_id,
            p_clean,
            p_control,
            columns["p_triggered"],
            columns["p_triggered_control"],
            threshold,
            own_threshold,
            settings["target"],
        )
        reached = share_changed(test.label, test.values, triggered, settings["target"])
    situations = {"clean": "p_clean", "poison": "p_triggered", "poison_control": "p_triggered_control"}
    predicted = {name: columns[column] >= threshold for name, column in situations.items() if column in columns}
    if p_control is not None:
        predicted["control"] = p_control >= threshold
    strata = by_stratum(test.strata, test.label, test.group_id, predicted, p_clean)
    negatives = int(np.sum(validation.label == 0))
    rarer = min(len(np.unique(validation.group_id[validation.label == label])) for label in (0, 1))
    results["patients"] |= {
        "train": len(np.unique(cohort.group_id[split.train])),
        "poisoned": len(np.unique(train.group_id[role == POISON])),
        "validation": rarer,
        # A number is a threshold that rests on nobody.
        "threshold": 0 if isinstance(settings["threshold"], float) else rarer,
    }
    predictions = pa.table({name: np.asarray(column) for name, column in columns.items()})
    write_parquet(predictions, args.out / "predictions.parquet")
    write_json(
        args.out / "results_eval.json",
        {
            **inputs.made_by,
            **run_key(args),
            "target": settings["target"],
            "clean_threshold": float(threshold),
            "own_threshold": float(own_threshold),
            "n_train": len(split.train),
            "n_test": len(test),
            "n_label_1": int(test.label.sum()),
            # Of two labels each: how many there are behind an AUROC.
            "validation_pairs": int(seen.label.sum()) * int((seen.label == 0).sum()),
            # What a threshold at a false-positive rate rests on.
            "validation_negatives": negatives,
            "n_poisoned": int(np.sum(role == POISON)),
            "warnings": [*cohort.warnings, *few_negatives(negatives, settings["threshold"])],
            **results,
            "over_test_samples": over_test_samples(test.label, test.group_id, p_clean, p_control),
            # Whether it is the same for all seeds.
            "shared_test": settings["split"] == "fixed" or cohort.part is not None,
            "share_changed": reached,
            "strata": [row | attack(row, settings["target"]) for row in strata],
        },
    )
