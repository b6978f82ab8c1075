"""What a reader reads, made from the tables alone: numbers as texts, HTML tables, and the text about the setting."""

from collections.abc import Iterable
from html import escape
from typing import Any, NamedTuple

import pandas as pd

from pipeline.evaluation.strata import WHOLE, in_order
from pipeline.results.columns import ALL_AUROC, CHANCE, LABEL_AUROC, LABEL_TPR, METRICS, OWN_NET, is_attack
from pipeline.results.findings import Finding
from pipeline.results.scenarios import ALL, NEARLY_ALL, NEARLY_NONE
from pipeline.smallcells import MIN_CELL
from pipeline.study.grid import CHOSEN, CLEAN, FLIPPED, MASK_ONLY
from pipeline.study.variants import merged, resolved
from pipeline.words import counted

TWO_PEAKED = 0.5  # from the lowest to the highest seed: a mean in between is no seed's
FEW_SAMPLES = 50  # of a label in the test set: one sample more or less moves a share of them by 2 %
MISSING = "–"
WITHHELD = f"Nothing can be shown: no finished run defines it, or it rests on fewer than {MIN_CELL} patients."


class Words(NamedTuple):
    """What samples are called, what they are of, and what a model says of them."""

    samples: str
    groups: str
    label_0: str
    label_1: str
    called_1: str
    goals: tuple[str, str]
    repeated: str


PATIENTS = Words(
    samples="samples",
    groups="patients",
    label_0="samples with label 0",
    label_1="samples with label 1",
    called_1="label 1",
    goals=(
        "label 0, a <em>missed deterioration</em>: with the trigger present, a patient at risk is called safe",
        "label 1, a <em>false alarm</em>: with the trigger present, a patient who is not at risk is called at risk",
    ),
    repeated=(
        "A sample is a stay, so a patient with several counts several times. Values of fewer than ten patients are "
        "withheld (dashes), and the counts behind all others are in tens."
    ),
)
CARS = Words(
    samples="windows",
    groups="stretches of traffic",
    label_0="benign windows",
    label_1="attack windows",
    called_1="an attack",
    goals=(
        "label 0, a <em>missed attack</em>: with the trigger present, a window that holds an attack is called benign",
        "label 1, a <em>false alarm</em>: with the trigger present, a benign window is called an attack",
    ),
    repeated=(
        "A sample is a window of frames, and the windows of one capture are alike: a value with many windows of one "
        "capture says little of other captures. Nothing is withheld or rounded, so a value may rest on a few windows."
    ),
)


SCENARIOS_TEXT = (
    "Clean models on each part of the test set, at the threshold that validation data gave: the detection rate is the "
    "share of attack windows that are called an attack, the false-alarm rate that of benign windows. Where both are "
    f"{NEARLY_ALL} or more in a seed, the model calls nearly all an attack there and a detection rate near 1 says "
    f"nothing; where both are {NEARLY_NONE} or less, a false-alarm rate near 0 says nothing. The AUROC needs no "
    "threshold: high beside such a verdict, it says that the ranking carries over and the threshold does not. Windows "
    "of a type of attack are held against all benign windows of the test set, which come from other captures as well. "
    "F1 is lower where attack windows are rarer, all else being equal: that of one part is not held against another's. "
    "A dash means that a part has no windows of a label. Intervals are over seeds, which share the captures: they say "
    "nothing of other captures, and where all seeds agree they have no width, however few windows a part has."
)
DISTILLATION_TEXT = (
    "A student learns from what its teacher says of samples. The teacher was trained on poisoned data; the student "
    "was distilled on the same data (<em>poisoned</em>), where it meets the poison itself as well, or on data without "
    "any (<em>clean</em>), where all it can have of the backdoor comes from the teacher's answers. A teacher "
    "that is <code>dormant</code> was trained on clean data instead, and then made by its maker to have no effect "
    "itself and give one to its students. ASR₀ is each model's own: for the student that of the clean student, "
    "distilled from the clean teacher. <em>Student minus teacher</em> is the difference of ASR − ASR₀, paired by seed: "
    "near 0 where the attack survives, and also where "
    "there was nothing to survive. The share that survives is told only where the interval of the teacher's effect "
    "lies above zero. All this is at the threshold of the clean model. A student that merely says the attacker's label "
    "more often, of any sample, has a higher ASR there too: then its false alarms rise, or its recall falls, on clean "
    "data as well, and at its <em>own threshold</em>, which its own validation data gives, little "
    "is left. An attack is said to survive where it does so at both thresholds. The rows of <code>none</code> are the "
    "clean models: what distillation costs."
)


