"""What the report says of fused models, from the table `fusion`."""

import pandas as pd

from pipeline.results.fusion import MODEL, OF, RULE
from pipeline.results.pages import MISSING, WITHHELD, html_table, interval, percent
from pipeline.results.pages import number as shown
from pipeline.study.grid import CLEAN


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


def headline(table: pd.DataFrame, dataset: str) -> list[tuple[str, str]]:
    """The question and its answer, for `answers.headline_html`; nothing where `dataset` has no fused model."""
    told = answers(table, dataset)
    return [("Is a fusion worth it?", " ".join(told))] if told else []


def _intervals(table: pd.DataFrame, names: tuple[str, str, str], signed: bool = False) -> list[str]:
    return [interval(*row, signed=signed) for row in table[list(names)].itertuples(index=False)]


def _what(kind: str, name: str) -> str:
    return {MODEL: f"the model itself ({name})", RULE: f"rule {name}", OF: f"member {name}"}[kind]
