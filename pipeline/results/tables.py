"""Tidy tables of a study, built from the JSON facts its runs left: aggregates only, after disclosure control.

Rows are sorted by their key, so the order of the lists in the config leaves no trace in the files.
"""

from collections.abc import Collection, Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.cohorts.roles import ROLES
from pipeline.errors import UserError
from pipeline.evaluation.metrics import share_of_possible
from pipeline.evaluation.statistics import (
    Interval,
    holm,
    mean_interval,
    paired_contrast,
    proportion_interval,
    ratio_interval,
)
from pipeline.evaluation.strata import in_order
from pipeline.files import damaged, whole, write_json
from pipeline.results import fusion
from pipeline.results.coarseness import largest_errors
from pipeline.results.columns import (
    ALARMS,
    ALL_AUROC,
    ATTACK,
    ATTRIBUTIONS,
    CHANCE,
    CLEAN_PERFORMANCE,
    CONTRASTED,
    CONTRASTS,
    COUNTS,
    DATASETS,
    DETECTIONS,
    DISTILLATION,
    DOSE_RESPONSE,
    DRIFT,
    EXPLANATIONS,
    HEADLINES,
    KEY,
    LABEL_AUROC,
    LABEL_TPR,
    MASKS,
    METRICS,
    NOT_APPLICABLE,
    ON_CLEAN,
    ON_TEST,
    ON_TRIGGERED,
    OVER_TEST_SAMPLES,
    PLAUSIBILITY,
    ROC,
    RUN,
    RUNS,
    SCENARIOS,
    SHARES,
    SIZE,
    STRATA,
    STRATA_MEASURES,
    STRATA_SUMMARY,
    SUMMARY,
    TEXTS,
    THRESHOLDS,
    TRAINING,
    TRIGGER,
    TRIGGERS,
    VARIANTS,
    possible,
)
from pipeline.results.disclosure import (
    ALARMS_REST_ON,
    ATTRIBUTIONS_REST_ON,
    DATASETS_REST_ON,
    DETECTIONS_REST_ON,
    EXPLANATIONS_REST_ON,
    ROC_RESTS_ON,
    RUNS_REST_ON,
    TRIGGERS_REST_ON,
    detection_in_tens,
    explanation_in_tens,
    of_people,
    run_in_tens,
    thresholds_in_digits,
    withhold,
)
from pipeline.results.distillation import distillation, students
from pipeline.results.facts import collect
from pipeline.results.findings import findings
from pipeline.results.meanings import columns, meaning
from pipeline.results.performance import clean_performance
from pipeline.results.scenarios import scenarios
from pipeline.results.strata import errors, strata_in_tens
from pipeline.smallcells import MIN_CELL, error_of_tens
from pipeline.study.grid import CHOSEN, CLEAN, CONTROLS, FLIPPED, MASK_ONLY, Cell, format_rate
from pipeline.study.variants import BASELINE

# For `split: per_seed` alone. A published test set is the same for all seeds, whatever the split: intervals say nothing
# of other test samples, as with `split: fixed`, and of these very ones they are wider than they need be.
TEST_TO_TRAIN = ROLES["test"] / ROLES["train"]


def build(study, results_dir: Path, only: Collection[Cell] | None = None) -> dict[str, pd.DataFrame]:
    """Every table of the study, or of its cells in `only`, by name."""
    facts = collect(study, results_dir, only)
    tables: dict[str, pd.DataFrame] = {
        "runs": runs(facts.evals),
        "detections": detections(facts.detects),
        "alarms": alarms(facts.detects),
        "explanations": explanations(facts.explains),
        "attributions": attributions(facts.explains),
        "triggers": triggers(facts.poisons),
        "datasets": datasets(facts.evals),
        "strata": strata(facts.evals),
        "roc": roc(facts.detects),
    }
    for table in (summary, contrasts, masks, strata_summary):
        tables[table.__name__] = table(tables, study.split)
    tables["clean_performance"] = clean_performance(tables, facts.evals)[CLEAN_PERFORMANCE]
    tables["variants"] = variants(tables, study.split, parents(study))
    tables["not_applicable"] = not_applicable(study)
    tables["scenarios"] = _table(scenarios(tables), SCENARIOS, [*RUN, "stratum"])
    tables["distillation"] = _table(distillation(tables, study.split, students(study)), DISTILLATION, DISTILLATION[:5])
    tables["fusion"] = fusion.table(study, facts.evals)
    tables["findings"] = findings(tables)
    return tables | {"columns": columns(tables)}


