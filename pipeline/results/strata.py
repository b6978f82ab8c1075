"""Disclosure control of the numbers per stratum, and how far it moves them.

The values of a stratum are parts of the test set, so what is told of some of them and of all could tell of the rest. So
besides the two rules of `disclosure`, the counts behind the parts add up to those told of the whole, and the parts that
are withheld are within the others: the difference is always 0.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from pipeline.evaluation.strata import RATES, SITUATIONS, attack, f1
from pipeline.results.coarseness import rounds
from pipeline.results.columns import KEY
from pipeline.results.disclosure import of_people
from pipeline.smallcells import MIN_CELL, error_of_tens, share_in_tens, tens_that_add_up


def strata_in_tens(fact: dict) -> list[dict]:
    """The rows by stratum that `eval` found, as they may be told; what may not is None."""
    target, (whole, *parts) = fact["target"], fact["strata"]
    if not of_people(fact):
        return [_measures(row, target) for row in fact["strata"]]
    whole = _whole(whole, target)
    told = [whole]
    for stratum in dict.fromkeys(row["stratum"] for row in parts):
        rows = [dict(row) for row in parts if row["stratum"] == stratum]
        for label in (0, 1):
            _share_out(rows, whole, label)
        told += rows
    shown = [_measures(row | {"auroc_clean": _auroc(row)}, target) for row in told]
    # Of few patients of one label, how many victims there are, or add up to, would give these away.
    few = None in (whole["n_label_0"], whole["n_label_1"])
    return [row | {"n_victims": None} for row in shown] if few else shown


def _whole(row: dict, target: int | None) -> dict:
    """The test set, as the table of runs tells it: of few patients of one label, what rests on victims alone."""
    few = [0 < row["patients"][f"label_{label}"] < MIN_CELL for label in (0, 1)]
    told = dict(row)
    for label, rate in enumerate(RATES):
        size, of_victims = f"n_label_{label}", label == _victims(target) and not few[label]
        told[size] = row[size] if of_victims or not any(few) else None
        for situation in SITUATIONS:
            name = f"{rate}_{situation}"
            shown = (of_victims and situation.startswith("poison")) or not any(few)
            share = share_in_tens(row[name], row[size])
            told[name] = float(share) if shown and not np.isnan(share) else None
    return told


def _share_out(rows: list[dict], whole: dict, label: int) -> None:
    """Write into `rows`, the values of one stratum, what may be told of the samples with `label`."""
    size, names = f"n_label_{label}", [f"{RATES[label]}_{situation}" for situation in SITUATIONS]
    total = whole[size]
    for row in rows:
        if total is None or 0 < row["patients"][f"label_{label}"] < MIN_CELL:
            row |= dict.fromkeys([size, *names])
    kept = [row for row in rows if row[size]]
    if not kept:
        return
    sizes = np.array([row[size] for row in kept])
    largest, rest = np.argmax(sizes), total % MIN_CELL
    sizes = tens_that_add_up(sizes, total - rest, np.full(len(kept), MIN_CELL), np.full(len(kept), total))
    most = sizes.copy()
    sizes[largest] += rest
    most[largest] -= MIN_CELL if rest else 0  # what is left of it must not be few
    counts: Iterable[float | None]
    for name in names:
        if whole[name] is None:
            counts = [None] * len(kept)
        elif whole[name] == 1:
            counts = sizes
        else:
            found = sizes * [row[name] for row in kept]
            counts = tens_that_add_up(found, round(whole[name] * total), np.zeros(len(kept)), most)
        for row, count, of in zip(kept, counts, sizes, strict=True):
            row[name] = None if count is None else float(count / of)
    for row, of in zip(kept, sizes, strict=True):
        row[size] = int(of)


def _auroc(row: dict) -> float | None:
    """Of the pairs that are told, so many in tens.

    Nothing where a value has one label: held against the others of the whole, the parts would add up to it, and what
    is withheld of one would be what is left.
    """
    pairs = (row["n_label_0"] or 0) * (row["n_label_1"] or 0)
    return float(share_in_tens(row["auroc_clean"], pairs)) if pairs else None


def _victims(target: int | None) -> int | None:
    """The label of the samples that an attack is about; a clean run has none."""
    return None if target is None else 1 - target


def _measures(row: dict, target: int | None) -> dict:
    """What the tables show of `row`: of one label alone no more than what rests on victims, as in the table of runs."""
    sizes, told = [row["n_label_0"], row["n_label_1"]], dict(row)
    if None in sizes:
        for label, rate in enumerate(RATES):
            alone = ["clean", "control"] if label == _victims(target) else SITUATIONS
            told |= dict.fromkeys([f"{rate}_{situation}" for situation in alone])
        told["n_label_1"] = None
    n_victims = None if target is None else sizes[1 - target]
    told["f1_clean"] = f1(told)
    return told | attack(told, target) | {"n": None if None in sizes else sum(sizes), "n_victims": n_victims}


def errors(table: pd.DataFrame, datasets: pd.DataFrame) -> pd.DataFrame:
    """The table of strata with how far its numbers may lie from what was measured in place of them.

    That is ten of the samples that a share is taken over, or twenty where another value of the stratum is withheld and
    lies within; a few more for the value whose samples are told in no tens, so that all add up. Twice that for a
    difference, three times for alerts, which are made of four counts. Of an AUROC it is ten of its pairs, of an F1 the
    farther of the two ends that its rates and sizes leave. It is nothing for cohorts of no people, which `datasets`
    tells.
    """
    withheld = table["n"].isna().groupby([table[name] for name in [*KEY, "stratum"]]).transform("any")
    n, positives, victims = (table[name].to_numpy(float, na_value=np.nan) for name in ("n", "n_label_1", "n_victims"))

    def error(of: np.ndarray) -> np.ndarray:
        of = np.where(of > 0, of, np.nan)
        return (MIN_CELL * np.where(withheld, 2, 1) + of % MIN_CELL) / of

    victims = np.where(np.isnan(victims), MIN_CELL, victims)  # of so many at least, where it is not told of how many
    off = {"asr": error(victims), "asr0": error(victims), "asr_net": 2 * error(victims)}
    off |= dict.fromkeys(("alerts_raised", "alerts_raised_control"), 3000 * error(n))
    for rate, of in zip(RATES, (n - positives, positives), strict=True):
        off |= {f"{rate}_clean": error(of), f"{rate}_control": error(of)}
    pairs = np.where((n > positives) & (positives > 0), (n - positives) * positives, np.nan)
    # A share of the pairs that are told, not of those that there were: no whole number of them.
    off["auroc_clean"] = (error_of_tens(pairs) + 0.5) / pairs
    off["f1_clean"] = _error_of_f1(table, (n - positives, positives), (error(n - positives), error(positives)))
    rounded = rounds(table, datasets)
    return table.assign(**{name: np.where(rounded, reach, 0.0) for name, reach in off.items()})


def _error_of_f1(table: pd.DataFrame, sizes: tuple[np.ndarray, ...], error: tuple[np.ndarray, ...]) -> np.ndarray:
    """Of F1 = 2 r / (r + 1 + f · n₀ / n₁), r the recall and f the false-positive rate: r up and f and n₀ / n₁ down, or
    the other way. The errors of sizes and shares are those of `errors`, per label.
    """
    fpr, recall = (table[f"{rate}_clean"].to_numpy(float, na_value=np.nan) for rate in RATES)
    told = table["f1_clean"].to_numpy(float, na_value=np.nan)
    ends = []
    for sign in (1, -1):
        hits, alarms = np.clip(recall + sign * error[1], 0, 1), np.clip(fpr - sign * error[0], 0, 1)
        # A size is off by as many as a count of it is; what would be nobody is one.
        negatives, positives = (
            np.maximum(size * (1 + way * share), 1)
            for size, share, way in zip(sizes, error, (-sign, sign), strict=True)
        )
        ends.append(np.abs(2 * hits / (hits + 1 + alarms * negatives / positives) - told))
    return np.maximum(*ends)
