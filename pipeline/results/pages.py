"""What a reader reads, made from the tables alone: numbers as texts, HTML tables, and the headline in words."""

from collections.abc import Iterable
from html import escape

import pandas as pd

from pipeline.cohorts.intake import MIN_CELL
from pipeline.grid import CLEAN
from pipeline.results.tables import ALL_AUROC, BASELINE, FLIPPED, LABEL_AUROC, METRICS

ALPHA = 0.05
FEW_SAMPLES = 50  # of a label in the test set: one sample more or less moves a share of them by 2 %
MISSING = "–"
WITHHELD = f"Nothing can be shown: no finished run defines it, or it rests on fewer than {MIN_CELL} patients."
PAGE_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 1240px; margin: 2rem auto; padding: 0 2rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; padding-bottom: .3rem; }
p, li { max-width: 75ch; } code { background: #f3f3f3; padding: 0 .2em; border-radius: 3px; }
nav li { display: inline; margin-right: 1rem; } nav ul { padding: 0; max-width: none; }
.scroll { overflow: auto; max-height: 32rem; margin: 1rem 0; border: 1px solid #ddd; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: .3rem .55rem; text-align: left; vertical-align: top; white-space: nowrap; }
th { position: sticky; top: 0; background: #f3f5f7; white-space: normal; }
tbody tr:nth-child(even) { background: #fafafa; }
td.number, th.number { text-align: right; } td.prose { white-space: normal; min-width: 22rem; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; height: auto; }
figcaption, .note { font-size: .85rem; color: #444; max-width: 85ch; }
.warning { background: #fff4d6; border-left: 4px solid #c98a00; padding: .6rem 1rem; }
.answer { border-left: 4px solid #0072B2; padding: .1rem 1rem; margin: .8rem 0; }
summary { cursor: pointer; font-weight: 600; margin: .5rem 0; } .anchor-link { display: none; }
@media print { details::details-content { content-visibility: visible; }
  .scroll { overflow: visible; max-height: none; } th { position: static; } body { max-width: none; }
  table { font-size: .55rem; } th, td { padding: .1rem .25rem; white-space: normal; } }
"""


def percent(rate: float) -> str:
    return f"{100 * rate:.6g}\N{NO-BREAK SPACE}%"


def number(value: float, signed: bool = False) -> str:
    """Three decimals with a true minus sign; a missing number is a dash, and what rounds to zero has no sign."""
    if pd.isna(value):
        return MISSING
    rounded = round(value, 3)
    return f"{rounded:{'+' if signed else ''}.3f}".replace("-", "−") if rounded else "0.000"


def interval(mean: float, low: float, high: float, signed: bool = False) -> str:
    """`mean [low, high]`, or the mean alone where one seed gives no interval."""
    if pd.isna(low) or pd.isna(mean):
        return number(mean, signed)
    return f"{number(mean, signed)} [{number(low, signed)}, {number(high, signed)}]"


def p_value(p: float) -> str:
    if pd.isna(p):
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def html_table(table: pd.DataFrame, prose: Iterable[str] = (), left: Iterable[str] = ()) -> str:
    """Texts as an HTML table that scrolls sideways; columns in `prose` wrap, `left` and `prose` are left-aligned.

    A table without rows is a sentence that says so.
    """
    if table.empty:
        return f'<p class="note">{escape(WITHHELD)}</p>'
    kinds = ["prose" if name in prose else "text" if name in left else "number" for name in table.columns]
    head = "".join(f'<th class="{kind}">{escape(name)}</th>' for name, kind in zip(table.columns, kinds, strict=True))
    rows = (
        "".join(f'<td class="{kind}">{escape(str(cell))}</td>' for cell, kind in zip(row, kinds, strict=True))
        for row in table.itertuples(index=False)
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def page(title: str, body: str) -> str:
    """A self-contained HTML page."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{PAGE_STYLE}</style></head>'
        f"<body>{body}</body></html>\n"
    )


def gaps_html(cells: pd.DataFrame) -> str:
    """What the tables lack, as a warning; empty if every cell is done. `cells`: the rows of cells.csv."""
    by = ["dataset", "model", "trigger", "rate"]
    counts = cells.assign(n=1).pivot_table("n", by, "state", "count", fill_value=0)
    counts = counts.reindex(columns=["done", "failed", "missing"], fill_value=0)
    of = counts.sum(axis=1)
    gaps = counts[counts["done"] < of]
    if gaps.empty:
        return ""
    first = cells[cells["state"] != "done"].sort_values(["state", "seed"]).groupby(by).first()
    table = gaps.index.to_frame(index=False).assign(
        **{
            "rate": [percent(rate) for rate in gaps.index.get_level_values("rate")],
            "seeds done": [f"{done} of {n}" for done, n in zip(gaps["done"], of[gaps.index], strict=True)],
            "failed": gaps["failed"].to_numpy(),
            "missing": gaps["missing"].to_numpy(),
            "why (the first)": (first["stage"] + ": " + first["why"]).to_numpy(),
        }
    )
    n_gaps = len(cells) - counts["done"].sum()
    shown = html_table(table.rename(columns={"rate": "poison rate"}), prose=["why (the first)"], left=by)
    return (
        f'<div class="warning"><p><strong>This is not the whole study: {n_gaps} of its {len(cells)} runs are not '
        f"here</strong>, {counts['failed'].sum()} failed and {counts['missing'].sum()} missing. Everything below is "
        "made of the others: means and intervals are over the seeds that are done, comparisons over those where the "
        "run and its control are. Runs seldom fail by chance, so what is left may be biased. Draw no conclusions "
        f"before the study is complete.</p>{shown}</div>"
    )


def warnings_html(datasets: pd.DataFrame, split: str) -> str:
    """What must be known of small datasets before reading on; empty if all are large. `split`: as in the study."""
    rows = datasets[["dataset", "n_test", "prevalence"]].itertuples(index=False)
    return "".join(_too_small(escape(name), n_test, prevalence, split) for name, n_test, prevalence in rows)


def _too_small(name: str, n_test, prevalence: float, split: str) -> str:
    seeds = "split the same few patients" if split == "per_seed" else "have the same few test patients"
    if pd.isna(n_test):
        text = (
            f"<strong>{name} is too small for conclusions.</strong> Its test set holds fewer than {MIN_CELL} patients "
            f"of a label. Numbers measured on fewer than {MIN_CELL} patients are withheld (dashes). The remaining "
            f"intervals are wide, or look narrow only because all seeds {seeds}."
        )
    elif n_test * min(prevalence, 1 - prevalence) < FEW_SAMPLES:
        text = (
            f"<strong>{name} is small.</strong> Its test set holds fewer than {FEW_SAMPLES} samples of a label. "
            f"Intervals over seeds understate how uncertain the numbers are, because all seeds {seeds}."
        )
    else:
        return ""
    return f'<p class="warning">{text}</p>'


def datasets_html(datasets: pd.DataFrame) -> str:
    thresholds = zip(map(number, datasets["threshold_low"]), map(number, datasets["threshold_high"]), strict=True)
    table = pd.DataFrame(
        {
            "dataset": datasets["dataset"],
            "training samples": [_count(n) for n in datasets["n_train"]],
            "test samples": [_count(n) for n in datasets["n_test"]],
            "test samples with label 1": [
                MISSING if pd.isna(share) else f"{100 * share:.1f} %" for share in datasets["prevalence"]
            ],
            "decision thresholds": [low if low == high else f"{low} to {high}" for low, high in thresholds],
        }
    )
    return html_table(table, left=["dataset"])


def triggers_html(triggers: pd.DataFrame) -> str:
    """What each trigger does, then how much it changes and how plausible that is at each rate."""
    in_bounds = {True: "yes", False: "no"}
    each = triggers.groupby(["dataset", "trigger"], as_index=False).agg({"description": "first", "in_bounds": "min"})
    what = pd.DataFrame(
        {
            "dataset": each["dataset"],
            "trigger": each["trigger"],
            "what it does": each["description"],
            "in bounds": [in_bounds.get(x, MISSING) for x in each["in_bounds"].astype(object)],
        }
    )
    numbers = {
        "share of cells changed": "footprint_share",
        "values in clinical range": "share_in_range",
        "values in training range": "share_in_train_range",
        "distance": "distance",
        "missingness log-likelihood, clean": "missing_log_likelihood_clean",
        "missingness log-likelihood, triggered": "missing_log_likelihood_triggered",
    }
    measured = pd.DataFrame(
        {
            "dataset": triggers["dataset"],
            "trigger": triggers["trigger"],
            "poison rate": [percent(rate) for rate in triggers["rate"]],
            "poisoned samples": [MISSING if pd.isna(n) else f"{n:.6g}" for n in triggers["n_poisoned"]],
            **{title: [number(x) for x in triggers[name]] for title, name in numbers.items()},
        }
    )
    texts = ["dataset", "trigger", "in bounds"]
    return html_table(what, prose=["what it does"], left=texts) + html_table(measured, left=texts)


def findings_html(findings: pd.DataFrame) -> str:
    table = pd.DataFrame(
        {
            "dataset": findings["dataset"],
            "model": findings["model"],
            "trigger": findings["trigger"],
            "backdoor": ["yes" if works else "no" for works in findings["works"]],
            "poison rate": [percent(rate) for rate in findings["rate"]],
            "ASR − ASR₀": _intervals(findings, "difference", "ci_low", "ci_high"),
            "change of clean AUROC": _intervals(findings, "auroc_difference", "auroc_ci_low", "auroc_ci_high"),
            "best detector": findings["detector"].fillna(MISSING),
            "its AUROC": [number(x) for x in findings["detector_mean_run"]],
            "above random": _intervals(findings, "detector_difference", "detector_ci_low", "detector_ci_high"),
        }
    )
    return html_table(table, left=["dataset", "model", "trigger", "backdoor", "best detector"])


def contrasts_html(contrasts: pd.DataFrame) -> str:
    """One foldable table per metric × control, with every run against its control."""
    if contrasts.empty:
        return html_table(contrasts)
    order = list(LABELS)
    groups = sorted(
        contrasts.groupby(["metric", "control"]), key=lambda item: (order.index(item[0][0].split(":")[0]), item[0])
    )
    parts = []
    for (metric, control), group in groups:
        table = pd.DataFrame(
            {
                "dataset": group["dataset"],
                "model": group["model"],
                "trigger": group["trigger"],
                "poison rate": [percent(rate) for rate in group["rate"]],
                "seeds": group["n_seeds"],
                "run": [number(x) for x in group["mean_run"]],
                "control": [number(x) for x in group["mean_control"]],
                "difference": _intervals(group, "difference", "ci_low", "ci_high"),
                "p": [p_value(p) for p in group["p_value"]],
                "p (Holm)": [p_value(p) for p in group["p_holm"]],
                "effect size": [number(x, signed=True) for x in group["effect_size"]],
            }
        )
        name, against = escape(label(metric)), AGAINST.get((metric, control), AGAINST.get(control, control))
        shown = " open" if metric == "asr" else ""
        body = html_table(table, left=["dataset", "model", "trigger"])
        parts.append(f"<details{shown}><summary>{name}: against {against}</summary>{body}</details>")
    return "".join(parts)


def summary_html(summary: pd.DataFrame) -> str:
    """One row per run averaged over seeds, one column per metric."""
    if summary.empty:
        return html_table(summary)
    texts = summary.assign(text=[interval(*row) for row in summary[["mean", "ci_low", "ci_high"]].to_numpy(float)])
    texts["metric"] = texts["metric"].map(label)
    names = list(LABELS)
    metrics = sorted(summary["metric"].unique(), key=lambda metric: (names.index(metric.split(":")[0]), metric))
    wide = texts.pivot(index=["dataset", "model", "trigger", "rate"], columns="metric", values="text")
    wide = wide[[label(metric) for metric in metrics]].fillna(MISSING).reset_index()
    wide = wide.sort_values(["dataset", "model", "rate", "trigger"])
    wide["rate"] = wide["rate"].map(percent)
    return html_table(wide.rename(columns={"rate": "poison rate"}), left=["dataset", "model", "trigger"])


METRIC_NAMES = {"acc": "accuracy", "auroc": "AUROC", "auprc": "AUPRC", "f1": "F1", "ece": "ECE", "brier": "Brier score"}
LABELS = {
    "asr": "ASR",
    "asr0": "ASR₀",
    "asr_net": "ASR − ASR₀",
    "confidence_shift": "confidence shift",
    **{
        f"{metric}_{side}": f"{METRIC_NAMES.get(metric, metric)}, {where}"
        for side, where in (("clean", "clean test data"), ("poison", "triggered test data"))
        for metric in METRICS
    },
    LABEL_AUROC: "detection AUROC within the attacker's label",
    ALL_AUROC: "detection AUROC over all training samples",
    "footprint_share": "footprint's share of cells",
    "ratio_triggered": "attribution on the footprint",
    "ratio_clean": "attribution on the footprint, sample without trigger",
    "ratio_control": "attribution on the footprint, clean model",
    **{
        f"{side}_{name}": f"likeness of attributions without and with trigger, {title}{where}"
        for side, where in (("drift", ""), ("control", ", clean model"))
        for name, title in (("cosine", "cosine"), ("spearman", "Spearman"), ("topk_jaccard", "top-k Jaccard"))
    },
}
AGAINST = {
    ("asr", CLEAN): "ASR₀",
    ("ratio_triggered", CLEAN): "the clean model on the same samples",
    CLEAN: "the clean model of the same seed",
    FLIPPED: "flipped labels without a trigger (flip_only)",
    BASELINE: "random scores",
}


def label(metric: str) -> str:
    """The name of a metric for readers."""
    name, _, detector = metric.partition(":")
    return f"{LABELS[name]}, {detector}" if detector else LABELS[name]


def headline(findings: pd.DataFrame) -> list[tuple[str, str]]:
    """Questions and their answers in words for one dataset, composed from its `findings`."""
    flipped = findings["trigger"] == FLIPPED
    attacks, control = findings[~flipped], findings[flipped]
    answers = []
    if findings.empty:
        answers.append(("How little poison plants a backdoor?", WITHHELD))
    elif attacks.empty:
        answers.append(("How little poison plants a backdoor?", "No attack was studied, only flipped labels."))
    else:
        shown = attacks[attacks["works"]] if attacks["works"].any() else attacks
        answers += [
            ("How little poison plants a backdoor?", _how_little(attacks)),
            ("Is it the trigger, or only the flipped labels?", _only_labels(shown, control)),
            ("Would the performance on clean data give it away?", _clean_cost(shown)),
        ]
        answers.append(("Would a detector give it away?", _detected(shown, control)))
    return answers


def headline_html(findings: pd.DataFrame) -> str:
    return "".join(
        f'<div class="answer"><p><strong>{question}</strong><br>{escape(answer)}</p></div>'
        for question, answer in headline(findings)
    )


def _how_little(attacks: pd.DataFrame) -> str:
    working = attacks[attacks["works"]]
    if working.empty:
        most = attacks.loc[attacks["difference"].idxmax()]
        return (
            f"None of {len(attacks)} trigger and model pairs did at the rates studied; the largest ASR − ASR₀ was "
            f"{_effect(most)} ({_pair(most)} at {percent(most['rate'])})."
        )
    least = working[working["rate"] == working["rate"].min()]
    most = least.loc[least["difference"].idxmax()]
    others = f" and {len(least) - 1} more" if len(least) > 1 else ""
    certain = "" if working["ci_low"].isna().any() else ", its 95 % interval above zero"
    return (
        f"{len(working)} of {len(attacks)} trigger and model pairs had one: the attack success rate exceeded the clean "
        f"model's by 0.5 or more on average{certain}. The least poison was {percent(most['rate'])} of the training "
        f"data ({_pair(most)}{others}), where ASR − ASR₀ was {_effect(most)}."
    )


def _only_labels(shown: pd.DataFrame, control: pd.DataFrame) -> str:
    if control.empty:
        return "flip_only was not part of this study, so the two cannot be told apart here."
    most = control.loc[control["difference"].idxmax()]
    text = (
        f"With the labels flipped and no trigger planted, ASR − ASR₀ was {_effect(most)} "
        f"({most['model']} at {percent(most['rate'])}), "
    )
    if control["works"].any():
        text += f"a backdoor by the same mark in {control['works'].sum()} of {len(control)} models. "
    else:
        text += "the most that flipped labels did. "
    return (
        f"{text}At {_which_rates(shown)}, a trigger added {_range(shown['flip_difference'], signed=True)} to the "
        f"effect of flipping alone. {_significant(shown['flip_p_holm'])}"
    )


def _clean_cost(shown: pd.DataFrame) -> str:
    change = shown["auroc_difference"].dropna()
    if change.empty:
        return WITHHELD
    worst = shown.loc[change.idxmin()]
    cost = interval(worst["auroc_difference"], worst["auroc_ci_low"], worst["auroc_ci_high"], signed=True)
    return (
        f"At {_which_rates(shown)}, the AUROC on clean test data differed from the clean model's by "
        f"{_range(change, signed=True)}; the least favourable change was {cost} ({_pair(worst)}, AUROC now "
        f"{number(worst['auroc_mean_run'])}). {_significant(shown['auroc_p_holm'])}"
    )


def _detected(shown: pd.DataFrame, control: pd.DataFrame) -> str:
    shown = shown.dropna(subset="detector")
    if shown.empty:
        return WITHHELD
    text = (
        f"At {_which_rates(shown)}, the best detector of each pair separated poisoned from clean training samples of "
        f"the attacker's label with an AUROC of {_range(shown['detector_mean_run'])}, random scores with "
        f"{_range(shown['detector_mean_control'])} (0.5 is guessing). {_significant(shown['detector_p_holm'])} "
        "The best is picked after the fact, which flatters it."
    )
    flipped = control.dropna(subset="detector")
    if len(flipped):
        text += (
            f" On flip_only, where there is no trigger to find, the best detectors reached "
            f"{_range(flipped['detector_mean_run'])}: that much comes from flipped labels alone."
        )
    return text


def _which_rates(shown: pd.DataFrame) -> str:
    return "the smallest rates that worked" if shown["works"].all() else "the rates of the largest effect"


def _significant(p_values: pd.Series) -> str:
    tested = p_values.dropna()
    if tested.empty:
        return "With these seeds no test is possible."
    return (
        f"This difference had p < {ALPHA} after Holm's correction in {(tested < ALPHA).sum()} of {len(tested)} tests."
    )


def _range(values: pd.Series, signed: bool = False) -> str:
    low, high = number(values.min(), signed), number(values.max(), signed)
    return low if low == high else f"{low} to {high}"


def _effect(row: pd.Series) -> str:
    return interval(row["difference"], row["ci_low"], row["ci_high"])


def _pair(row: pd.Series) -> str:
    return f"{row['trigger']} in {row['model']}"


def _intervals(table: pd.DataFrame, mean: str, low: str, high: str) -> list[str]:
    return [interval(*row, signed=True) for row in table[[mean, low, high]].to_numpy(float)]


def _count(n) -> str:
    return MISSING if pd.isna(n) else f"{n:,}"