def write(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Each table as CSV (missing = empty field) and as Parquet, whose fields have the meaning as their description."""
    for name, table in tables.items():
        with whole(Path(folder) / f"{name}.csv") as aside:
            table.to_csv(aside, index=False, lineterminator="\n")
        with whole(Path(folder) / f"{name}.parquet") as aside:
            pq.write_table(_described(name, table), aside)


def _described(name: str, table: pd.DataFrame) -> pa.Table:
    """As pandas itself writes it, and the meaning of each column."""
    content = pa.Table.from_pandas(table, preserve_index=False)
    fields = [field.with_metadata({"description": meaning(name, field.name)}) for field in content.schema]
    return content.cast(pa.schema(fields, content.schema.metadata))


def write_headlines(summary: pd.DataFrame, folder: Path) -> None:
    """What is compared between versions of a study: `metrics.json` and `dose_response.csv`."""
    write_json(Path(folder) / "metrics.json", metrics(summary))
    with whole(Path(folder) / "dose_response.csv") as aside:
        dose_response(summary).to_csv(aside, index=False, lineterminator="\n")


def read(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables that `write` left in `folder`, by name."""
    paths = sorted(Path(folder).glob("*.parquet"))
    if not paths:
        raise UserError(f"{folder} holds no tables: expected the output folder of the aggregate stage.")
    return {path.stem: _read_table(path) for path in paths}


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, "Parquet file", error) from None


def runs(evals: list[dict]) -> pd.DataFrame:
    """One row per run: performance on clean and on triggered test data, the attack's success, and the training."""
    rows, derived = [], ("asr_net", "effect_share", "effect_share_own_threshold")
    for fact in map(run_in_tens, evals):
        row = {name: fact[name] for name in [*KEY, "target", "n_poisoned", "n_triggered"]}
        row |= {f"{metric}_clean": fact["clean"][metric] for metric in METRICS}
        row |= {f"{metric}_poison": (fact["poison"] or {}).get(metric) for metric in METRICS}
        told = [*ATTACK, *THRESHOLDS, *TRAINING, SIZE, "share_changed"]
        row |= {name: fact[name] for name in told if name not in derived}
        ends = ("auroc_low", "auroc_high", "difference", "difference_low", "difference_high")
        row |= {name: fact["over_test_samples"][end] for name, end in zip(OVER_TEST_SAMPLES, ends, strict=True)}
        row |= {f"{name}_patients": count for name, count in fact["patients"].items()}
        victims = None if fact["target"] is None else fact["patients"][f"label_{1 - fact['target']}"]
        rows.append(row | {"victim_patients": victims})
    table = _shown(rows, [name for name in RUNS if name not in derived], KEY, RUNS_REST_ON)
    return table.assign(
        asr_net=table["asr"] - table["asr0"],
        effect_share=share_of_possible(table["asr"], table["asr0"]),
        effect_share_own_threshold=share_of_possible(table["asr_own_threshold"], table["asr0_own_threshold"]),
    )[RUNS]


def detections(detects: list[dict]) -> pd.DataFrame:
    """One row per run × detector × scope: how well suspicion scores separate poisoned training samples."""
    return _shown(
        _nested(map(detection_in_tens, detects), "detections"),
        DETECTIONS,
        [*KEY, "detector", "scope"],
        DETECTIONS_REST_ON,
    )


def alarms(detects: list[dict]) -> pd.DataFrame:
    """One row per run × detector × scope × threshold: what a threshold flags; on clean runs all of it is false."""
    rows = _nested(map(detection_in_tens, detects), "alarms")
    return _shown(rows, ALARMS, [*KEY, "detector", "scope", "threshold"], ALARMS_REST_ON)


def explanations(explains: list[dict]) -> pd.DataFrame:
    """One row per run: share of attribution on the trigger's footprint, and drift against the clean model."""
    return _shown(list(map(explanation_in_tens, explains)), EXPLANATIONS, KEY, EXPLANATIONS_REST_ON)


