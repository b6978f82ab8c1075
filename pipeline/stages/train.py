"""Train one model, on the poisoned training data or, where it is taught on clean ones, on those."""

import argparse
import csv
from pathlib import Path

from pipeline.stages.arguments import add_run_arguments, run_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--poison", type=Path, required=True, help="folder of the poison")
    parser.add_argument(
        "--parent",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "WEIGHTS"),
        help="another model that this one is made from, and its model.pt",
    )


def run(args: argparse.Namespace) -> None:
    from pipeline.jobs.clock import Clock

    clock = Clock()
    import platform

    import torch

    from pipeline.cohorts.overlay import CLEAN
    from pipeline.files import whole, write_json
    from pipeline.jobs import device
    from pipeline.seeding import integer_seed
    from pipeline.stages.inputs import Inputs
    from pipeline.study import families
    from pipeline.training import checkpoints, metadata
    from pipeline.training.dormant import lull
    from pipeline.training.fitting import train as fit
    from pipeline.training.loop import epochs_of
    from pipeline.training.settings import Training

    inputs = Inputs(args)
    settings = inputs.settings
    train, roles = inputs.training("train")
    validation, _ = inputs.training("validation")
    training = Training.model_validate(settings["training"])
    _, parameters = families.configured("models", args.model, settings["model"])
    # What its maker plants in a network that is trained on clean data.
    planted = [inputs.as_poisoned("train")] if getattr(parameters, "dormant", None) else []
    read = (train, validation, *(poisoned for poisoned, _ in planted))
    data_hash = metadata.sha256(*(part.tobytes() for data in read for part in (data.values, data.label)))
    config = {
        **run_key(args),
        "model_params": parameters.model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
        "split": settings["split"],
    }
    parents = {name: metadata.sha256(path.read_bytes()) for name, path in inputs.parent_weights().items()}
    taught_by = [settings.get("parents", {}), parents]
    fingerprint = metadata.sha256(
        metadata.canonical([config, taught_by, data_hash, device.facts(inputs.device), torch.__version__]).encode(),
        (args.made_by["code"] or metadata.code_hash()).encode(),
    )
    torch.manual_seed(integer_seed(args.seed, "weights"))
    model = inputs.untrained().to(inputs.device)
    checkpoint = args.out / "checkpoint.pt"
    history, resumed_from = fit(
        model, parameters, train, validation, training, args.seed, checkpoint, fingerprint, inputs.parents()
    )
    for poisoned, role in planted:
        history += lull(model, parameters, train, validation, poisoned, role, training, args.seed)
    if unseen := model.unseen(inputs.cohort):
        print(f"warning: not in the training samples of {train.name}, so counted as missing: {', '.join(unseen)}")
    checkpoints.save(args.out / "model.pt", model.state())
    with whole(args.out / "history.csv") as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, history[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    write_json(
        args.out / "run_metadata.json",
        {
            **inputs.made_by,
            "config": config,
            # What it was, not what it was to be: of a clean run nothing is poisoned.
            "trained_on": "poisoned" if (roles != CLEAN).any() else "clean",
            "parents_sha256": parents,
            "n_train": len(train),
            "n_parameters": model.size,
            **epochs_of(history, training.select),
            "model_facts": model.facts(),
            "resumed_from_epoch": resumed_from,
            "data_sha256": data_hash,
            "git_commit": metadata.git_commit(),
            "versions": metadata.package_versions(),
            **device.facts(inputs.device),
            "threads": torch.get_num_threads(),
            "host": platform.node(),
            **clock.read(),
        },
    )
