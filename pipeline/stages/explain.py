"""Attribute a run's predictions on clean and on triggered samples, and its control's on the same."""

import argparse
from pathlib import Path

from pipeline.stages.arguments import add_run_arguments, run_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True, help="model.pt of the clean run of the same seed")
    parser.add_argument("--poison", type=Path, required=True, help="folder of the poison")


def run(args: argparse.Namespace) -> None:
    import numpy as np

    from pipeline.evaluation.explanations import explain
    from pipeline.evaluation.settings import Explain
    from pipeline.files import write_json
    from pipeline.stages.inputs import Inputs

    inputs = Inputs(args)
    settings = inputs.settings
    model, control = inputs.trained(args.weights), inputs.trained(args.control)
    test = inputs.cohort.subset(inputs.split.test)
    victims = test.subset(test.label != settings["target"])
    parameters = Explain.model_validate(settings["explain"])
    results = explain(model, control, inputs.trigger(), victims, parameters, args.seed)
    # Of the target label; where all others are explained, n_samples tells these apart from the test set.
    rest = np.unique(test.group_id[test.label == settings["target"]])
    results["rest_patients"] = len(rest) if results["n_samples"] == len(victims) else 0
    write_json(args.out / "results_explain.json", {**inputs.made_by, **run_key(args), **results})