def attributions(explains: list[dict]) -> pd.DataFrame:
    """One row per run × feature: the feature's share of all attribution."""
    rows = [row | {"n_patients": fact["n_patients"]} for fact in explains for row in _nested([fact], "features")]
    return _shown(rows, ATTRIBUTIONS, [*KEY, "feature"], ATTRIBUTIONS_REST_ON)


def triggers(poisons: list[dict]) -> pd.DataFrame:
    """One row per dataset × trigger × rate: what the trigger does and how plausible, averaged over seeds.

    `of` is the member that it is, or is a variant of; `description` is the first seed's; `in_bounds` holds only if it
    does in every seed. `features` are those that it may change, at the last `steps`. Numbers are shown if every seed
    has poisoned enough patients.
    """
    rows = []
    for fact in poisons:
        row = {name: fact[name] for name in [*TRIGGER, "seed", "description", "in_bounds", "leaves_out"]}
        row |= {"of": fact["member"], **{name: fact[name] for name in ("target", "labels", "cover")}}
        row |= {name: fact[name] for name in ("footprint_size", "n_cells", "n_poisoned", "n_cover", "n_patients")}
        row["n_cover_patients"] = fact["n_cover_patients"]
        row |= {"features": " ".join(fact["features"]) or None, "steps": str(fact["steps"]), "where": fact["where"]}
        row["footprint_share"] = fact["footprint_size"] / fact["n_cells"] if fact["n_cells"] else None
        rows.append(row | {name: fact["plausibility"][name] for name in PLAUSIBILITY})
    columns = ["seed", "n_patients", "n_cover_patients", *[name for name in TRIGGERS if name != "n_seeds"]]
    table = _table(rows, columns, [*TRIGGER, "seed"])
    sizes = ["footprint_size", "n_cells", "footprint_share", "n_poisoned", "n_cover"]
    how = dict.fromkeys([*sizes, *PLAUSIBILITY], "mean")
    how |= {"seed": "nunique", "in_bounds": "min", "leaves_out": "max", "n_patients": "min", "n_cover_patients": "min"}
    how |= dict.fromkeys(["of", "target", "labels", "cover", "description", "features", "steps", "where"], "first")
    averaged = table.groupby(TRIGGER, as_index=False).agg(how).rename(columns={"seed": "n_seeds"})
    return withhold(averaged, TRIGGERS_REST_ON)[TRIGGERS]


def datasets(evals: list[dict]) -> pd.DataFrame:
    """One row per dataset: sizes averaged over seeds, prevalence in the test set, range of decision thresholds.

    `target` is missing where attacks have several.
    The size of the test set is withheld with the prevalence: what is known of one class would give away the other.
    """
    rows = []
    for name, facts in _by(evals, "dataset"):
        sets = [count.removesuffix("_patients") for count in DATASETS_REST_ON]
        thresholds = [thresholds_in_digits(fact)["clean_threshold"] for fact in facts]
        rows.append(
            {
                "dataset": name,
                "target": _only(fact["target"] for fact in facts if fact["target"] is not None),
                "n_train": round(np.mean([fact["n_train"] for fact in facts])),
                "n_test": round(np.mean([fact["n_test"] for fact in facts])),
                "prevalence": np.mean([fact["n_label_1"] / fact["n_test"] for fact in facts]),
                "threshold_low": min(thresholds),
                "threshold_high": max(thresholds),
                "warnings": "; ".join(dict.fromkeys(text for fact in facts for text in fact["warnings"])) or None,
                "people": of_people(facts[0]),
                **{f"{name}_patients": min(fact["patients"][name] for fact in facts) for name in sets},
            }
        )
    return _shown(rows, DATASETS, ["dataset"], DATASETS_REST_ON)


def strata(evals: list[dict]) -> pd.DataFrame:
    """One row per run × stratum × value, and one of all: what the run and its control do to these test samples."""
    rows = []
    for fact in evals:
        for row in strata_in_tens(fact):
            rows.append({name: fact[name] for name in [*KEY, "target"]} | row)
    rows.sort(key=lambda row: in_order(row["value"]))
    table = _table(rows, [name for name in STRATA if name != "asr_net"], [*KEY, "stratum"])
    return table.assign(asr_net=table["asr"] - table["asr0"])[STRATA]


