"""Training throughput of every model, and how close the mlp's training step comes to the matrix-multiply limit.

python -m benchmarks.training [--samples 3500] [--epochs 3] [--repeats 3] [--steps 40]

Throughput is training samples per second of `fit`, validation and checkpoints included, on a series (24 steps of 21
features, as icu_dev) and on a table (30 features), batch 256, one thread. Matrix multiplication is `torch.mm` in
float32, one thread: the best of several square sizes, measured in turn with the training in the same process.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks import facts

BATCH = 256
SHAPES = {"series": (24, 21), "table": (1, 30)}
SIZES = (512, 1024, 2048)
BAR = 0.35


def samples(classifier, rows: int, steps: int, features: int, seed: int = 0):
    """Standard normal values, a tenth missing, and a label that depends on them."""
    import numpy as np

    from pipeline.training.loop import Samples

    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, steps, features)).astype(np.float32)
    label = (x.mean(axis=(1, 2)) + 0.1 * random.standard_normal(rows) > 0).astype(np.float32)
    x[random.random(x.shape) < 0.1] = np.nan
    return Samples.of(classifier, x, label)


def classifier_of(model: str, steps: int, features: int):
    import torch

    from pipeline.cohorts.cohort import Feature
    from pipeline.models.base import build

    torch.manual_seed(0)
    return build(model, {}, steps, tuple(Feature(f"f{number}") for number in range(features)))


def fit_seconds(model: str, shape: str, rows: int, epochs: int, validation_rows: int) -> float:
    """CPU seconds of one `fit` from scratch."""
    from pipeline.training.loop import fit
    from pipeline.training.settings import Training

    classifier = classifier_of(model, *SHAPES[shape])
    train = samples(classifier, rows, *SHAPES[shape])
    validation = samples(classifier, validation_rows, *SHAPES[shape], seed=1)
    settings = Training(epochs=epochs, batch_size=BATCH)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        fit(classifier, train, validation, settings, 1, Path(folder) / "checkpoint.pt", "benchmark")
        return time.process_time() - start


def multiply_rate() -> float:
    """Floating-point operations per second of `torch.mm`, the best of `SIZES`."""
    import torch

    rates = []
    for size in SIZES:
        a, b = torch.randn(size, size), torch.randn(size, size)
        torch.mm(a, b)
        count = max(1, (SIZES[-1] // size) ** 3)
        start = time.process_time()
        for _ in range(count):
            torch.mm(a, b)
        rates.append(2 * size**3 * count / (time.process_time() - start))
    return max(rates)


def step_share(shape: str, steps: int, repeats: int) -> dict[str, float]:
    """How fast the mlp's training steps compute, against `multiply_rate` measured before and after them.

    The time of a step is the difference between two trainings, so that what does not belong to steps (the first
    epoch's start, validation, checkpoint) cancels out: they differ in the number of training samples alone.
    """
    classifier = classifier_of("mlp", *SHAPES[shape])
    sizes = [parameter.shape for parameter in classifier.parameters() if parameter.dim() == 2]
    weights = sum(rows * columns for rows, columns in sizes)
    first = sizes[0][0] * sizes[0][1]
    parameters = sum(parameter.numel() for parameter in classifier.parameters())
    seconds, rates = [], []
    for _ in range(repeats):
        before = multiply_rate()
        short, long = (fit_seconds("mlp", shape, BATCH * count, 3, BATCH) for count in (steps, 3 * steps))
        rates.append((before + multiply_rate()) / 2)
        seconds.append((long - short) / (3 * 2 * steps))
    share = median(6 * parameters * BATCH / taken / rate for taken, rate in zip(seconds, rates, strict=True))
    # A first layer needs no gradient of its input: a third of its work is never done.
    done = (6 * weights - 2 * first) / (6 * parameters)
    return {
        "parameters": parameters,
        "milliseconds": 1000 * median(seconds),
        "multiply_gflops": median(rates) / 1e9,
        "share": share,
        "share_done": share * done,
    }


def measure(args: argparse.Namespace) -> dict:
    import torch

    from pipeline.study import families

    torch.set_num_threads(1)
    throughput: dict[str, dict[str, list[float]]] = {}
    # Networks: what an epoch costs means nothing for the others.
    modules = {name: families.load("models", name) for name in families.names("models")}
    # Those that read CAN frames alone have no place among stays.
    models = [name for name, module in modules.items() if hasattr(module, "Network") and not hasattr(module, "READS")]
    fit_seconds("mlp", "table", BATCH, 1, BATCH)  # imports and first calls belong to no model
    for repeat in range(args.repeats):
        for model in models if repeat % 2 == 0 else models[::-1]:
            for shape in SHAPES:
                seconds = fit_seconds(model, shape, args.samples, args.epochs, args.samples // 5)
                rates = throughput.setdefault(model, {}).setdefault(shape, [])
                rates.append(args.samples * args.epochs / seconds)
    return {
        "samples": args.samples,
        "epochs": args.epochs,
        "repeats": args.repeats,
        "throughput": {
            model: {shape: median(rates) for shape, rates in shapes.items()} for model, shapes in throughput.items()
        },
        "step": {shape: step_share(shape, args.steps, args.repeats) for shape in SHAPES},
    }


def bars(results: dict) -> list[facts.Bar]:
    share = results["step"]["series"]["share_done"]
    what = f"mlp training step, batch {BATCH}, share of the matrix-multiply limit (work done, series)"
    return [facts.Bar(what, f"≥ {BAR:.0%}", f"{share:.0%}", share >= BAR)]


def text(results: dict) -> str:
    described = {shape: f"{shape}, {steps} × {features}" for shape, (steps, features) in SHAPES.items()}
    rates = [
        (f"`{model}`", *(f"{shapes[shape]:,.0f}" for shape in SHAPES))
        for model, shapes in results["throughput"].items()
    ]
    steps = [
        (
            described[shape],
            f"{step['parameters']:,}",
            f"{step['milliseconds']:.2f}",
            f"{step['multiply_gflops']:.0f}",
            f"{step['share']:.0%}",
            f"{step['share_done']:.0%}",
        )
        for shape, step in results["step"].items()
    ]
    return "\n\n".join(
        [
            "## Training",
            f"Training samples per CPU second of `fit`, one thread: {results['samples']:,} training samples, batch "
            f"{BATCH}, {results['epochs']} epochs, with validation on a fifth as many samples and the last "
            f"checkpoint; default parameters, medians of {results['repeats']}.",
            facts.table(("model", *described.values()), rates),
            f"The `mlp`'s training step (batch, forward, backward, AdamW) at batch {BATCH} against `torch.mm` in "
            "float32, one thread, same process. By the usual count a step is 6 × parameters × batch operations. The "
            "last column counts only those that are done: the first layer needs no gradient of its input.",
            facts.table(
                ("mlp on", "parameters", "ms per step", "`torch.mm`, GFLOP/s", "share of it", "share, work done"), steps
            ),
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=3500)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="training steps per epoch, where a step is timed")
    facts.main("training", __doc__, measure, parser)