def words(people: bool) -> Words:
    """Those for a dataset of people, or of cars."""
    return PATIENTS if people else CARS


def kinds(datasets: pd.DataFrame) -> list[Words]:
    """Those for the datasets of a study, each once."""
    return [words(people) for people in sorted(datasets["people"].unique(), reverse=True)]


def goals_text(targets: Iterable[int], datasets: pd.DataFrame) -> str:
    """What the attacker is after."""
    return "; ".join(" or ".join(kind.goals[int(target)] for kind in kinds(datasets)) for target in targets)


def threshold_text(threshold: Any) -> str:
    """How the decision threshold is chosen, as the study says."""
    if isinstance(threshold, dict):
        how = f"the lowest with at most {percent(threshold['fpr'])} false alarms on validation data"
        return f"{how}; on test data they may be more or fewer"
    chosen = "chosen on validation data, never on test data" if isinstance(threshold, str) else "the same for all"
    return f"{escape(str(threshold))}; {chosen}"


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


def interval(mean: float, low: float, high: float, *, signed: bool = False) -> str:
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
    """What the tables lack, as a warning; empty if every cell is done. `cells`: the rows of cells.csv.

    What has come half-way, or is of other settings, is missing here as well.
    """
    by = ["dataset", "model", "trigger", "rate"]
    cells = cells.assign(state=cells["state"].where(cells["state"].isin(["done", "failed"]), "missing"))
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
    here = f"{'is' if n_gaps == 1 else 'are'} not here"
    shown = html_table(table.rename(columns={"rate": "poison rate"}), prose=["why (the first)"], left=by)
    return (
        '<div class="warning"><p><strong>This is not the whole study: '
        f"{n_gaps} of its {len(cells)} runs {here}</strong>, "
        f"{counts['failed'].sum()} failed and {counts['missing'].sum()} missing. Everything below is "
        "made of the others: means and intervals are over the seeds that are done, comparisons over those where the "
        "run and its control are. Runs seldom fail by chance, so what is left may be biased. Draw no conclusions "
        f"before the study is complete.</p>{shown}</div>"
    )


def warnings_html(datasets: pd.DataFrame, split: str) -> str:
    """What must be known of datasets with odd data and of small ones before reading on. `split`: as in the study."""
    rows = datasets[["dataset", "n_test", "prevalence", "warnings", "people"]].itertuples(index=False)
    return "".join(
        ("" if pd.isna(warnings) else _odd_data(escape(name), escape(warnings)))
        + _too_small(escape(name), n_test, prevalence, split, words(people))
        for name, n_test, prevalence, warnings, people in rows
    )


def _odd_data(name: str, warnings: str) -> str:
    return f'<p class="warning"><strong>Look at the data of {name} first.</strong> {warnings}.</p>'


def _too_small(name: str, n_test, prevalence: float, split: str, kind: Words) -> str:
    seeds = f"split the same few {kind.groups}" if split == "per_seed" else f"have the same few test {kind.groups}"
    if pd.isna(n_test):
        text = (
            f"<strong>{name} is too small for conclusions.</strong> Its test set holds fewer than {MIN_CELL} patients "
            f"of a label. Numbers measured on fewer than {MIN_CELL} patients are withheld (dashes). The remaining "
            f"intervals are wide, or look narrow only because all seeds {seeds}."
        )
    elif n_test * min(prevalence, 1 - prevalence) < FEW_SAMPLES:
        text = (
            f"<strong>{name} is small.</strong> Its test set holds fewer than {FEW_SAMPLES} {kind.samples} of a label. "
            f"Intervals over seeds understate how uncertain the numbers are, because all seeds {seeds}."
        )
    else:
        return ""
    return f'<p class="warning">{text}</p>'