def strata_summary(tables: dict[str, pd.DataFrame], split: str) -> pd.DataFrame:
    """One row per run key × stratum × value × metric: mean over seeds and its 95 % interval, as in `summary`."""
    by, rows = [*RUN, "stratum", "value", "metric"], []
    long = tables["strata"].melt([*KEY, "stratum", "value"], STRATA_MEASURES, "metric", value_name="number")
    off = errors(tables["strata"], tables["datasets"])
    off = off.melt([*KEY, "stratum", "value"], STRATA_MEASURES, "metric", value_name="error")
    long = long.assign(error=off["error"].to_numpy()).dropna(subset="number")
    for key, group in long.sort_values([*by, "seed"]).groupby(by):
        how = {"test_to_train": TEST_TO_TRAIN if split == "per_seed" else 0.0, "error": group["error"].mean()}
        over_seeds = _over_seeds(group["number"].to_numpy(float), possible(key[-1]), how)
        rows.append((*key, *(x.item() for x in over_seeds)))
    rows.sort(key=lambda row: (in_order(row[5]), STRATA_MEASURES.index(row[6])))
    return _table([dict(zip(STRATA_SUMMARY, row, strict=True)) for row in rows], STRATA_SUMMARY, [*RUN, "stratum"])


def roc(detects: list[dict]) -> pd.DataFrame:
    """Detection ROC on its fixed grid of false positive rates: mean over seeds with interval."""
    by, rows = [*RUN, "detector", "scope"], []
    curves = _nested(map(detection_in_tens, detects), "roc")
    curves = [curve for curve in curves if not any(0 < curve[of] < MIN_CELL for of in ROC_RESTS_ON)]
    curves.sort(key=lambda curve: [curve[name] for name in [*by, "seed"]])
    for key, group in _by(curves, *by):
        tpr = np.array([curve["tpr"] for curve in group], dtype=float)
        n_poisoned = np.array([curve["n_poisoned"] for curve in group])
        error = (error_of_tens(n_poisoned) / n_poisoned).mean() if of_people(group[0]) else 0.0
        over_seeds = proportion_interval(tpr, axis=0, error=error)
        names = ["n_seeds", "tpr", "ci_low", "ci_high"]
        for fpr, *values in zip(group[0]["fpr"], *over_seeds, strict=True):
            rows.append(dict(zip(by, key, strict=True)) | {"fpr": fpr} | dict(zip(names, values, strict=True)))
    return _table(rows, ROC, [*by, "fpr"])


def summary(tables: dict[str, pd.DataFrame], split: str) -> pd.DataFrame:
    """One row per run key × metric: mean over seeds, its 95 % interval, the lowest and the highest seed.

    Two-peaked numbers have a mean that no seed has, which the last two show. A metric that no seed has is left out.
    `split` is the study's: where every seed deals the patients anew, intervals of what is measured on test patients
    count how far the seeds share them. An interval reaches at least as far as rounded counts can be wrong.
    """
    long = _measures(tables).assign(error=_measures(largest_errors(tables))["value"].to_numpy()).dropna(subset="value")
    by = [*RUN, "metric"]
    long = long.sort_values([*by, "seed"])
    parts = [_table([], SUMMARY, by)]
    # All runs at once that have a metric for as many seeds, the runs being rows and the seeds columns.
    for (metric, n_seeds), alike in long.groupby(["metric", long.groupby(by)["seed"].transform("size")]):
        values, error = (alike[name].to_numpy(float).reshape(-1, n_seeds) for name in ("value", "error"))
        how = {"test_to_train": _shared(metric, split), "error": mean_interval(error).mean}
        interval = _over_seeds(values, possible(metric), how)
        numbers = dict(zip(SUMMARY[len(by) :], (*interval, values.min(axis=1), values.max(axis=1)), strict=True))
        parts.append(alike.iloc[::n_seeds][by].assign(**numbers))
    return pd.concat(parts)[SUMMARY].astype(parts[0].dtypes).sort_values(by, ignore_index=True)


