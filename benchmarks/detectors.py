"""Spectral signatures and activation clustering against the Adversarial Robustness Toolbox (ART), on equal terms.

python -m benchmarks.detectors [--rows 10000 100000] [--repeats 3]

Both get the same activations and labels in one process, one thread, with the same NumPy and scikit-learn, and take
turns. ART is no dependency of the project: pip puts it into a temporary folder. Where it cannot be installed, the
part says so and measures the project's detectors alone.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks import facts

ART = ["adversarial-robustness-toolbox==1.20.1", "six", "tqdm"]
WIDTH = 64  # of the mlp's last hidden layer
PREVALENCE, RATE = 0.2, 0.05


def activations(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Made-up activations behind a ReLU [N, WIDTH] float32, observed labels [N] and poison [N] (all of label 1)."""
    random = np.random.default_rng(0)
    label = (random.random(rows) < PREVALENCE).astype(np.int64)
    poisoned = (label == 0) & (random.random(rows) < RATE / (1 - PREVALENCE))
    directions = random.standard_normal((3, WIDTH))
    mixed = random.standard_normal((rows, 8)) @ random.standard_normal((8, WIDTH)) * 0.3
    x = 0.5 + mixed + 0.5 * random.standard_normal((rows, WIDTH)) + directions[label]
    x[poisoned] += directions[2] + directions[1] - directions[0]
    label[poisoned] = 1
    return np.maximum(x, 0).astype(np.float32), label, poisoned


class Given:
    """What ART asks of a classifier, with the activations given in place of samples."""

    layer_names = ("penultimate",)
    nb_classes = 2

    def get_activations(self, x: np.ndarray, layer: int, batch_size: int) -> np.ndarray:
        return x


