"""What a reader sees, made from the tables alone: figures, HTML tables and the headline in words.

Every figure function takes the tables (`pipeline.results.tables`) and a dataset and returns a Figure. Intervals are
95 % t-intervals over seeds, cut to [0, 1] for display where the quantity is a share; one seed draws none.
"""

import base64
import io
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.evaluation.statistics import mean_interval
from pipeline.files import whole
from pipeline.grid import CLEAN, CONTROLS
from pipeline.results.tables import ALL_AUROC, BASELINE, FLIPPED, LABEL_AUROC, METRICS, MIN_CELL

# Okabe and Ito's palette, which stays distinct in the common colour blindnesses; yellow is too light for lines.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
GREY = "#767676"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "#e8e8e8",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "backdoor-study",
}
WIDTH, HEIGHT = 3.4, 2.7  # of one panel, inches
ALPHA = 0.05
MISSING = "–"
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


def dose_response(tables: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """Rows: ASR with ASR₀, and ASR − ASR₀; columns: models; x: poison rate."""
    summary = _attacked(tables["summary"], dataset, ["asr", "asr0", "asr_net"])
    models, triggers, rates = _levels(summary)
    if not models:
        return _nothing("No attack success rate is defined in this study.")
    looks = _looks(tables["summary"]["trigger"])
    figure, axes = _panels(2, len(models), sharey="row")
    for column, model in enumerate(models):
        for trigger in triggers:
            offset = _dodge(triggers, trigger)
            for row, metric, look in (
                (0, "asr0", looks[trigger] | {"ls": ":", "lw": 1, "mfc": "white"}),
                (0, "asr", looks[trigger]),
                (1, "asr_net", looks[trigger]),
            ):
                points = _select(summary, model=model, trigger=trigger, metric=metric)
                bounds = (-1, 1) if metric == "asr_net" else (0, 1)
                _dose(axes[row, column], points, rates, offset, look, bounds)
        axes[0, column].set(title=model, ylim=(-0.04, 1.04))
        axes[1, column].axhline(0, color="black", lw=0.8)
        _rate_axis(axes[0, column], rates, label=False)
        _rate_axis(axes[1, column], rates)
    axes[0, 0].set_ylabel("attack success rate")
    axes[1, 0].set_ylabel("ASR − ASR₀")
    hollow = Line2D([], [], color="black", ls=":", lw=1, marker="o", mfc="white", label="ASR₀ (clean model)")
    return _legend(figure, [*_trigger_keys(triggers, looks), hollow])


def clean_performance(tables: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """AUROC on clean test data over the poison rate, one panel per model; band: the clean model."""
    summary = tables["summary"]
    attacked = _attacked(summary, dataset, ["auroc_clean"])
    models, triggers, rates = _levels(attacked)
    if not models:
        return _nothing("No AUROC on clean test data is defined in this study.")
    looks = _looks(summary["trigger"])
    figure, axes = _panels(1, len(models), sharey="row")
    for axis, model in zip(axes[0], models, strict=True):
        for clean in _select(summary, dataset=dataset, model=model, trigger=CLEAN, metric="auroc_clean").itertuples():
            axis.axhline(clean.mean, color="black", lw=1, ls="--")
            if clean.n_seeds > 1:
                axis.axhspan(clean.ci_low, min(clean.ci_high, 1), color="black", alpha=0.1, lw=0)
        for trigger in triggers:
            points = _select(attacked, model=model, trigger=trigger)
            _dose(axis, points, rates, _dodge(triggers, trigger), looks[trigger], (0, 1))
        axis.set_title(model)
        _rate_axis(axis, rates)
    low, high = axes[0, 0].get_ylim()
    margin = max(0, 0.04 - (high - low)) / 2  # hair's breadths would look like gulfs
    axes[0, 0].set(ylabel="AUROC on clean test data", ylim=(low - margin, high + margin))
    return _legend(
        figure, [*_trigger_keys(triggers, looks), Line2D([], [], color="black", ls="--", lw=1, label="clean model")]
    )


def detection_heatmap(tables: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """Detector × trigger, mean detection AUROC within the target label; rows of panels: models, columns: rates."""
    summary = _of(tables["summary"], dataset)
    summary = summary[summary["metric"].str.startswith(f"{LABEL_AUROC}:")]
    summary = summary.assign(detector=summary["metric"].str.split(":").str[1])
    models, triggers, rates = _levels(summary)
    if not models:
        return _nothing("No detection AUROC is defined in this study.")
    detectors = _baseline_last(summary["detector"])
    size = (max(1.9, 0.52 * len(triggers) + 0.4), 0.34 * len(detectors) + 0.5)
    figure, axes = _panels(len(models), len(rates), size, sharex=True, sharey=True)
    for (row, column), axis in np.ndenumerate(axes):
        panel = _select(summary, model=models[row], rate=rates[column])
        values = panel.pivot(index="detector", columns="trigger", values="mean")
        image = _heat(axis, values.reindex(index=detectors, columns=triggers))
        axis.set_title(f"{models[row]}, {percent(rates[column])} poison")
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 2.2 / figure.get_figheight()), aspect=12, pad=0.02)
    bar.set_label("AUROC")
    bar.set_ticks([0, 0.5, 1], labels=["0", "0.5 (chance)", "1"])
    return figure


def detection_roc(tables: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """Mean ROC of every detector within the target label at the largest rate; rows: models, columns: triggers."""
    roc = _select(_of(tables["roc"], dataset), scope=f"label_{tables['runs']['target'].iloc[0]}")
    roc = roc[roc["rate"] == roc["rate"].max()]
    models, triggers, _ = _levels(roc)
    if not models:
        return _nothing("No detection ROC is defined in this study.")
    detectors = _baseline_last(roc["detector"])
    looks = _detector_looks(detectors)
    low = roc.loc[roc["fpr"] > 0, "fpr"].min()
    chance = np.geomspace(low, 1, 50)
    figure, axes = _panels(len(models), len(triggers), (2.4, 2.2), sharex=True, sharey=True)
    for (row, column), axis in np.ndenumerate(axes):
        axis.plot(chance, chance, color="black", ls=":", lw=1)
        for detector in detectors:
            curve = _select(roc, model=models[row], trigger=triggers[column], detector=detector)
            curve = curve[curve["fpr"] > 0]
            axis.plot(curve["fpr"], curve["tpr"], **looks[detector])
            band = [curve[end].clip(0, 1) for end in ("ci_low", "ci_high")]
            axis.fill_between(curve["fpr"], *band, color=looks[detector]["color"], alpha=0.15, lw=0)
        axis.set(title=f"{models[row]}, {triggers[column]}", xscale="log", xlim=(low, 1), ylim=(0, 1.02))
        axis.xaxis.set_major_formatter(lambda x, _: f"{100 * x:g}")
    for axis in axes[-1]:
        axis.set_xlabel("false positive rate (%)")
    for axis in axes[:, 0]:
        axis.set_ylabel("true positive rate")
    keys = [Line2D([], [], label=name, **looks[name]) for name in detectors]
    return _legend(figure, [*keys, Line2D([], [], color="black", ls=":", lw=1, label="chance")])


def attribution(tables: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """Share of attribution on the trigger's footprint; rows: models, columns: triggers, x: poison rate."""
    looks = {
        "ratio_triggered": ("backdoored model", {"color": COLOURS[1], "marker": "o", "ls": "-"}),
        "ratio_control": ("clean model, same samples", {"color": COLOURS[0], "marker": "s", "ls": "-", "mfc": "white"}),
        "footprint_share": ("uniform attribution", {"color": GREY, "ls": ":"}),
    }
    offsets = {"ratio_triggered": -0.05, "ratio_control": 0.05, "footprint_share": 0}
    summary = _attacked(tables["summary"], dataset, list(looks))
    models, triggers, rates = _levels(summary)
    if not models:
        return _nothing("No trigger of this study has a footprint to attribute a decision to.")
    figure, axes = _panels(len(models), len(triggers), (2.4, 2.2), sharex=True, sharey=True)
    for (row, column), axis in np.ndenumerate(axes):
        for metric, (_, look) in looks.items():
            points = _select(summary, model=models[row], trigger=triggers[column], metric=metric)
            _dose(axis, points, rates, offsets[metric], look, (0, 1))
        axis.set_title(f"{models[row]}, {triggers[column]}")
        _rate_axis(axis, rates, label=row == len(models) - 1)
    axes[0, 0].set_ylim(bottom=0)
    figure.supylabel("share of attribution on the trigger's cells", fontsize=9)
    keys = [Line2D([], [], **look, label=label) for label, look in looks.values()]
    return _legend(figure, keys)


def false_alarms(tables: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """Share of clean training data that a threshold which does not know the rate flags, by detector and scope."""
    alarms = _select(_of(tables["alarms"], dataset), trigger=CLEAN, threshold="rate_unknown")
    models, detectors = sorted(alarms["model"].unique()), _baseline_last(alarms["detector"])
    if not models:
        return _nothing("No detector of this study has a threshold that does not know the rate.")
    scopes = sorted(alarms["scope"].unique())
    figure, axes = _panels(1, len(models), (WIDTH, 0.45 * len(detectors) + 1.0), sharey="row")
    for axis, model in zip(axes[0], models, strict=True):
        for place, detector in enumerate(detectors):
            for index, scope in enumerate(scopes):
                group = _select(alarms, model=model, detector=detector, scope=scope)
                height = place + _dodge(scopes, scope, 0.5)
                _alarm_row(axis, group["flagged_share"], height, COLOURS[index], MARKERS[index])
        axis.set(title=model, xlabel="clean training samples flagged", xlim=(-0.02, 1.02))
        axis.set_yticks(range(len(detectors)), detectors)
        axis.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.0f} %")
    axes[0, 0].set_ylim(len(detectors) - 0.5, -0.5)
    return _legend(
        figure,
        [
            Line2D([], [], color=COLOURS[i], marker=MARKERS[i], ls="", label=f"scope {scope}")
            for i, scope in enumerate(scopes)
        ],
    )


FIGURES: dict[str, Callable[[dict[str, pd.DataFrame], str], Figure]] = {
    "dose_response": dose_response,
    "clean_performance": clean_performance,
    "detection_heatmap": detection_heatmap,
    "detection_roc": detection_roc,
    "attribution": attribution,
    "false_alarms": false_alarms,
}


def draw(name: str, tables: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """The figure called `name`, in the project's style."""
    with rc_context(STYLE):
        return FIGURES[name](tables, dataset)


def save(figure: Figure, stem: Path) -> None:
    """`stem`.png and `stem`.svg, without dates and versions, so that the same numbers give the same bytes."""
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        with whole(stem.with_name(f"{stem.name}.{suffix}")) as aside, rc_context(STYLE):
            figure.savefig(aside, format=suffix, dpi=150, metadata=metadata)


def figure_html(figure: Figure, caption: str) -> str:
    """The figure as an embedded SVG with its caption, which is also the text for screen readers."""
    buffer = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    width = round(96 * figure.get_figwidth())
    image = f'<img alt="{escape(caption)}" width="{width}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _attacked(summary: pd.DataFrame, dataset: str, metrics: list[str]) -> pd.DataFrame:
    table = _of(summary, dataset)
    return table[(table["trigger"] != CLEAN) & table["metric"].isin(metrics)]


def _of(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    return table[table["dataset"] == dataset]


def _select(table: pd.DataFrame, **wanted) -> pd.DataFrame:
    for name, value in wanted.items():
        table = table[table[name] == value]
    return table


def _levels(table: pd.DataFrame) -> tuple[list[str], list[str], list[float]]:
    """Models, triggers (flip_only last) and rates that have something to show."""
    triggers = sorted(table["trigger"].unique(), key=lambda name: (name == FLIPPED, name))
    return sorted(table["model"].unique()), triggers, sorted(table["rate"].unique())


def _baseline_last(detectors: pd.Series) -> list[str]:
    return sorted(detectors.unique(), key=lambda name: (name == BASELINE, name))


def _looks(triggers: Iterable[str]) -> dict[str, dict]:
    """A line per trigger, the same in every figure of a study; the control is grey and dashed."""
    attacks = sorted(set(triggers) - set(CONTROLS))
    looks = {
        name: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "ls": "-", "lw": 1.5}
        for i, name in enumerate(attacks)
    }
    return looks | {FLIPPED: {"color": GREY, "marker": "x", "ls": "--", "lw": 1.5}}


def _detector_looks(detectors: list[str]) -> dict[str, dict]:
    styles = ["-", "--", "-."]
    looks = {
        name: {"color": COLOURS[i % len(COLOURS)], "ls": styles[i % len(styles)], "lw": 1.5}
        for i, name in enumerate(detectors)
    }
    return looks | {BASELINE: {"color": GREY, "ls": "-", "lw": 1.2}}


def _trigger_keys(triggers: list[str], looks: dict[str, dict]) -> list[Line2D]:
    return [
        Line2D([], [], label=f"{name} (control: labels only)" if name == FLIPPED else name, **looks[name])
        for name in triggers
    ]


def _panels(rows: int, columns: int, size: tuple[float, float] = (WIDTH, HEIGHT), **share):
    """A figure with rows × columns panels of `size` inches and room for labels and a legend."""
    figure = Figure(figsize=(max(5.2, size[0] * columns + 1.2), size[1] * rows + 0.9), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **share)


def _legend(figure: Figure, keys: list[Line2D]) -> Figure:
    columns = max(1, min(len(keys), int(figure.get_figwidth() / 1.75)))
    figure.legend(handles=keys, loc="outside lower center", ncols=columns, markerscale=0.9, numpoints=1)
    return figure


def _nothing(sentence: str) -> Figure:
    figure = Figure(figsize=(6, 0.8))
    figure.text(0.5, 0.5, sentence, ha="center", va="center")
    return figure


def _dodge(names: list, name, width: float = 0.4) -> float:
    """Sideways step that keeps the intervals of neighbours apart."""
    return 0.0 if len(names) == 1 else width * (names.index(name) / (len(names) - 1) - 0.5)


def _dose(
    axis: Axes, points: pd.DataFrame, rates: list[float], offset: float, look: dict, bounds: tuple[float, float]
) -> None:
    """Means over evenly spaced rates, with intervals inside `bounds`."""
    points = points.sort_values("rate")
    x = np.array([rates.index(rate) for rate in points["rate"]]) + offset
    mean = points["mean"].to_numpy(float)
    ends = points[["ci_low", "ci_high"]].to_numpy(float).clip(*bounds)
    reach = np.abs(ends - mean[:, None]).T
    axis.errorbar(x, mean, reach, capsize=2, elinewidth=1, ms=5, **look)


def _rate_axis(axis: Axes, rates: list[float], label: bool = True) -> None:
    axis.set_xticks(range(len(rates)), [percent(rate) for rate in rates])
    axis.set_xlim(-0.5, len(rates) - 0.5)
    if label:
        axis.set_xlabel("poisoned share of training data")


def _heat(axis: Axes, values: pd.DataFrame):
    """Numbers in coloured cells; a missing cell is grey and says so with a dash."""
    numbers = values.to_numpy(float)
    axis.set_facecolor("#dddddd")
    image = axis.imshow(numbers, cmap="RdBu_r", norm=TwoSlopeNorm(0.5, 0, 1), aspect="auto")
    for (row, column), value in np.ndenumerate(numbers):
        dark = abs(value - 0.5) > 0.32
        text = "–" if np.isnan(value) else f"{value:.2f}"
        axis.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axis.set_xticks(range(values.shape[1]), values.columns, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(values.shape[0]), values.index)
    axis.grid(False)
    axis.tick_params(length=0)
    return image


def _alarm_row(axis: Axes, shares: pd.Series, height: float, colour: str, marker: str) -> None:
    """A dot per seed, mean and interval; a mean would mislead if a seed is hidden for its small count."""
    shown = shares.dropna().to_numpy(float)
    axis.plot(shown, np.full(len(shown), height), ".", color=colour, alpha=0.4, ms=5)
    if len(shown) < len(shares):
        note = f"fewer than {MIN_CELL} flagged in {len(shares) - len(shown)} of {len(shares)} seeds"
        axis.text(shown.max(initial=0) + 0.03, height, note, va="center", fontsize=7, color=colour)
        return
    over_seeds = mean_interval(shown)
    reach = np.abs(np.clip([[over_seeds.low], [over_seeds.high]], 0, 1) - over_seeds.mean)
    axis.errorbar(over_seeds.mean, height, xerr=reach, marker=marker, color=colour, capsize=2, elinewidth=1, ms=6)


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
    """Texts as an HTML table that scrolls sideways; columns in `prose` wrap, `left` and `prose` are left-aligned."""
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


def datasets_html(datasets: pd.DataFrame) -> str:
    thresholds = zip(datasets["threshold_low"], datasets["threshold_high"], strict=True)
    table = pd.DataFrame(
        {
            "dataset": datasets["dataset"],
            "training samples": [_count(n) for n in datasets["n_train"]],
            "test samples": [_count(n) for n in datasets["n_test"]],
            "test samples with label 1": [
                MISSING if pd.isna(share) else f"{100 * share:.1f} %" for share in datasets["prevalence"]
            ],
            "decision thresholds": [
                number(low) if low == high else f"{number(low)} to {number(high)}" for low, high in thresholds
            ],
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
            "poisoned samples": [f"{n:.6g}" for n in triggers["n_poisoned"]],
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
    if len(attacks):
        shown = attacks[attacks["works"]] if attacks["works"].any() else attacks
        answers += [
            ("How little poison plants a backdoor?", _how_little(attacks)),
            ("Is it the trigger, or only the flipped labels?", _only_labels(shown, control)),
            ("Would the performance on clean data give it away?", _clean_cost(shown)),
        ]
        if shown["detector"].notna().any():
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
        return "The AUROC on clean test data is not defined in this study."
    worst = shown.loc[change.idxmin()]
    cost = interval(worst["auroc_difference"], worst["auroc_ci_low"], worst["auroc_ci_high"], signed=True)
    return (
        f"At {_which_rates(shown)}, the AUROC on clean test data differed from the clean model's by "
        f"{_range(change, signed=True)}; the least favourable change was {cost} ({_pair(worst)}, AUROC now "
        f"{number(worst['auroc_mean_run'])}). {_significant(shown['auroc_p_holm'])}"
    )


def _detected(shown: pd.DataFrame, control: pd.DataFrame) -> str:
    shown = shown.dropna(subset="detector")
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