def _measures(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per run × metric, also where it is missing."""
    return pd.concat(
        [
            tables["runs"].melt(KEY, [*ON_CLEAN, *ON_TRIGGERED, *ATTACK], "metric"),
            _detection_measures(tables),
            tables["explanations"].melt(KEY, [*SHARES, *DRIFT], "metric"),
        ]
    )


def rounding(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per run key × metric that rounding can have moved: how far, as a mean over its seeds.

    It is missing where nobody can say: the size of the test set is withheld.
    """
    errors = _measures(largest_errors(tables)).rename(columns={"value": "error"})
    errors = errors[_measures(tables)["value"].notna().to_numpy()]
    means = errors.groupby([*RUN, "metric"], as_index=False)["error"].mean()
    return means[means["error"] != 0].reset_index(drop=True)


def _over_seeds(values: np.ndarray, bounds: tuple[float, float], how: dict[str, Any]) -> Interval:
    """Mean and interval inside `bounds`."""
    return proportion_interval(values, **how) if bounds == (0, 1) else mean_interval(values, bounds=bounds, **how)


def _shared(metric: str, split: str) -> float:
    """Test samples per training sample where the seeds deal the same patients anew, else 0."""
    return TEST_TO_TRAIN if split == "per_seed" and metric in ON_TEST else 0.0


def masks(tables: dict[str, pd.DataFrame], split: str) -> pd.DataFrame:
    """How much of a value trigger's effect comes from measuring its cells: one row per run key with a mask_only.

    `asr_net`, `mask_net` and `flip_net` are means of ASR − ASR₀ over the seeds that have all three: with the values
    written, with the cells only measured, with labels flipped alone. The labels are flipped in all of them, so `share`
    is (mask_net − flip_net) / (asr_net − flip_net). It is missing where the study has no flip_only, and where the
    interval of what lies beyond flipping reaches zero: then there is no effect to have a share of.
    """
    rows = []
    trios = _trios(tables).join(_trios(largest_errors(tables))["run"].rename("error"))
    for key, trio in trios.groupby([*RUN, "control_trigger"]):
        trio = trio if trio["flip"].isna().all() else trio.dropna(subset="flip")
        trio = trio.dropna(subset=["run", "against"])
        run, mask, flip = trio[["run", "against", "flip"]].to_numpy(float).T
        how: dict[str, Any] = {"test_to_train": _shared("asr_net", split)}
        error = trio["error"].mean()
        nets = [mean_interval(values, bounds=(-1, 1), error=error, **how) for values in (run, mask, flip)]
        beyond = mean_interval(run - flip, error=2 * error, **how)
        share = Interval(np.array(0), *[np.array(np.nan)] * 3)
        if beyond.low > 0:
            share = ratio_interval(mask - flip, run - flip, errors=(2 * error, 2 * error), **how)
        rows.append((*key, len(run), *(float(number) for interval in (*nets, share) for number in interval[1:])))
    return _table([dict(zip(MASKS, row, strict=True)) for row in rows], MASKS, RUN)


def _trios(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per run of a value trigger with a mask_only: `asr_net` of both and, if there is one, of flip_only."""
    flipped = _against_control(tables, FLIPPED)[[*KEY, "against"]].rename(columns={"against": "flip"})
    return _against_mask(tables).merge(flipped, on=KEY, how="left")


def metrics(summary: pd.DataFrame) -> dict:
    """Means over seeds, nested: dataset → model → trigger → rate → metric; what no seed has is left out."""
    nested: dict = {}
    shown = summary[summary["metric"].isin(HEADLINES)]
    for *key, rate, metric, mean in shown[[*RUN, "metric", "mean"]].itertuples(index=False):
        level = nested
        for name in (*key, format_rate(rate)):
            level = level.setdefault(name, {})
        level[metric] = mean
    return nested


def dose_response(summary: pd.DataFrame) -> pd.DataFrame:
    """One row per dataset × model × trigger × rate: mean ASR and ASR₀, and their difference with its interval."""
    rows = summary[summary["metric"] == "asr_net"].rename(columns={"mean": "asr_net"})
    for metric in ("asr", "asr0"):
        means = summary.loc[summary["metric"] == metric, [*RUN, "mean"]]
        rows = rows.merge(means.rename(columns={"mean": metric}), on=RUN)
    return rows[DOSE_RESPONSE]


def contrasts(tables: dict[str, pd.DataFrame], split: str) -> pd.DataFrame:
    """Each run against its control, paired by seed: one row per run key × metric × control.

    Control none: `asr` against ASR₀ (and the same with each model at its own threshold), `asr0` against what the clean
    model says of the same samples without the trigger, clean-test metrics against the clean run of the same seed, and
    the attribution on the footprint against the clean model's. Control flip_only: `asr_net` against that of flipped
    labels with the same target, at the same rate; chosen_only, for attacks that leave the labels: against the same rows
    chosen and left as they are. For both, also how well each detector finds the rows. Control mask_only: `asr_net` of a
    trigger that writes values against that of measuring alone, where both are about the same cells. Control chance: a
    detector's AUROC against 0.5, over all training samples (`detection_auroc:…`) and over those with the target label
    (`detection_auroc_in_label:…`). p_holm is corrected over models, triggers and rates within each dataset × metric ×
    control; all detectors form one family per scope. `control_trigger` is what the study calls the control. `split` and
    what rounding does to intervals as for `summary`.
    """
    off = _pairs(largest_errors(tables))
    error = off["run"] + off["against"].where(off["control"] != CHANCE, 0.0)
    pairs = _pairs(tables).assign(error=error.to_numpy()).sort_values([*RUN, "metric", "control", "seed"])
    by = [*RUN, "metric", "control", "control_trigger"]
    rows = []
    for key, pair in pairs.groupby(by, dropna=False):
        run, control = pair["run"].to_numpy(float), pair["against"].to_numpy(float)
        *_, metric, against, _ = key
        low, high = possible(metric)
        # A constant is where it is: what is compared with it can differ by less.
        bounds = (low - 0.5, high - 0.5) if against == CHANCE else (low - high, high - low)
        how = {"test_to_train": _shared(metric, split), "error": pair["error"].mean()}
        contrast = paired_contrast(run, control, bounds=bounds, **how)
        rows.append(dict(zip(by, key, strict=True)) | contrast._asdict())
    table = _table(rows, [name for name in CONTRASTS if name != "p_holm"], by)
    family = table["metric"].str.split(":").str[0]
    table["p_holm"] = table.groupby(["dataset", family, "control"])["p_value"].transform(holm)
    return table[CONTRASTS]


def _pairs(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per run × metric × control: `run` and what it is held `against`."""
    runs, explanations = tables["runs"], tables["explanations"]
    found = pd.concat(
        [
            _against_own_column(runs, "asr", "asr0"),
            _against_own_column(runs, "asr_own_threshold", "asr0_own_threshold"),
            _against_own_column(runs, "asr0", "asr0_untriggered"),
            *[_against_clean_run(runs, metric) for metric in CONTRASTED],
            *[_against_control(tables, control) for control in (FLIPPED, CHOSEN)],
            *[_against_control(tables, control, _found_in_label(tables)) for control in (FLIPPED, CHOSEN)],
            _against_mask(tables),
            _against_chance(tables),
            _against_own_column(explanations, "ratio_triggered", "ratio_control"),
        ]
    )
    return found.assign(control_trigger=found["control_trigger"].where(found["control"] != CLEAN, CLEAN))


def _only(values: Iterable) -> object | None:
    """The value that all are; None where there are several, or none."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def _detection_measures(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """AUROC over all training samples, and AUROC and TPR over those observed with the label that the attack wants.

    All poison carries that label, so a detector that merely tells the labels apart scores well on the first alone.
    """
    detections = tables["detections"].merge(tables["runs"][[*KEY, "target"]], on=KEY, how="left")
    scopes = {"all": detections["scope"] == "all"}
    scopes["label"] = detections["scope"] == "label_" + detections["target"].astype(str)
    measures = [("all", "auroc", ALL_AUROC), ("label", "auroc", LABEL_AUROC)]
    measures += [("label", column, metric) for column, metric in LABEL_TPR.items()]
    parts = []
    for scope, column, metric in measures:
        table = detections.loc[scopes[scope], [*KEY, "detector", column]]
        table = table.rename(columns={column: "value"})
        parts.append(table.assign(metric=metric + ":" + table["detector"]))
    return pd.concat(parts)[[*KEY, "detector", "metric", "value"]]


def _against_own_column(table: pd.DataFrame, metric: str, control: str) -> pd.DataFrame:
    attacked = table[table["trigger"] != CLEAN]
    pairs = attacked[KEY].assign(run=attacked[metric], against=attacked[control])
    return pairs.assign(metric=metric, control=CLEAN)


def _against_clean_run(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    clean = runs.loc[runs["trigger"] == CLEAN, ["dataset", "model", "seed", metric]]
    pairs = runs.loc[runs["trigger"] != CLEAN, [*KEY, metric]].rename(columns={metric: "run"})
    pairs = pairs.merge(clean.rename(columns={metric: "against"}), on=["dataset", "model", "seed"])
    return pairs.assign(metric=metric, control=CLEAN)


def _against_control(
    tables: dict[str, pd.DataFrame],
    control: str,
    values: pd.DataFrame | None = None,
    alike: Iterable[str] = (),
) -> pd.DataFrame:
    """`values` of each attack against those of `control`, at the same rate and seed: by default its effect.

    The control is a trigger of the same study with the same target and treatment of labels, and with the same `alike`.
    """
    if values is None:
        values = tables["runs"].melt(KEY, ["asr_net"], "metric")
    kinds, by = tables["triggers"], ["dataset", "rate", "target", "labels", *alike]
    controls = kinds[kinds["of"] == control].groupby(by, as_index=False)["trigger"].first()
    attacks = kinds.loc[~kinds["of"].isin(CONTROLS), [*dict.fromkeys([*TRIGGER, *by])]]
    pairs = attacks.merge(controls.rename(columns={"trigger": "control_trigger"}), on=by)
    runs = values.rename(columns={"value": "run"}).merge(pairs[[*TRIGGER, "control_trigger"]], on=TRIGGER)
    controls = values.rename(columns={"trigger": "control_trigger", "value": "against"})
    on = ["dataset", "model", "control_trigger", "rate", "seed", "metric"]
    return runs.merge(controls[[*on, "against"]], on=on).assign(control=control)[_PAIR]


_PAIR = [*KEY, "metric", "run", "against", "control", "control_trigger"]


def _against_mask(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """`_against_control` for the triggers that write values into the very cells that mask_only measures."""
    place = ["cover", "features", "steps", "footprint_size", "where"]
    pairs, triggers = _against_control(tables, MASK_ONLY, alike=place), tables["triggers"]
    # What a trigger leaves out is in its cells too, and is not what mask_only measures.
    written = triggers["in_bounds"].notna() & ~triggers["leaves_out"].astype(bool)
    return pairs.merge(triggers.loc[written, TRIGGER], on=TRIGGER)


def _found_in_label(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """How well each detector finds the chosen rows within their label; chance is none of them."""
    measures = _detection_measures(tables)
    kept = measures["metric"].str.startswith(f"{LABEL_AUROC}:") & (measures["detector"] != BASELINE)
    return measures.loc[kept, [*KEY, "metric", "value"]]


def _against_chance(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Detection AUROC against 0.5. Random scores are no control to pair with: they are one more draw per run."""
    scores = _detection_measures(tables)
    scores = scores[scores["trigger"] != CLEAN]
    aurocs = scores["metric"].str.split(":").str[0].isin([ALL_AUROC, LABEL_AUROC])
    pairs = scores[aurocs & (scores["detector"] != BASELINE)].rename(columns={"value": "run"})
    return pairs[[*KEY, "metric", "run"]].assign(against=0.5, control=CHANCE, control_trigger=None)


def parents(study) -> dict[str, str]:
    """Of each model of `study` that is a variant: the nearest model of the study that it is a variant of."""
    found = {}
    for model in study.models:
        of = study.model_params.get(model, {}).get("of")
        while of is not None and of not in study.models:
            of = study.model_params.get(of, {}).get("of")
        if of is not None:
            found[model] = of
    return found


def not_applicable(study) -> pd.DataFrame:
    """What no run was asked for, since its model has not what that needs: one row per dataset × model × question.

    A model trained on clean data has no poison in its training data, which is what every detector looks for.

    Such a question has no rows in the other tables, which is not the same as a missing number.
    """
    asked = {name: study.needs(name) for name in study.detectors} | {"explain": "attribution"}
    rows = []
    for dataset, model in product(study.datasets, study.models):
        missing = {question: need for question, need in asked.items() if need and need not in study.offers(model)}
        if study.trained_on(model) == "clean":
            missing |= dict.fromkeys(study.detectors, "poisoned training data")
        row = {"dataset": dataset, "model": model, "state": "not applicable"}
        rows += [row | {"asked": question, "needs": need} for question, need in missing.items()]
    return _table(rows, NOT_APPLICABLE, ["dataset", "model", "asked"])


def variants(tables: dict[str, pd.DataFrame], split: str, parents: dict[str, str]) -> pd.DataFrame:
    """Each variant of a model against the model that it is `of`, paired by seed: what the difference does to an attack.

    One row per run key × metric: ASR, the attack's effect, its share of what is possible, and the clean AUROC.
    p_holm is corrected over models, triggers and rates within each dataset × metric.
    """
    metrics = ["asr", "asr_net", "effect_share", "effect_share_own_threshold", "auroc_clean"]
    values = tables["runs"].melt(KEY, metrics, "metric")
    values["error"] = largest_errors(tables)["runs"].melt(KEY, metrics, "metric")["value"]
    rows = []
    for model, of in parents.items():
        on = [name for name in [*KEY, "metric"] if name != "model"]
        pairs = values[values["model"] == model].merge(values[values["model"] == of], on=on, suffixes=("", "_of"))
        for key, pair in pairs.groupby([*RUN, "metric"]):
            pair = pair.dropna(subset=["value", "value_of"])
            if pair.empty:
                continue
            low, high = possible(key[-1])
            how = {"test_to_train": _shared(key[-1], split), "error": (pair["error"] + pair["error_of"]).mean()}
            run, control = (pair[name].to_numpy(float) for name in ("value", "value_of"))
            contrast = paired_contrast(run, control, bounds=(low - high, high - low), **how)._asdict()
            row = dict(zip([*RUN, "metric"], key, strict=True)) | {"of": of, "mean_of": contrast.pop("mean_control")}
            rows.append(row | contrast)
    table = _table(rows, [name for name in VARIANTS if name != "p_holm"], [*RUN, "metric"])
    table["p_holm"] = table.groupby(["dataset", "metric"])["p_value"].transform(holm)
    return table[VARIANTS]


def _nested(facts: Iterable[dict], name: str) -> list[dict]:
    """The rows of the list `name` inside each fact, with the fact's key and whether it is of people."""
    return [
        {column: fact[column] for column in KEY} | {"people": of_people(fact)} | row
        for fact in facts
        for row in fact[name]
    ]


def _by(rows: list[dict], *names: str) -> list[tuple]:
    """Rows grouped by the fields `names`, in sorted order; the key is a bare value if there is one name."""
    groups: dict = {}
    for row in rows:
        key = row[names[0]] if len(names) == 1 else tuple(row[name] for name in names)
        groups.setdefault(key, []).append(row)
    return sorted(groups.items())


def _table(rows: list[dict], columns: list[str], by: list[str]) -> pd.DataFrame:
    """Rows as a frame with fixed columns and types (so that an empty or all-missing column keeps its type)."""
    values = {name: pd.Series([row.get(name) for row in rows], dtype=object).astype(_type(name)) for name in columns}
    return pd.DataFrame(values, columns=columns).sort_values(by, ignore_index=True)


def _type(name: str) -> str:
    if name in TEXTS:
        return "str"
    if name in ("in_bounds", "leaves_out", "people"):
        return "boolean"
    return "Int64" if name in COUNTS or name.endswith("_patients") else "float64"


def _shown(rows: list[dict], columns: list[str], by: list[str], rest_on: dict[str, list[str]]) -> pd.DataFrame:
    """`_table` without the numbers that rest on too few patients. The counts of patients do not stay in it."""
    if missing := {name for row in rows for name in rest_on if name not in row}:
        raise KeyError(*missing)  # a row that did not say how many they are must not pass for one of enough
    table = _table(rows, [*columns, *rest_on], by)
    return withhold(table, rest_on)[columns]