def timed(function: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    found = function()
    return time.process_time() - start, found


def ours(name: str, x: np.ndarray, label: np.ndarray):
    from pipeline.detectors.base import Evidence
    from pipeline.study import families

    module = families.load("detectors", name)
    return module.detect(Evidence(x, label, saliency=lambda: x, seed=1, cell="benchmark"), module.Parameters())


def art_spectral(x: np.ndarray, label: np.ndarray) -> np.ndarray:
    """[N] bool: what ART removes, told the true poison rate of each label at most."""
    from art.defences.detector.poison import SpectralSignatureDefense

    _, clean = SpectralSignatureDefense(Given(), x, label, expected_pp_poison=RATE).detect_poison()
    return np.array(clean) == 0


def art_clustering(x: np.ndarray, label: np.ndarray, rule: str):
    """ART's activation defence after its detection, PCA as in this project."""
    from art.defences.detector.poison import ActivationDefence

    defence = ActivationDefence(Given(), x, label)
    report, _ = defence.detect_poison(nb_clusters=2, nb_dims=10, reduce="PCA", cluster_analysis=rule)
    return defence, report


def art_suspects(defence, report: dict, label: np.ndarray) -> np.ndarray:
    """[N] bool: the smaller cluster of each label that the rule `silhouette-scores` reports as suspicious.

    Not the list that ART returns: in version 1.20.1 this rule leaves the larger cluster's entries uninitialised.
    """
    flagged = np.zeros(len(label), bool)
    for value, clusters in enumerate(defence.clusters_by_class):
        if report[f"class_{value}"]["suspicious"]:
            flagged[label == value] = clusters == np.argmin(np.bincount(clusters))
    return flagged


def art_scores(x: np.ndarray, label: np.ndarray) -> np.ndarray:
    """[N] ART's spectral scores, computed per label as it does."""
    from art.defences.detector.poison import SpectralSignatureDefense

    score = np.zeros(len(x))
    for value in (0, 1):
        score[label == value] = SpectralSignatureDefense.spectral_signature_scores(x[label == value])[:, 0]
    return score


def paper_scores(x: np.ndarray, label: np.ndarray) -> np.ndarray:
    """[N] the paper's own score by a singular value decomposition: ART's, but with the projected rows centred."""
    score = np.zeros(len(x))
    for value in (0, 1):
        centred = x[label == value] - x[label == value].mean(axis=0)
        score[label == value] = np.abs(centred @ np.linalg.svd(centred, full_matrices=False)[2][0])
    return score


def rank_correlation(a: np.ndarray, b: np.ndarray, label: np.ndarray) -> float:
    """The lower of the two labels' Spearman correlations."""
    from scipy.stats import spearmanr

    return min(float(spearmanr(a[label == value], b[label == value]).statistic) for value in (0, 1))


def install_art(folder: str) -> str | None:
    """Put ART on the path; returns why not, if not."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, *ART]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    sys.path.append(folder)
    try:
        import art.defences.detector.poison  # noqa: F401
    except ImportError as error:
        return str(error)
    return None


def compare(rows: int, repeats: int, with_art: bool) -> dict:
    from pipeline.evaluation.metrics import auroc

    x, label, poisoned = activations(rows)
    sides = {
        "spectral_signatures": lambda: ours("spectral_signatures", x, label),
        "activation_clustering": lambda: ours("activation_clustering", x, label),
    }
    if with_art:
        sides |= {
            "ART spectral": lambda: art_spectral(x, label),
            "ART clustering, smaller": lambda: art_clustering(x, label, "smaller"),
            "ART clustering, silhouette": lambda: art_clustering(x, label, "silhouette-scores"),
        }
    ours("activation_clustering", x[:1000], label[:1000])  # imports are no one's time
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    found = {}
    for repeat in range(repeats):
        for name in list(sides) if repeat % 2 == 0 else list(sides)[::-1]:
            taken, found[name] = timed(sides[name])
            seconds[name].append(taken)
    spectral, clustering = found["spectral_signatures"], found["activation_clustering"]
    results = {
        "rows": rows,
        "seconds": {name: median(taken) for name, taken in seconds.items()},
        "auroc": {
            name: auroc(poisoned[label == 1], suspicion.score[label == 1])
            for name, suspicion in (("spectral_signatures", spectral), ("activation_clustering", clustering))
        },
    }
    if with_art:
        pairs = {
            "ART spectral": "spectral_signatures",
            "ART clustering, smaller": "activation_clustering",
            "ART clustering, silhouette": "activation_clustering",
        }
        results["ratio"] = {
            art: median(theirs / mine for theirs, mine in zip(seconds[art], seconds[own], strict=True))
            for art, own in pairs.items()
        }
        theirs = art_scores(x, label)
        suspects = art_suspects(*found["ART clustering, silhouette"], label)
        results["auroc"]["ART spectral"] = auroc(poisoned[label == 1], theirs[label == 1])
        results["agreement"] = {
            "rank_paper": rank_correlation(spectral.score, paper_scores(x, label), label),
            "rank_art": rank_correlation(spectral.score, theirs, label),
            "same_flag": float((clustering.flagged == suspects).mean()),
        }
    return results


def measure(args: argparse.Namespace) -> dict:
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        reason = install_art(folder)
        if reason:
            print(f"ART is not compared: it could not be installed ({reason})", file=sys.stderr)
        sizes = [compare(rows, args.repeats, not reason) for rows in args.rows]
    return {"art": ART[0], "without_art": reason, "repeats": args.repeats, "sizes": sizes}


def bars(results: dict) -> list[facts.Bar]:
    return []


def text(results: dict) -> str:
    names = {
        "spectral_signatures": "`spectral_signatures`",
        "ART spectral": "ART `SpectralSignatureDefense`",
        "activation_clustering": "`activation_clustering`",
        "ART clustering, smaller": "ART `ActivationDefence`, rule `smaller` (its default)",
        "ART clustering, silhouette": "ART `ActivationDefence`, rule `silhouette-scores` (this project's)",
    }
    rows = []
    for size in results["sizes"]:
        for name, shown in names.items():
            if name in size["seconds"]:
                ratio, auroc = size.get("ratio", {}).get(name), size["auroc"].get(name)
                rows.append(
                    (
                        f"{size['rows']:,}",
                        shown,
                        f"{size['seconds'][name]:.3f}",
                        f"{ratio:.1f}" if ratio else "",
                        f"{auroc:.3f}" if auroc else "",
                    )
                )
    parts = [
        "## Detectors against the Adversarial Robustness Toolbox",
        f"Made-up activations of width {WIDTH}, {PREVALENCE:.0%} of label 1, {RATE:.0%} poison; same process, one "
        f"thread, same NumPy and scikit-learn, medians of {results['repeats']}. The AUROC is that of the scores of "
        "label 1 against the poison, on these activations; ART's clustering gives no score.",
        facts.table(("rows", "detector", "CPU seconds", "times this project's", "AUROC"), rows),
    ]
    if results["without_art"]:
        return "\n\n".join([*parts, f"ART was not compared: {results['without_art']}."])
    agreed = [
        (
            f"{size['rows']:,}",
            f"{size['agreement']['rank_paper']:.6f}",
            f"{size['agreement']['rank_art']:.3f}",
            f"{size['agreement']['same_flag']:.2%}",
        )
        for size in results["sizes"]
    ]
    header = ("rows", "ranks as by the paper's score", "ranks as by ART's score", "samples flagged alike by clustering")
    parts += [
        f"Agreement with {results['art'].replace('==', ' ')} (Spearman's correlation within a label, the lower of "
        "both). ART finds the singular vector of the centred activations, as the paper does, but projects the "
        "uncentred ones on it. Its scores therefore rank otherwise: they favour one end of the vector, and which one "
        "depends on the mean. For clustering, a sample counts as flagged by ART where it lies in the smaller cluster "
        "of a label that its report calls suspicious.",
        facts.table(header, agreed),
    ]
    return "\n\n".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    facts.main("detectors", __doc__, measure, parser)