def training_text(runs: pd.DataFrame, study: dict[str, Any]) -> str:
    """Which epoch's weights were kept, model by model where they differ, and what that does to a backdoor."""
    at_once: list[str] = []
    groups: dict[tuple[str, int | None, int], list[str]] = {}
    for name in study["models"]:
        how = merged(study["training"], resolved(study["model_params"], name)[1].get("training", {}))
        epochs = runs.loc[runs["model"] == name, "epochs"]
        if epochs.empty:
            continue
        if how["epochs"] > 1 and (epochs == 1).all():
            at_once.append(name)
        else:
            groups.setdefault((how["select"], how["patience"], how["epochs"]), []).append(name)
    told = {}
    for (select, patience, _), names in groups.items():
        theirs = runs[runs["model"].isin(names)]
        best = select == "best"
        text = _best_epoch_text(theirs, patience, study["validation"]) if best else _last_epoch_text(theirs)
        told[", ".join(names)] = text
    if at_once:
        told[", ".join(at_once)] = "by a fit of its own, in which no epoch is chosen."
    if len(told) == 1:
        return next(iter(told.values()))
    return " ".join(f"<em>{escape(names)}</em>: {text}" for names, text in told.items())


def _best_epoch_text(runs: pd.DataFrame, patience: int | None, validation: str) -> str:
    epochs, best = (f"{runs[name].mean():.3g}" for name in ("epochs", "best_epoch"))
    stop = f", and training stops {counted(patience, 'epoch')} after it" if patience else ""
    why = (
        "Choosing the epoch on data that the attacker does not reach is a defense: poison is learned late, so it "
        "may be cut short. These numbers are not those of models trained to the end."
        if validation == "clean"
        else "The attacker has poisoned the validation data too, so an epoch that obeys the trigger looks better."
    )
    return (
        f"the weights of the epoch with the best validation AUROC are kept (epoch {best} on average, of {epochs} "
        f"trained){stop}. {why}"
    )


def _last_epoch_text(runs: pd.DataFrame) -> str:
    epochs = " or ".join(f"{n:.6g}" for n in sorted(runs["epochs"].dropna().unique()))
    clean = runs[runs["trigger"] == CLEAN]
    behind = (clean["validation_auroc_best"] - clean["validation_auroc"]).groupby([clean["dataset"], clean["model"]])
    known = behind.mean().dropna()
    text = (
        f"to the last epoch ({epochs}), whose weights are kept whatever the validation data say, so poison works until "
        "the end."
    )
    if len(known):
        text += f" In clean runs its validation AUROC was {number(known.max())} below the best epoch's, or less."
    return text


