"""The figures, made from the tables alone.

Every figure function takes the tables (`pipeline.results.tables`) and a dataset and returns a Figure. Intervals are
95 % intervals over seeds, as in the tables; one seed draws none. Small dots are the seeds themselves.
"""

import base64
import io
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.evaluation.statistics import proportion_interval
from pipeline.files import whole
from pipeline.results.columns import LABEL_AUROC, TRIGGER, is_attack
from pipeline.results.pages import WITHHELD, contrasts_html, page, percent
from pipeline.smallcells import MIN_CELL, error_of_tens
from pipeline.study.grid import CHOSEN, CLEAN, FLIPPED, MASK_ONLY
from pipeline.study.variants import BASELINE

# Okabe and Ito's palette, which stays distinct in the common colour blindnesses; yellow is too light for lines.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
GREY = "#767676"
SHADES = [GREY, "#303030", "#a8a8a8"]  # of controls that are alike
STYLE: dict[Any, Any] = {
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
FAR_APART = 0.2  # from the lowest to the highest seed: their range is told beside the mean
WIDTH, HEIGHT = 3.4, 2.7  # of one panel, inches


def dose_response(tables: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """Rows: ASR with ASR₀, and ASR − ASR₀; columns: models; x: poison rate."""
    summary, runs = _attacked(tables["summary"], dataset, ["asr", "asr0", "asr_net"]), _of(tables["runs"], dataset)
    models, triggers, rates = _levels(summary, tables)
    if not models:
        return _nothing("attack success rate")
    looks = _looks(tables)
    figure, axes = _panels(2, len(models), sharey="row")
    for column, model in enumerate(models):
        for trigger in triggers:
            offset = _dodge(triggers, trigger)
            for row, metric, look in (
                (0, "asr0", looks[trigger] | {"ls": ":", "lw": 1, "mfc": "white"}),
                (0, "asr", looks[trigger]),
                (1, "asr_net", looks[trigger]),
            ):
                if metric != "asr0":
                    seeds = _select(runs, model=model, trigger=trigger)
                    _seeds(axes[row, column], seeds, metric, rates, offset, look["color"])
                points = _select(summary, model=model, trigger=trigger, metric=metric)
                _dose(axes[row, column], points, rates, offset, look)
        axes[0, column].set(title=model, ylim=(-0.04, 1.04))
        axes[1, column].axhline(0, color="black", lw=0.8)
        _rate_axis(axes[0, column], rates, label=False)
        _rate_axis(axes[1, column], rates)
    axes[0, 0].set_ylabel("attack success rate")
    axes[1, 0].set_ylabel("ASR − ASR₀")
    hollow = Line2D([], [], color="black", ls=":", lw=1, marker="o", mfc="white", label="ASR₀ (clean model)")
    return _legend(figure, [*_trigger_keys(triggers, looks, _of(tables["triggers"], dataset)), hollow])


def clean_performance(tables: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """AUROC on clean test data over the poison rate, one panel per model; band: the clean model."""
    summary, runs = tables["summary"], _of(tables["runs"], dataset)
    attacked = _attacked(summary, dataset, ["auroc_clean"])
    models, triggers, rates = _levels(attacked, tables)
    if not models:
        return _nothing("AUROC on clean test data")
    looks = _looks(tables)
    figure, axes = _panels(1, len(models), sharey="row")
    for axis, model in zip(axes[0], models, strict=True):
        for clean in _select(summary, dataset=dataset, model=model, trigger=CLEAN, metric="auroc_clean").itertuples():
            axis.axhline(clean.mean, color="black", lw=1, ls="--")
            if clean.n_seeds > 1:
                axis.axhspan(clean.ci_low, clean.ci_high, color="black", alpha=0.1, lw=0)
        for trigger in triggers:
            seeds, offset = _select(runs, model=model, trigger=trigger), _dodge(triggers, trigger)
            _seeds(axis, seeds, "auroc_clean", rates, offset, looks[trigger]["color"])
            _dose(axis, _select(attacked, model=model, trigger=trigger), rates, offset, looks[trigger])
        axis.set_title(model)
        _rate_axis(axis, rates)
    low, high = axes[0, 0].get_ylim()
    margin = max(0, 0.04 - (high - low)) / 2  # hair's breadths would look like gulfs
    axes[0, 0].set(ylabel="AUROC on clean test data", ylim=(low - margin, high + margin))
    return _legend(
        figure,
        [
            *_trigger_keys(triggers, looks, _of(tables["triggers"], dataset)),
            Line2D([], [], color="black", ls="--", lw=1, label="clean model"),
        ],
    )


def detection_heatmap(tables: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """Detector × trigger, mean detection AUROC within the target label; rows of panels: models, columns: rates.

    Where the seeds are far apart their range stands below the mean, which may be no seed's.
    """
    summary = _of(tables["summary"], dataset)
    summary = summary[summary["metric"].str.startswith(f"{LABEL_AUROC}:")]
    summary = summary.assign(detector=summary["metric"].str.split(":").str[1])
    models, triggers, rates = _levels(summary, tables)
    if not models:
        return _nothing("detection AUROC")
    detectors = _baseline_last(summary["detector"])
    size = (max(1.9, 0.6 * len(triggers) + 0.4), 0.42 * len(detectors) + 0.5)
    figure, axes = _panels(len(models), len(rates), size, sharex=True, sharey=True)
    for (row, column), axis in np.ndenumerate(axes):
        panel = _select(summary, model=models[row], rate=rates[column])
        place = {"index": detectors, "columns": triggers}
        mean, low, high = (
            panel.pivot(index="detector", columns="trigger", values=name).reindex(**place)
            for name in ("mean", "lowest", "highest")
        )
        image = _heat(axis, mean, low, high)
        axis.set_title(f"{models[row]}, {percent(rates[column])} poison")
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 2.2 / figure.get_figheight()), aspect=12, pad=0.02)
    bar.set_label("AUROC")
    bar.set_ticks([0, 0.5, 1], labels=["0", "0.5 (chance)", "1"])
    return figure


def detection_roc(tables: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """Mean ROC of every detector within the target label at the largest rate; rows: models, columns: triggers."""
    roc = _of(tables["roc"], dataset).merge(tables["triggers"][[*TRIGGER, "target"]], on=TRIGGER)
    roc = roc[roc["scope"] == "label_" + roc["target"].astype(str)]
    roc = roc[roc["rate"] == roc["rate"].max()]
    models, triggers, _ = _levels(roc, tables)
    if not models:
        return _nothing("detection ROC")
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
            axis.fill_between(
                curve["fpr"], curve["ci_low"], curve["ci_high"], color=looks[detector]["color"], alpha=0.15, lw=0
            )
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
    looks: dict[str, tuple[str, dict[str, Any]]] = {
        "ratio_triggered": ("backdoored model", {"color": COLOURS[1], "marker": "o", "ls": "-"}),
        "ratio_control": ("clean model, same samples", {"color": COLOURS[0], "marker": "s", "ls": "-", "mfc": "white"}),
        "footprint_share": ("uniform attribution", {"color": GREY, "ls": ":"}),
    }
    offsets = {"ratio_triggered": -0.05, "ratio_control": 0.05, "footprint_share": 0}
    summary = _attacked(tables["summary"], dataset, list(looks))
    models, triggers, rates = _levels(summary[summary["metric"] != "footprint_share"], tables)
    if not models:
        return _nothing("attribution on a trigger's footprint")
    figure, axes = _panels(len(models), len(triggers), (2.4, 2.2), sharex=True, sharey=True)
    for (row, column), axis in np.ndenumerate(axes):
        for metric, (_, look) in looks.items():
            points = _select(summary, model=models[row], trigger=triggers[column], metric=metric)
            _dose(axis, points, rates, offsets[metric], look)
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
        return _nothing("false alarms")
    scopes = sorted(alarms["scope"].unique())
    figure, axes = _panels(1, len(models), (WIDTH, 0.45 * len(detectors) + 1.0), sharey="row")
    for axis, model in zip(axes[0], models, strict=True):
        for place, detector in enumerate(detectors):
            for index, scope in enumerate(scopes):
                group = _select(alarms, model=model, detector=detector, scope=scope)
                height = place + _dodge(scopes, scope, 0.5)
                error = _error_of_flagged(_of(tables["datasets"], dataset), scope)
                _alarm_row(axis, group["flagged_share"], error, height, COLOURS[index], MARKERS[index])
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


def survival(tables: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """ASR of teachers and of their students per trigger; rows: teachers, columns: poison rates.

    The dash beside a marker is the ASR₀ of the same model: what lies above it is the attack's effect.
    """
    table = _of(tables["distillation"], dataset)
    pairs = table[["student", "teacher", "data"]].drop_duplicates()
    summary = _attacked(tables["summary"], dataset, ["asr", "asr0"])
    shown = summary[summary["model"].isin([*pairs["student"], *pairs["teacher"]])]
    _, triggers, rates = _levels(shown, tables)
    if not triggers:
        return _nothing("attack success rate")
    runs, teachers = _of(tables["runs"], dataset), sorted(pairs["teacher"].unique())
    looks = _student_looks(pairs)
    most = 1 + max(len(rows) for _, rows in pairs.groupby("teacher"))
    size = (max(2.6, 0.24 * (most + 1.5) * len(triggers) + 0.5), HEIGHT)
    figure, axes = _panels(len(teachers), len(rates), size, sharex=True, sharey=True)
    for (row, column), axis in np.ndenumerate(axes):
        models = [teachers[row], *pairs.loc[pairs["teacher"] == teachers[row], "student"]]
        for place, trigger in enumerate(triggers):
            for model in models:
                x = place + _dodge(models, model, 0.62)
                here = {"model": model, "trigger": trigger, "rate": rates[column]}
                _survivor(axis, x, _select(shown, **here), _select(runs, **here), looks[model])
        axis.set(title=f"teacher {teachers[row]}, {percent(rates[column])} poison", ylim=(-0.04, 1.04))
        axis.set_xticks(range(len(triggers)), triggers, rotation=30, ha="right", rotation_mode="anchor")
        axis.set_xlim(-0.6, len(triggers) - 0.4)
        axis.grid(axis="x", visible=False)
        for edge in np.arange(len(triggers) - 1) + 0.5:
            axis.axvline(edge, color="#e8e8e8", lw=0.8)
    for axis in axes[:, 0]:
        axis.set_ylabel("attack success rate")
    data = dict(zip(pairs["student"], pairs["data"], strict=True))
    keys = [Line2D([], [], ls="", label=f"{name}, teacher", **looks[name]) for name in teachers]
    titles = {name: f"{name}, distilled on {kind} data" for name, kind in data.items()}
    keys += [Line2D([], [], ls="", label=title, **looks[name]) for name, title in titles.items()]
    dash = Line2D([], [], color="black", ls="", marker="_", ms=9, label="ASR₀ of the same model")
    return _legend(figure, [*keys, dash])


FIGURES: dict[str, Callable[[dict[str, pd.DataFrame], str], Figure]] = {
    "dose_response": dose_response,
    "clean_performance": clean_performance,
    "detection_heatmap": detection_heatmap,
    "detection_roc": detection_roc,
    "attribution": attribution,
    "false_alarms": false_alarms,
    "survival": survival,
}


def draw(name: str, tables: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """The figure called `name`, in the project's style."""
    with rc_context(STYLE):
        return FIGURES[name](tables, dataset)


def write(tables: dict[str, pd.DataFrame], datasets: Iterable[str], folder: Path) -> None:
    """Every figure of each dataset, and its contrasts as a page."""
    for dataset in datasets:
        for name in FIGURES:
            if name == "survival" and _of(tables["distillation"], dataset).empty:
                continue  # nothing was distilled: no rule expects it
            save(draw(name, tables, dataset), Path(folder) / f"{dataset}_{name}")
        body = f"<h1>Contrasts in {escape(dataset)}</h1>{contrasts_html(_of(tables['contrasts'], dataset))}"
        with whole(Path(folder) / f"{dataset}_contrasts.html") as aside:
            aside.write_text(page(f"Contrasts in {dataset}", body), encoding="utf-8")


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


def _kinds(tables: dict[str, pd.DataFrame]) -> dict[str, str]:
    """The member that each trigger is of."""
    return dict(zip(tables["triggers"]["trigger"], tables["triggers"]["of"], strict=True))


def _levels(table: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> tuple[list[str], list[str], list[float]]:
    """Models, triggers (controls last) and rates that have something to show in `table`."""
    kinds = _kinds(tables)
    triggers = sorted(table["trigger"].unique(), key=lambda name: (not is_attack(kinds[name]), name))
    return sorted(table["model"].unique()), triggers, sorted(table["rate"].unique())


def _baseline_last(detectors: pd.Series) -> list[str]:
    return sorted(detectors.unique(), key=lambda name: (name == BASELINE, name))


def _looks(tables: dict[str, pd.DataFrame]) -> dict[str, dict]:
    """A line per trigger, the same in every figure of a study; controls are grey and broken."""
    kinds, control = _kinds(tables), {"color": GREY, "lw": 1.5}
    broken = {FLIPPED: {"marker": "x", "ls": "--"}, CHOSEN: {"marker": "1", "ls": ":"}}
    broken |= {MASK_ONLY: {"marker": "+", "ls": "-."}}
    attacks = sorted(name for name, kind in kinds.items() if is_attack(kind))
    looks = {
        name: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "ls": "-", "lw": 1.5}
        for i, name in enumerate(attacks)
    }
    of_kind: dict[str, list[str]] = {}
    for name, kind in sorted(kinds.items()):
        of_kind.setdefault(kind, []).append(name)
    for kind in broken:
        for i, name in enumerate(of_kind.get(kind, [])):  # the second and third of a kind are told by their shade
            looks[name] = control | broken[kind] | {"color": SHADES[i % len(SHADES)]}
    return looks


def _student_looks(pairs: pd.DataFrame) -> dict[str, dict]:
    """Teachers are black; a student is hollow where it was distilled on clean data."""
    teachers = {name: {"color": "black", "marker": "s"} for name in sorted(pairs["teacher"].unique())}
    students, markers = {}, [marker for marker in MARKERS if marker != "s"]
    for i, row in enumerate(pairs.itertuples()):
        look = {"color": COLOURS[i % len(COLOURS)], "marker": markers[(i + i // len(COLOURS)) % len(markers)]}
        students[row.student] = look | ({"mfc": "white"} if row.data == "clean" else {})
    return students | teachers


def _survivor(axis: Axes, x: float, points: pd.DataFrame, runs: pd.DataFrame, look: dict) -> None:
    """The ASR of a model on one trigger with its interval and seeds, and its ASR₀."""
    for point in points.itertuples():
        if point.metric == "asr0":
            axis.plot(x, point.mean, "_", color=look["color"], ms=9, zorder=1)
        else:
            reach = np.abs([[point.ci_low - point.mean], [point.ci_high - point.mean]])
            axis.errorbar(x, point.mean, reach, capsize=2, elinewidth=1, ms=6, ls="", **look)
    seeds = runs["asr"].dropna()
    if len(seeds) > 1:
        axis.plot(np.full(len(seeds), x + 0.05), seeds, ".", color=look["color"], alpha=0.35, ms=3)


def _detector_looks(detectors: list[str]) -> dict[str, dict]:
    styles = ["-", "--", "-."]
    looks = {
        name: {"color": COLOURS[i % len(COLOURS)], "ls": styles[(i + i // len(COLOURS)) % len(styles)], "lw": 1.5}
        for i, name in enumerate(detectors)
    }
    return looks | {BASELINE: {"color": GREY, "ls": "-", "lw": 1.2}}


def _trigger_keys(triggers: list[str], looks: dict[str, dict], described: pd.DataFrame) -> list[Line2D]:
    """Legend entries; values that the training data does not show are labelled so."""
    outside = described.loc[described["in_bounds"].fillna(True).eq(False), "trigger"]
    notes = dict.fromkeys(outside, " (out of range)")
    told = {FLIPPED: "labels only", CHOSEN: "chosen, left as they are", MASK_ONLY: "measured only"}
    kinds = zip(described["trigger"], described["of"], strict=True)
    notes |= {name: f" (control: {told[kind]})" for name, kind in kinds if kind in told}
    return [Line2D([], [], label=name + notes.get(name, ""), **looks[name]) for name in triggers]


def _panels(rows: int, columns: int, size: tuple[float, float] = (WIDTH, HEIGHT), **share):
    """A figure with rows × columns panels of `size` inches and room for labels and a legend."""
    figure = Figure(figsize=(max(5.2, size[0] * columns + 1.2), size[1] * rows + 0.9), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **share)


def _legend(figure: Figure, keys: list[Line2D]) -> Figure:
    """A legend below the panels, in as many columns as fit beside one another."""
    columns = max(1, min(len(keys), int(figure.get_figwidth() / 2.2)))
    for fewer in range(columns, 0, -1):
        legend = figure.legend(handles=keys, loc="outside lower center", ncols=fewer, markerscale=0.9, numpoints=1)
        if fewer == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
    return figure


def _nothing(quantity: str) -> Figure:
    figure = Figure(figsize=(7, 0.8))
    figure.text(0.01, 0.5, f"{quantity[0].upper()}{quantity[1:]}\n{WITHHELD}", va="center", linespacing=1.6)
    return figure


def _dodge(names: list, name, width: float = 0.4) -> float:
    """Sideways step that keeps the intervals of neighbours apart."""
    return 0.0 if len(names) == 1 else width * (names.index(name) / (len(names) - 1) - 0.5)


def _dose(axis: Axes, points: pd.DataFrame, rates: list[float], offset: float, look: dict) -> None:
    """Means over evenly spaced rates, with their intervals."""
    points = points.sort_values("rate")
    x = np.array([rates.index(rate) for rate in points["rate"]]) + offset
    mean = points["mean"].to_numpy(float)
    reach = np.abs(points[["ci_low", "ci_high"]].to_numpy(float) - mean[:, None]).T
    axis.errorbar(x, mean, reach, capsize=2, elinewidth=1, ms=5, **look)


def _seeds(axis: Axes, runs: pd.DataFrame, metric: str, rates: list[float], offset: float, colour: str) -> None:
    """A small dot per seed; none where there is one seed, which is the mean."""
    shown = runs[runs["rate"].isin(rates)].dropna(subset=metric)
    if shown["seed"].nunique() > 1:
        x = np.array([rates.index(rate) for rate in shown["rate"]]) + offset
        axis.plot(x, shown[metric], ".", color=colour, alpha=0.35, ms=3)


def _rate_axis(axis: Axes, rates: list[float], label: bool = True) -> None:
    axis.set_xticks(range(len(rates)), [percent(rate) for rate in rates])
    axis.set_xlim(-0.5, len(rates) - 0.5)
    if label:
        axis.set_xlabel("poisoned share of training data")


def _heat(axis: Axes, values: pd.DataFrame, low: pd.DataFrame, high: pd.DataFrame):
    """Numbers in coloured cells, wide ranges below them; a missing cell is grey and says so with a dash."""
    numbers = values.to_numpy(float)
    axis.set_facecolor("#dddddd")
    image = axis.imshow(numbers, cmap="RdBu_r", norm=TwoSlopeNorm(0.5, 0, 1), aspect="auto")
    for (row, column), value in np.ndenumerate(numbers):
        dark = abs(value - 0.5) > 0.32
        colour = "white" if dark else "black"
        ends = low.iloc[row, column], high.iloc[row, column]
        apart = ends[1] - ends[0] > FAR_APART
        text = "–" if np.isnan(value) else f"{value:.2f}"
        axis.text(column, row - 0.16 * apart, text, ha="center", va="center", fontsize=8, color=colour)
        if apart:
            text = f"{ends[0]:.2f}–{ends[1]:.2f}"
            axis.text(column, row + 0.22, text, ha="center", va="center", fontsize=5.5, color=colour)
    axis.set_xticks(range(values.shape[1]), values.columns, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(values.shape[0]), values.index)
    axis.grid(False)
    axis.tick_params(length=0)
    return image


def _error_of_flagged(datasets: pd.DataFrame, scope: str) -> float:
    """How far rounding can move a share that is flagged in clean training data, which is split as the test data is."""
    if not datasets["people"].all():
        return 0.0
    n_train, prevalence = datasets[["n_train", "prevalence"]].astype("Float64").to_numpy(float, na_value=np.nan)[0]
    labels = np.floor(n_train * np.array([1 - prevalence, prevalence]))
    labels = labels if scope == "all" else labels[[int(scope.removeprefix("label_"))]]
    return float(error_of_tens(labels).sum() / labels.sum())


def _alarm_row(axis: Axes, shares: pd.Series, error: float, height: float, colour: str, marker: str) -> None:
    """A dot per seed, mean and interval; a mean would mislead if a seed is hidden for its small count."""
    shown = shares.dropna().to_numpy(float)
    axis.plot(shown, np.full(len(shown), height), ".", color=colour, alpha=0.4, ms=5)
    if len(shown) < len(shares):
        note = f"fewer than {MIN_CELL} patients in {len(shares) - len(shown)} of {len(shares)} seeds"
        axis.text(shown.max(initial=0) + 0.03, height, note, va="center", fontsize=7, color=colour)
        return
    over_seeds = proportion_interval(shown, error=error)
    reach = np.abs(np.array([[over_seeds.low], [over_seeds.high]]) - over_seeds.mean)
    axis.errorbar(over_seeds.mean, height, xerr=reach, marker=marker, color=colour, capsize=2, elinewidth=1, ms=6)
