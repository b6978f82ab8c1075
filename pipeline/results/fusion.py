"""Fused models against their members: the table `fusion`, and what the report says of it.

All AUROCs of a run are those of one half of its validation data, on which no rule was fitted (models/fusion.py).
"""

from html import escape

import numpy as np
import pandas as pd

from pipeline.cohorts.splits import ROLES
from pipeline.evaluation.statistics import mean_interval, proportion_interval
from pipeline.files import number
from pipeline.results.columns import RUN
from pipeline.results.disclosure import of_people
from pipeline.results.pages import MISSING, WITHHELD, html_table, interval, percent
from pipeline.results.pages import number as shown
from pipeline.smallcells import MIN_CELL, error_of_tens, share_in_tens
from pipeline.study.grid import CLEAN

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
    better = max(members, key=members.get) if members else None
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
                how = {"bounds": (-1, 1), "test_to_train": shared, "error": error_of_both}
                _, mean, low, high = (part.item() for part in mean_interval(aurocs - values[other], **how))
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


def answers(table: pd.DataFrame, dataset: str) -> list[str]:
    """Of each fused model of `dataset`, in its clean runs: whether it beats its better member, and what would."""
    here = table[(table["dataset"] == dataset) & (table["trigger"] == CLEAN)]
    return [_answer(model, rows) for model, rows in here.groupby("model")]


def _answer(model: str, rows: pd.DataFrame) -> str:
    own = rows[rows["kind"] == MODEL].iloc[0]
    if pd.isna(own["auroc"]):
        return f"Fusion {model} ({own['candidate']}): {WITHHELD}"
    member = rows[(rows["kind"] == OF) & (rows["candidate"] == own["better_member"])].iloc[0]
    best = rows[rows["kind"] == RULE].sort_values("auroc", ascending=False, kind="stable").iloc[0]
    difference = [own[name] for name in ("difference", "difference_low", "difference_high")]
    text = (
        f"Fusion {model} ({own['candidate']}) {_verdict(*difference)} its better member, {member['candidate']}: AUROC "
        f"{interval(own['auroc'], own['ci_low'], own['ci_high'])} against {shown(member['auroc'])} on the half of the "
        f"validation data that it was not fitted on, difference {interval(*difference, signed=True)}."
    )
    if best["candidate"] == own["candidate"]:
        text += " No other rule ranks these samples better."
    else:
        text += f" Of all rules on the same state {best['candidate']} ranks best ({shown(best['auroc'])})."
    over = [own[name] for name in ("over_constant", "over_constant_low", "over_constant_high")]
    if own["candidate"] != "constant" and not pd.isna(over[0]):
        text += f" A constant α {_constant(*over)} (difference to it {interval(*over, signed=True)})."
    return text


def _verdict(difference: float, low: float, high: float) -> str:
    if low > 0:
        return "beats"
    if high < 0:
        return "does not beat"
    if difference == 0:
        return "equals"
    ahead = "ahead of" if difference > 0 else "behind"
    return f"is {ahead}, but with one seed not to be told from," if pd.isna(low) else "is not to be told from"


def _constant(difference: float, low: float, high: float) -> str:
    if low > 0:
        return "does not do as well"
    if high < 0:
        return "does better"
    if pd.isna(low):
        return f"does {'as well or better' if difference <= 0 else 'worse'} with this one seed"
    return "does as well, as far as the seeds tell"


def section_html(table: pd.DataFrame) -> str:
    """The section of the report; empty where the study has no fused model."""
    if table.empty:
        return ""
    shown_rows = pd.DataFrame(
        {
            "dataset": table["dataset"],
            "fusion": table["model"],
            "trigger": table["trigger"],
            "poison rate": [percent(rate) for rate in table["rate"]],
            "what": [_what(kind, name) for kind, name in zip(table["kind"], table["candidate"], strict=True)],
            "validation AUROC": _intervals(table, ("auroc", "ci_low", "ci_high")),
            "better member": table["better_member"].fillna(MISSING),
            "difference to it": _intervals(table, ("difference", "difference_low", "difference_high"), signed=True),
            "difference to the best constant α": _intervals(
                table, ("over_constant", "over_constant_low", "over_constant_high"), signed=True
            ),
            "mean α": [MISSING if pd.isna(alpha) else f"{alpha:.2g}" for alpha in table["alpha"]],
        }
    )
    return (
        '<h2 id="fusion">Fusion</h2><p>A fused model against its members and against every other way to fuse them, all '
        "fitted on one half of the validation data and compared on the other: AUROC, means over seeds with 95 % "
        "intervals, differences paired by seed. The better member and the best of six rules are picked on the samples "
        "that they are compared on, which favours them a little. Intervals cover the seeds: with <code>split: fixed"
        "</code> all of them are compared on the same samples, and others might be ranked otherwise. α is the weight "
        "of the first member. How fused models "
        "and their members do on test data, and under attack, stands in the other sections under their names.</p>"
        + html_table(shown_rows, left=["dataset", "fusion", "trigger", "what", "better member"])
    )


def answers_html(table: pd.DataFrame, dataset: str) -> str:
    told = answers(table, dataset)
    if not told:
        return ""
    question = "Is a fusion worth it?"
    return f'<div class="answer"><p><strong>{question}</strong><br>{escape(" ".join(told))}</p></div>'


def _intervals(table: pd.DataFrame, names: tuple[str, str, str], signed: bool = False) -> list[str]:
    return [interval(*row, signed=signed) for row in table[list(names)].itertuples(index=False)]


def _what(kind: str, name: str) -> str:
    return {MODEL: f"the model itself ({name})", RULE: f"rule {name}", OF: f"member {name}"}[kind]