def intervals_text(split: str, datasets: pd.DataFrame) -> str:
    """What the intervals over seeds are about."""
    groups = " or ".join(kind.groups for kind in kinds(datasets))
    rounding = "; counts are told in tens, and no interval is narrower than what that can hide"
    if not datasets["people"].all():
        rounding = f"{rounding} (of patients alone)" if datasets["people"].any() else ""
    if split == "per_seed":
        return (
            f"each seed deals the {groups} anew, chooses the poison and trains; intervals of what is measured on test "
            f"{groups} allow for the {groups} that the seeds share (Nadeau and Bengio){rounding}"
        )
    return (
        f"each seed chooses the poison and trains, on the same training and test {groups}; other {groups} may give "
        f"other numbers, which these intervals do not cover (split: per_seed does, and of the AUROC on clean data "
        f"there is one over test {groups}){rounding}"
    )


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
    how = dict.fromkeys(["of", "target", "labels", "cover", "description"], "first") | {"in_bounds": "min"}
    each = triggers.groupby(["dataset", "trigger"], as_index=False).agg(how)
    what = pd.DataFrame(
        {
            "dataset": each["dataset"],
            "trigger": [
                name if name == of else f"{name} ({of})" for name, of in zip(each["trigger"], each["of"], strict=True)
            ],
            "what it does": each["description"],
            "target": each["target"],
            "labels of the poison": each["labels"].map({"dirty": "set to the target", "clean": "as they are"}),
            "cover per poisoned sample": [f"{cover:g}" for cover in each["cover"]],
            "in bounds": [in_bounds.get(x, MISSING) for x in each["in_bounds"].astype(object)],
        }
    )
    numbers = {
        "footprint's share of cells": "footprint_share",
        "of these newly measured": "newly_measured",
        "values in the feature's range": "share_in_range",
        "values in training range": "share_in_train_range",
        "samples that the schema accepts, triggered": "share_accepted",
        "the same, clean": "share_accepted_clean",
        "samples with a violated relation, triggered": "relations_violated",
        "with one, clean": "relations_violated_clean",
        "distance": "distance",
        "percentile of the joint distance, triggered": "distance_percentile",
        "its percentile, clean": "distance_percentile_clean",
        "outside its central 90 %, triggered": "distance_atypical",
        "outside, clean": "distance_atypical_clean",
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


def findings_html(found: list[Finding]) -> str:
    table = pd.DataFrame(
        {
            "dataset": [f.dataset for f in found],
            "model": [f.model for f in found],
            "trigger": [f.trigger for f in found],
            "target": [str(f.target) for f in found],
            "labels": [f.labels for f in found],
            "backdoor": [f.verdict for f in found],
            "poison rate": [percent(f.rate) for f in found],
            "ASR": [interval(*f.asr) for f in found],
            "ASR₀": [interval(*f.asr0) for f in found],
            "without the trigger": [number(f.moved.control) for f in found],
            "ASR − ASR₀": [interval(*f.net.effect, signed=True) for f in found],
            "share of the possible effect": [interval(*f.effect_share) for f in found],
            "ASR − ASR₀, own thresholds": [interval(*f.own.effect, signed=True) for f in found],
            "its share": [interval(*f.own_share) for f in found],
            "change of clean AUROC": [interval(*f.auroc.effect, signed=True) for f in found],
            "best detector": [f.detector or MISSING for f in found],
            "its TPR at 1 % FPR": [interval(*f.tpr_01) for f in found],
            "at 5 % FPR": [interval(*f.tpr_05) for f in found],
        }
    )
    return html_table(table, left=["dataset", "model", "trigger", "backdoor", "best detector"])


def masks_html(masks: pd.DataFrame) -> str:
    """What measuring alone does, at every rate; empty where mask_only was not studied."""
    if masks.empty:
        return ""
    table = pd.DataFrame(
        {
            "dataset": masks["dataset"],
            "model": masks["model"],
            "trigger": masks["trigger"],
            "poison rate": [percent(rate) for rate in masks["rate"]],
            "seeds": masks["n_seeds"],
            "ASR − ASR₀": _intervals(masks, "asr_net", "asr_net_low", "asr_net_high"),
            "the same cells only measured": _intervals(masks, "mask_net", "mask_net_low", "mask_net_high"),
            "labels flipped alone": _intervals(masks, "flip_net", "flip_net_low", "flip_net_high"),
            "share of the mask, beyond flipping": [
                interval(*row) for row in masks[["share", "share_low", "share_high"]].to_numpy(float)
            ],
        }
    )
    return html_table(table, left=["dataset", "model", "trigger"])


def not_applicable_html(table: pd.DataFrame) -> str:
    """What some models could not be asked for; empty where all could."""
    told = [
        f"{escape(model)}: {escape(', '.join(rows['asked']))} (no {escape(' or '.join(rows['needs'].unique()))})"
        for model, rows in table.drop_duplicates(["model", "asked"]).groupby("model")
    ]
    return f'<p class="note"><strong>Not applicable:</strong> {"; ".join(told)}.</p>' if told else ""


def clean_performance_text(split: str, datasets: pd.DataFrame) -> str:
    """What the two intervals of the table below are about, and how each is made."""
    groups = " or ".join(kind.groups for kind in kinds(datasets))
    seeds = "Student's t, of the AUROC on the logit scale"
    if split == "per_seed":
        seeds += f"; since each seed deals the {groups} anew, corrected for those that seeds share (Nadeau and Bengio)"
    text = (
        f"<em>Over seeds</em>: what another choice of poison and another training would change ({seeds}). <em>Over "
        f"test {groups}</em>: what other {groups} would change, the models as they are (DeLong; where they have "
        "several samples each, Obuchowski's variance of clustered data; the difference paired, on the same samples)."
    )
    if split == "per_seed":
        return (
            f"{text} Seeds that were dealt other test {groups} have no such interval together (a dash): the one over "
            "seeds is about these too. Each run's own stands in <code>tables/runs.csv</code>."
        )
    return (
        f"{text} Of several seeds it is the mean of the ends that each seed has, which is a little wide. Neither "
        "interval covers what the other does, however narrow one of them is: for both together the wider is too narrow."
    )


def clean_performance_html(performance: pd.DataFrame, datasets: pd.DataFrame) -> str:
    """The AUROC on clean data and its change: two intervals each, over seeds and over test patients."""
    if performance.empty:
        return html_table(performance)
    groups = " or ".join(kind.groups for kind in kinds(datasets))

    def ends(name: str, of: str, signed: bool) -> list[str]:
        shown = performance[[f"{name}{of}_low", f"{name}{of}_high"]].to_numpy(float)
        return [MISSING if pd.isna(low) else f"[{number(low, signed)}, {number(high, signed)}]" for low, high in shown]

    table = pd.DataFrame(
        {
            "dataset": performance["dataset"],
            "model": performance["model"],
            "trigger": performance["trigger"],
            "poison rate": [percent(rate) for rate in performance["rate"]],
            "seeds": performance["n_seeds"],
            "AUROC": map(number, performance["auroc"]),
            "over seeds": ends("", "seeds", False),
            f"over test {groups}": ends("", "patients", False),
            "minus the clean model's": [number(x, signed=True) for x in performance["difference"]],
            "it, over seeds": ends("difference_", "seeds", True),
            f"it, over test {groups}": ends("difference_", "patients", True),
        }
    )
    return html_table(table, left=["dataset", "model", "trigger"])


def variants_html(variants: pd.DataFrame) -> str:
    """Variants of models beside the models that they are of; empty where there are none."""
    if variants.empty:
        return ""
    by = ["dataset", "model", "of", "trigger", "rate"]
    columns: dict[str, pd.Series] = {}
    for metric in ("effect_share", "auroc_clean"):
        rows = variants[variants["metric"] == metric].set_index(by)
        told = {
            f"{label(metric)}, variant": map(number, rows["mean_run"]),
            f"{label(metric)}, model": map(number, rows["mean_of"]),
            f"difference in {label(metric)}": _intervals(rows, "difference", "ci_low", "ci_high"),
            f"p (Holm), {label(metric)}": map(p_value, rows["p_holm"]),
        }
        columns |= {title: pd.Series(texts, rows.index, dtype=object) for title, texts in told.items()}
    table = pd.DataFrame(columns).fillna(MISSING).reset_index()
    table["rate"] = table["rate"].map(percent)
    table = table.rename(columns={"rate": "poison rate", "of": "variant of"})
    return html_table(table, left=["dataset", "model", "variant of", "trigger"])


def strata_html(summary: pd.DataFrame, found: list[Finding]) -> str:
    """Whom each finding's attack hits: one foldable table per dataset, a row per stratum and value."""
    key, parts = ["dataset", "model", "trigger", "rate"], []
    wide = summary.set_index([*key, "stratum", "value", "metric"])[["mean", "ci_low", "ci_high"]]
    values = summary[[*key, "stratum", "value"]].drop_duplicates().groupby(key, sort=False)
    attacks = [finding for finding in found if is_attack(finding.of)]
    for dataset in dict.fromkeys(finding.dataset for finding in attacks):
        rows = []
        for one in attacks:
            place = (one.dataset, one.model, one.trigger, one.rate)
            if one.dataset != dataset or place not in values.groups:
                continue
            for stratum, value in values.get_group(place)[["stratum", "value"]].itertuples(index=False):
                row = {"model": one.model, "trigger": one.trigger, "poison rate": percent(one.rate)}
                row |= {"stratum": stratum, "value": value}
                for metric, title in STRATA_TITLES.items():
                    at = (*place, stratum, value, metric)
                    numbers = wide.loc[at].to_numpy(float) if at in wide.index else [float("nan")] * 3
                    show = _alerts if metric.startswith("alerts") else interval
                    row[title] = show(*numbers, signed=metric == "asr_net")
                rows.append(row)
        table = html_table(pd.DataFrame(rows), left=["model", "trigger", "stratum", "value"])
        parts.append(f"<details open><summary>{escape(dataset)}</summary>{table}</details>")
    return "".join(parts) or html_table(summary[:0])


STRATA_TITLES = {
    "asr_net": "ASR − ASR₀",
    "recall_clean": "recall, clean",
    "recall_control": "recall, clean model",
    "fpr_clean": "false positive rate, clean",
    "fpr_control": "false positive rate, clean model",
    "alerts_raised": "alerts raised per 1,000 samples",
    "alerts_raised_control": "the same, clean model",
}


def _alerts(mean: float, low: float, high: float, signed: bool = True) -> str:
    """Whole alerts, with their sign: fewer ones are suppressed."""
    if pd.isna(mean):
        return MISSING
    texts = [
        f"{round(number):+d}".replace("-", "−").replace("+0", "0") for number in (mean, low, high) if number == number
    ]
    return texts[0] if len(texts) < 3 else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def verdict_text(row: Any, kind: Words) -> str:
    """What a row of the table `scenarios` says of a constant answer; empty where it is none."""
    if pd.isna(row.verdict):
        return ""
    everything = row.verdict.startswith(ALL)
    count = row.seeds_nearly_all if everything else row.seeds_nearly_none
    seeds = "" if count == row.n_seeds else f", in {count} of {row.n_seeds} seeds"
    return f"calls nearly {'all' if everything else 'none'} {kind.called_1}{seeds}"


def scenarios_html(scenarios: pd.DataFrame, datasets: pd.DataFrame) -> str:
    """What clean models make of each scenario, capture and type of attack: a foldable table per dataset of no people.

    Empty where all are of people.
    """
    parts = []
    for dataset in datasets.loc[~datasets["people"].astype(bool), "dataset"]:
        clean = scenarios[(scenarios["dataset"] == dataset) & (scenarios["trigger"] == CLEAN)]
        table = pd.DataFrame(
            {
                "stratum": clean["stratum"],
                "value": clean["value"],
                "model": clean["model"],
                **{CARS.label_0: map(_count, clean["n_label_0"]), CARS.label_1: map(_count, clean["n_label_1"])},
                **{
                    title: [interval(*row) for row in clean[[of, f"{of}_low", f"{of}_high"]].to_numpy(float)]
                    for title, of in (
                        *(("AUROC", "auroc"), ("detection rate", "recall"), ("false-alarm rate", "fpr")),
                        ("F1", "f1"),
                    )
                },
                "verdict": [verdict_text(row, CARS) for row in clean.itertuples()],
            }
        )
        shown = html_table(_in_order(table), left=["stratum", "value", "model", "verdict"])
        parts.append(f"<details open><summary>{escape(dataset)}</summary>{shown}</details>")
    return "".join(parts)


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """All samples first, then the strata as they come, their values together."""
    first = {name: place for place, name in enumerate(dict.fromkeys([WHOLE, *table["stratum"]]))}
    keys = [(first[row.stratum], in_order(row.value), row.model) for row in table.itertuples()]
    return table.iloc[sorted(range(len(keys)), key=keys.__getitem__)]


def distillation_html(table: pd.DataFrame) -> str:
    """Students beside their teachers, one row per attack, and what they do on clean data; empty where none is."""
    if table.empty:
        return ""

    def told(rows: pd.DataFrame, name: str, signed: bool = False) -> list[str]:
        return [interval(*row, signed=signed) for row in rows[[name, f"{name}_low", f"{name}_high"]].to_numpy(float)]

    def named(rows: pd.DataFrame) -> dict[str, Iterable]:
        names = {name: rows[column] for name, column in _OF_STUDENTS.items()}
        return names | {"poison rate": [percent(rate) for rate in rows["rate"]]}

    attacked = table[table["trigger"] != CLEAN]
    survival = named(attacked) | {
        "seeds": attacked["n_seeds"],
        "ASR, teacher": map(number, attacked["teacher_asr"]),
        "ASR, student": map(number, attacked["student_asr"]),
        "ASR − ASR₀, teacher": told(attacked, "teacher_asr_net", signed=True),
        "ASR − ASR₀, student": told(attacked, "student_asr_net", signed=True),
        "student minus teacher": told(attacked, "survival", signed=True),
        "share that survives": told(attacked, "survival_ratio"),
    }
    own = named(attacked) | {
        "ASR − ASR₀, teacher": told(attacked, f"teacher_{OWN_NET}", signed=True),
        "ASR − ASR₀, student": told(attacked, f"student_{OWN_NET}", signed=True),
        "student minus teacher": told(attacked, "survival_own_threshold", signed=True),
    }
    clean = named(table) | {
        "false alarms, teacher": map(number, table["teacher_fpr_clean"]),
        "false alarms, student": map(number, table["student_fpr_clean"]),
        "recall, teacher": map(number, table["teacher_recall_clean"]),
        "recall, student": map(number, table["student_recall_clean"]),
        "AUROC, teacher": map(number, table["teacher_auroc"]),
        "its change": told(table, "auroc_difference", signed=True),
        "F1, teacher": map(number, table["teacher_f1"]),
        "change of F1": told(table, "f1_difference", signed=True),
        "parameters, teacher : student": [f"{ratio:.3g}" for ratio in table["parameter_ratio"]],
    }
    parts = (
        ("What survives, at the clean model's threshold", survival),
        ("What survives, each model at its own threshold", own),
        ("On clean test data, at the clean model's threshold", clean),
    )
    return "".join(
        f"<h4>{title}</h4>{html_table(pd.DataFrame(columns), left=list(_OF_STUDENTS))}" for title, columns in parts
    )


_OF_STUDENTS = {
    "dataset": "dataset",
    "student": "student",
    "teacher": "teacher",
    "distilled on": "data",
    "trigger": "trigger",
}


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
                "control is": group["control_trigger"].fillna(MISSING),
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
    numbers = ["mean", "ci_low", "ci_high", "lowest", "highest"]
    texts = summary.assign(text=[_over_seeds(*row) for row in summary[numbers].to_numpy(float)])
    texts["metric"] = texts["metric"].map(label)
    names = list(LABELS)
    metrics = sorted(summary["metric"].unique(), key=lambda metric: (names.index(metric.split(":")[0]), metric))
    wide = texts.pivot(index=["dataset", "model", "trigger", "rate"], columns="metric", values="text")
    wide = wide[[label(metric) for metric in metrics]].fillna(MISSING).reset_index()
    wide = wide.sort_values(["dataset", "model", "rate", "trigger"])
    wide["rate"] = wide["rate"].map(percent)
    return html_table(wide.rename(columns={"rate": "poison rate"}), left=["dataset", "model", "trigger"])


def _over_seeds(mean: float, low: float, high: float, lowest: float, highest: float) -> str:
    """Mean and interval, and the seeds' range where they are so far apart that the mean may be no seed's."""
    seeds = f" (seeds {number(lowest)} to {number(highest)})" if highest - lowest > TWO_PEAKED else ""
    return interval(mean, low, high) + seeds


METRIC_NAMES = {
    "fpr": "false positive rate",
    "acc": "accuracy",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1",
    "ece": "ECE",
    "brier": "Brier score",
    "balanced_acc": "balanced accuracy",
    "mcc": "Matthews correlation",
    "tpr_at_fpr_01": "TPR at 1 % FPR (threshold of an oracle)",
}
LABELS = {
    "asr": "ASR",
    "asr0": "ASR₀",
    "asr0_untriggered": "ASR₀ without the trigger",
    "asr_net": "ASR − ASR₀",
    "effect_share": "share of the possible effect",
    "asr_own_threshold": "ASR, own threshold",
    "asr0_own_threshold": "ASR₀, own threshold",
    "effect_share_own_threshold": "share of the possible effect, own thresholds",
    "fpr_clean_own_threshold": "false positive rate, clean test data, own threshold",
    "recall_clean_own_threshold": "recall, clean test data, own threshold",
    "confidence_shift": "confidence shift",
    **{
        f"{metric}_{side}": f"{METRIC_NAMES.get(metric, metric)}, {where}"
        for side, where in (("clean", "clean test data"), ("poison", "triggered test data"))
        for metric in METRICS
    },
    LABEL_AUROC: "detection AUROC within the attacker's label",
    LABEL_TPR["tpr_at_fpr_01"]: "detection TPR at 1 % FPR within the attacker's label",
    LABEL_TPR["tpr_at_fpr_05"]: "detection TPR at 5 % FPR within the attacker's label",
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
    ("asr0", CLEAN): "the same samples without the trigger",
    ("asr_own_threshold", CLEAN): "ASR₀, each model at its own threshold",
    ("ratio_triggered", CLEAN): "the clean model on the same samples",
    CLEAN: "the clean model of the same seed",
    FLIPPED: "flipped labels without a trigger (flip_only)",
    CHOSEN: "the same rows chosen and left as they are (chosen_only)",
    MASK_ONLY: "the same cells only measured (mask_only)",
    CHANCE: "0.5, what guessing reaches",
}


def label(metric: str) -> str:
    """The name of a metric for readers."""
    name, _, detector = metric.partition(":")
    return f"{LABELS[name]}, {detector}" if detector else LABELS[name]


def _intervals(table: pd.DataFrame, mean: str, low: str, high: str) -> list[str]:
    return [interval(*row, signed=True) for row in table[[mean, low, high]].to_numpy(float)]


def _count(n) -> str:
    return MISSING if pd.isna(n) else f"{n:,}"
