"""Fused models against their members: the table `fusion`.

All AUROCs of a run are those of one half of its validation data, on which no rule was fitted (models/fusion.py).
"""

import numpy as np
import pandas as pd

from pipeline.cohorts.roles import ROLES
from pipeline.evaluation.statistics import mean_interval, proportion_interval
from pipeline.files import number
from pipeline.results.columns import RUN
from pipeline.results.disclosure import of_people
from pipeline.smallcells import MIN_CELL, error_of_tens, share_in_tens

MEMBER = "fusion"  # the model of the family that is one
MODEL, RULE, OF = "fusion", "rule", "member"  # what a row is about: the model itself, a rule beside it, a member of it
COLUMNS = [
    *[*RUN, "candidate", "kind", "n_seeds", "auroc", "ci_low", "ci_high"],
    *["better_member", "difference", "difference_low", "difference_high"],
    *["over_constant", "over_constant_low", "over_constant_high", "alpha"],
]
_TYPES = {"n_seeds": "Int64"} | dict.fromkeys(
    ["dataset", "model", "trigger", "candidate", "kind", "better_member"], "str"
)
_HALF = ROLES["validation"] / 2 / ROLES["train"]


def table(study, evals: list[dict]) -> pd.DataFrame:
    """One row per run key of a fused model × candidate: the model as it is, every rule, every member.

    Means over seeds of the AUROC with 95 % intervals, and paired by seed the differences to `better_member`, the one of
    the higher mean, and to the best constant α. A member is picked and compared on the same samples, so the difference
    is a little too small. `alpha` is the mean weight of the first member. AUROCs are shares of pairs in tens, and
    missing where they rest on fewer than ten patients; of cars they are exact.
    """
    fused = [fact for fact in evals if study.member("models", fact["model"]) == MEMBER]
    by_run: dict[tuple, list[dict]] = {}
    for fact in sorted(fused, key=lambda fact: [fact[name] for name in (*RUN, "seed")]):
        told = fact["model_facts"] | {"people": of_people(fact)}
        by_run.setdefault(tuple(fact[name] for name in RUN), []).append(told)
    shared = _HALF if study.split == "per_seed" else 0.0
    rows = [dict(zip(RUN, key, strict=True)) | row for key, facts in by_run.items() for row in _rows(facts, shared)]
    found = pd.DataFrame([[row.get(name) for name in COLUMNS] for row in rows], columns=COLUMNS, dtype=object)
    return found.astype({name: _TYPES.get(name, "float64") for name in COLUMNS})


def _rows(facts: list[dict], shared: float) -> list[dict]:
    """The candidates of one run key; `facts` are those of its seeds."""
    candidates = [(MODEL, facts[0]["rule"]), *((RULE, name) for name in facts[0]["rules"])]
    candidates += [(OF, name) for name in facts[0]["members"]]
    values = {candidate: np.array([_auroc(fact, *candidate) for fact in facts], float) for candidate in candidates}
    members = {
        name: np.nanmean(values[OF, name]) for kind, name in candidates if kind == OF and not _empty(values[OF, name])
    }
    better = max(members, key=members.__getitem__) if members else None
    pairs = np.array([fact["pairs"] for fact in facts], float)
    error = float((error_of_tens(pairs) / pairs).mean()) if facts[0]["people"] else 0.0
    rows = []
    for (kind, name), aurocs in values.items():
        over = proportion_interval(aurocs, test_to_train=shared, error=error)
        row = {"candidate": name, "kind": kind, "better_member": better}
        row |= dict(zip(("n_seeds", "auroc", "ci_low", "ci_high"), (part.item() for part in over), strict=True))
        for column, other in (("difference", (OF, better)), ("over_constant", (RULE, "constant"))):
            if other in values:
                error_of_both = 0.0 if other == (kind, name) else 2 * error
                found = mean_interval(aurocs - values[other], bounds=(-1, 1), test_to_train=shared, error=error_of_both)
                _, mean, low, high = (part.item() for part in found)
                row |= {column: mean, f"{column}_low": low, f"{column}_high": high}
        rows.append(row | {"alpha": _alpha(facts, kind, name)})
    return rows


def _empty(values: np.ndarray) -> bool:
    return bool(np.isnan(values).all())


def _auroc(fact: dict, kind: str, name: str) -> float | None:
    if _withheld(fact):
        return None
    exact = fact["auroc"] if kind == MODEL else fact[f"{kind}s"][name]
    if not fact["people"]:
        return exact
    return number(float(share_in_tens(exact, fact["pairs"])))


def _withheld(fact: dict) -> bool:
    return fact["people"] and min(fact["groups"].values()) < MIN_CELL


def _alpha(facts: list[dict], kind: str, name: str) -> float | None:
    """The mean weight over seeds, to two digits: it was chosen by how a few samples rank."""
    key = {"constant": "constant", "dqn": "dqn_mean"}.get(name if kind == RULE else "")
    told = [fact["alpha"][key] for fact in facts if key and not _withheld(fact)]
    return float(f"{np.mean(told):.2g}") if told else None
