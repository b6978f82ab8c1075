"""Attribute a run's predictions on clean and on triggered samples, and its control's on the same."""

import argparse
import json
from pathlib import Path

from pipeline.stages.arguments import add_run_arguments, run_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True, help="model.pt of the clean run of the same seed")


def run(args: argparse.Namespace) -> None:
    from pipeline import device, families
    from pipeline.cohorts.cohort import read_cohort
    from pipeline.evaluation.explanations import explain
    from pipeline.evaluation.settings import Explain
    from pipeline.files import write_json
    from pipeline.models.base import build
    from pipeline.training.checkpoints import load_weights
    from pipeline.training.data import read_split

    settings = json.loads(args.settings)
    where = device.choose(settings["device"])
    cohort = read_cohort(args.cohort)
    split = read_split(args.splits, cohort, args.seed, settings["split"])
    model, control = (build(args.model, settings["model"], cohort.n_steps, cohort.features) for _ in range(2))
    load_weights(model, args.weights)
    load_weights(control, args.control)
    for classifier in (model, control):
        classifier.to(where)
    module = families.load("triggers", args.trigger)
    trigger = module.fit(module.Parameters.model_validate(settings["trigger"]), cohort.subset(split.train))
    test = cohort.subset(split.test)
    victims = test.subset(test.label != settings["target"])
    results = explain(model, control, trigger, victims, Explain.model_validate(settings["explain"]), args.seed)
    write_json(args.out / "results_explain.json", {**args.made_by, **run_key(args), **results})
