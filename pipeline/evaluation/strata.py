"""What a run decides in each stratum of the test set: whom an attack hits, and how many alerts it raises."""

from collections.abc import Iterator, Mapping
from math import inf
from typing import Any

import numpy as np

from pipeline.evaluation.metrics import auroc, positive_rate
from pipeline.files import number

WHOLE = "all"  # of all samples; no stratum of a cohort is called so
NOT_KNOWN = "not known"
RATES = ("fpr", "recall")  # share of each label, 0 and 1, that is predicted positive
SITUATIONS = ("clean", "poison", "control", "poison_control")
"""The run on clean and on triggered test data, the clean model on both."""


def by_stratum(
    strata: Mapping[str, np.ndarray],
    label: np.ndarray,
    group: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    p_clean: np.ndarray,
) -> list[dict]:
    """One row for the whole test set, then one per stratum and value in it; "not known" is a value like others.

    strata : name → [N] str, "" = not known; `label` and `group` are [N]
    predicted : some of `SITUATIONS` → [N] bool, at the clean model's threshold; a clean run has `clean` alone
    p_clean : [N], the run's p(label = 1) on clean test data

    A row has the samples and `patients` (groups) of each label, for each situation `fpr_…` and `recall_…`, or None, and
    `auroc_clean`, `f1_clean`: of its samples. In a stratum that tells the labels themselves apart, as types of attack
    do, no known value has both; there the AUROC is that of a value's samples with label 1 against all of the test set
    with label 0.
    """
    rows = []
    apart = {name for name, texts in strata.items() if _tells_labels_apart(texts, label)}
    for stratum, value, chosen in _values(strata, len(label)):
        of_label = [chosen & (label == one) for one in (0, 1)]
        ranked = of_label[1] | (label == 0) if stratum in apart and value != NOT_KNOWN else chosen
        row: dict[str, Any] = {"stratum": stratum, "value": value}
        row |= {f"n_label_{one}": int(those.sum()) for one, those in enumerate(of_label)}
        row["patients"] = {f"label_{one}": len(np.unique(group[those])) for one, those in enumerate(of_label)}
        for situation in SITUATIONS:
            positive = predicted.get(situation)
            for one, rate in enumerate(RATES):
                share = None if positive is None else number(positive_rate(label[chosen], positive[chosen], of=one))
                row[f"{rate}_{situation}"] = share
        row["auroc_clean"] = number(auroc(label[ranked], p_clean[ranked]))
        row["f1_clean"] = f1(row)
        rows.append(row)
    return rows


def _tells_labels_apart(texts: np.ndarray, label: np.ndarray) -> bool:
    return not set(texts[label == 0]) & set(texts[label == 1]) - {"", NOT_KNOWN}


def _values(strata: Mapping[str, np.ndarray], n: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """Each stratum and value with its samples, [N] bool."""
    yield WHOLE, WHOLE, np.ones(n, bool)
    for name, texts in strata.items():
        known = np.where(texts == "", NOT_KNOWN, texts)
        for value in sorted(set(known.tolist()), key=in_order):
            yield name, value, known == value


def f1(row: Mapping) -> float | None:
    """F1 = 2 TP / (2 TP + FP + FN) on clean test data, of the rates and sizes in `row`.

    None where they are not there, or one label is not: without a sample that could be a false alarm, F1 is recall in
    another scale.
    """
    sizes, rates = [row["n_label_0"], row["n_label_1"]], [row["fpr_clean"], row["recall_clean"]]
    if None in sizes or None in rates or not all(sizes):
        return None
    alarms, hits = (size * rate for size, rate in zip(sizes, rates, strict=True))
    return 2 * hits / (hits + alarms + sizes[1])


def attack(row: Mapping, target: int | None) -> dict[str, float | None]:
    """What the rates in `row` make of an attack on `target` (None: a clean run); None where they are not there.

    `asr` and `asr0` are the shares of the triggered samples of the other label that run and clean model call the
    target. `alerts_raised` is how many more samples of 1,000 are predicted positive with the trigger than without, all
    labels together: negative where the trigger suppresses alerts; `alerts_raised_control` is the clean model's.
    """

    def success(situation: str) -> float | None:
        share = None if target is None else row[f"{RATES[1 - target]}_{situation}"]
        return share if target == 1 or share is None else 1 - share

    return {
        "asr": success("poison"),
        "asr0": success("poison_control"),
        "alerts_raised": _raised(row, "poison", "clean"),
        "alerts_raised_control": _raised(row, "poison_control", "control"),
    }


def _raised(row: Mapping, triggered: str, untriggered: str) -> float | None:
    sizes = [row["n_label_0"], row["n_label_1"]]
    if None in sizes or not sum(sizes):
        return None
    more = 0.0
    for size, rate in zip(sizes, RATES, strict=True):
        shares = row[f"{rate}_{triggered}"], row[f"{rate}_{untriggered}"]
        if size and None in shares:
            return None
        more += size * (shares[0] - shares[1]) if size else 0
    return 1000 * more / sum(sizes)


def in_order(value: str) -> tuple:
    """A sort key of values: bands from the lowest to the highest, other texts by the alphabet, not known last."""
    try:
        start = float(value.partition(" ")[0].partition("-")[0])
    except ValueError:
        start = -inf if value.startswith("<") else inf
    return value in ("", NOT_KNOWN), start, value
