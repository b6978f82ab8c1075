"""Score every training sample of a run with every detector that applies to its model, against the true poison."""

import argparse
from pathlib import Path

from pipeline.stages.arguments import add_run_arguments, run_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--poison", type=Path, required=True, help="folder of the poison")


def run(args: argparse.Namespace) -> None:
    import pyarrow as pa

    from pipeline.cohorts.cohort import write_parquet
    from pipeline.detectors.base import Evidence
    from pipeline.evaluation.detection import evaluate
    from pipeline.files import write_json
    from pipeline.stages.inputs import Inputs
    from pipeline.study import families
    from pipeline.study.grid import Cell

    inputs = Inputs(args)
    train, role = inputs.as_poisoned("train")
    model = inputs.trained(args.weights)
    offers = families.configured("models", args.model, inputs.settings["model"])[0].OFFERS
    evidence = Evidence(
        representation=model.representation(train.values) if "representation" in offers else None,
        label=train.label,
        saliency=lambda: model.saliency(train.values),
        seed=args.seed,
        cell=Cell(args.dataset, args.model, args.trigger, args.rate, str(args.seed)).run_folder,
    )
    scores = {"sample_id": train.sample_id, "label": train.label, "role": role}
    results: dict[str, list] = {"detections": [], "alarms": [], "roc": [], "not_applicable": []}
    targets = inputs.settings["targets"]
    for name, given in inputs.settings["detectors"].items():
        module, parameters = families.configured("detectors", name, given)
        if module.NEEDS and module.NEEDS not in offers:
            results["not_applicable"].append({"detector": name, "needs": module.NEEDS})
            continue
        suspicion = module.detect(evidence, parameters)
        scores[name] = suspicion.score
        for table, rows in evaluate(suspicion, role, train.label, train.group_id, targets).items():
            results[table] += [{"detector": name, **row} for row in rows]
    write_parquet(pa.table(scores), args.out / "detection_scores.parquet")
    write_json(args.out / "results_detect.json", {**inputs.made_by, **run_key(args), **results})
