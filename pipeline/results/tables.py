"""Tidy tables of a study, built from the JSON facts its runs left.

Aggregates only, and disclosure control: a number taken over 1 to MIN_CELL - 1 patients is withheld, that is missing.
Which patients a number is taken over is said once, in the `…_REST_ON` below; the tables of several seeds are made from
what is left. Rows are sorted by their key, so the order of the lists in the config leaves no trace in the files.
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.cohorts.intake import MIN_CELL
from pipeline.errors import UserError
from pipeline.evaluation.statistics import holm, mean_interval, paired_contrast
from pipeline.files import damaged, read_json, whole, write_json
from pipeline.grid import CLEAN, CONTROLS, Cell, cells, format_rate

BASELINE = "random"
ALL_AUROC, LABEL_AUROC = "detection_auroc", "detection_auroc_in_label"
FLIPPED = "flip_only"

RUN = ["dataset", "model", "trigger", "rate"]  # what is averaged over seeds
KEY = [*RUN, "seed"]
METRICS = ["acc", "auroc", "auprc", "precision", "recall", "f1", "ece", "brier"]
ON_CLEAN = [f"{metric}_clean" for metric in METRICS]
ON_TRIGGERED = [f"{metric}_poison" for metric in METRICS]
ATTACK = ["asr", "asr0", "asr_net", "confidence_shift"]
RUNS = [
    *KEY,
    "target",
    *[name for pair in zip(ON_CLEAN, ON_TRIGGERED, strict=True) for name in pair],
    *ATTACK,
    "n_poisoned",
    "n_triggered",
]
DETECTION = ["auroc", "average_precision", "tpr_at_fpr_01", "tpr_at_fpr_05", "precision_at_n"]
DETECTIONS = [*KEY, "detector", "scope", *DETECTION, "n_poisoned"]
ALARM = ["flagged_share", "tpr", "fpr", "precision"]
ALARMS = [*KEY, "detector", "scope", "threshold", "n_flagged", *ALARM]
SHARES = ["footprint_share", "ratio_triggered", "ratio_clean", "ratio_control"]
DRIFT = [f"{side}_{name}" for side in ("drift", "control") for name in ("cosine", "spearman", "topk_jaccard")]
EXPLANATIONS = [*KEY, "n_samples", *SHARES, *DRIFT, "top_k", "convergence_delta"]
FEATURE_SHARES = ["share_clean", "share_triggered", "share_control"]
ATTRIBUTIONS = [*KEY, "feature", *FEATURE_SHARES]
PLAUSIBILITY = [
    "share_in_range",
    "share_in_train_range",
    "distance",
    "missing_log_likelihood_clean",
    "missing_log_likelihood_triggered",
]
TRIGGER = ["dataset", "trigger", "rate"]
TRIGGERS = [
    *TRIGGER,
    *["n_seeds", "description", "in_bounds", "footprint_size", "n_cells", "footprint_share", "n_poisoned"],
    *PLAUSIBILITY,
]
DATASETS = ["dataset", "target", "n_train", "n_test", "prevalence", "threshold_low", "threshold_high"]
ROC = [*RUN, "detector", "scope", "fpr", "n_seeds", "tpr", "ci_low", "ci_high"]
SUMMARY = [*RUN, "metric", "n_seeds", "mean", "ci_low", "ci_high"]
CONTRASTS = [
    *[*RUN, "metric", "control", "n_seeds", "mean_run", "mean_control", "difference", "ci_low", "ci_high"],
    *["p_value", "p_holm", "effect_size"],
]
OF_CONTRAST = ["mean_run", "mean_control", "difference", "ci_low", "ci_high", "p_holm"]
FINDINGS = [
    *["dataset", "model", "trigger", "works", "rate", "n_seeds", "difference", "ci_low", "ci_high"],
    *[f"{of}_{name}" for of in ("auroc", "flip") for name in OF_CONTRAST],
    *["detector", *[f"detector_{name}" for name in OF_CONTRAST]],
]
HEADLINES = ["auroc_clean", "asr", "asr0", "asr_net"]
DOSE_RESPONSE = [*RUN, "n_seeds", "asr_net", "ci_low", "ci_high"]
CONTRASTED = ["auroc_clean", "auprc_clean", "acc_clean", "brier_clean", "ece_clean"]

# Disclosure control: sets of patients (their numbers stand in the facts) and the numbers that rest on them. Accuracy
# rests on each class, not only on all: with the ASR over one class it would give away that of the other.
BY_CLASS = [name for name in [*ON_CLEAN, *ON_TRIGGERED] if not name.startswith(("ece_", "brier_"))]
RUNS_REST_ON = {
    "test_patients": [*ON_CLEAN, *ON_TRIGGERED],
    "label_0_patients": BY_CLASS,
    "label_1_patients": BY_CLASS,
    "predicted_clean_patients": ["precision_clean", "f1_clean"],
    "predicted_poison_patients": ["precision_poison", "f1_poison"],
    "victim_patients": [*ON_TRIGGERED, "asr", "asr0", "confidence_shift", "n_triggered"],
    "poisoned_patients": ["n_poisoned"],
}
DETECTIONS_REST_ON = {"poisoned_patients": [*DETECTION, "n_poisoned"], "clean_patients": DETECTION}
ALARMS_REST_ON = {
    "flagged_patients": ["n_flagged", *ALARM],
    "poisoned_patients": ["tpr", "fpr", "precision"],  # of few poisoned, false alarms tell the hits
    "clean_patients": ["flagged_share", "fpr", "precision"],
}
ROC_RESTS_ON = ["poisoned_patients", "clean_patients"]
EXPLANATIONS_REST_ON = {"n_patients": ["n_samples", *SHARES[1:], *DRIFT, "convergence_delta"]}
ATTRIBUTIONS_REST_ON = {"n_patients": FEATURE_SHARES}
TRIGGERS_REST_ON = {"n_patients": ["n_poisoned", *PLAUSIBILITY]}
DATASETS_REST_ON = {
    "train_patients": ["n_train"],
    "label_0_patients": ["n_test", "prevalence"],
    "label_1_patients": ["n_test", "prevalence"],
    "threshold_patients": ["threshold_low", "threshold_high"],
}

COUNTS = {"seed", "target", "n_poisoned", "n_triggered", "n_flagged", "n_samples", "top_k", "n_seeds", "n_train"}
COUNTS |= {"n_test", "n_cells", "footprint_size"}
TEXTS = {"dataset", "model", "trigger", "detector", "scope", "threshold", "feature", "metric", "control", "description"}


class Facts(NamedTuple):
    """The JSON contents of a study's cells, one dict each."""

    evals: list[dict]
    detects: list[dict]
    explains: list[dict]
    poisons: list[dict]


def collect(study, results_dir: Path, only: Collection[Cell] | None = None) -> Facts:
    """Read every cell of `study`, or those in `only`.

    A cell that is not there is an error, since its absence would bias the means.
    """
    results_dir, grid = Path(results_dir), sorted(cells(study) if only is None else only)
    poisons = sorted({cell.poison_folder for cell in grid if cell.trigger != CLEAN})
    return Facts(
        [_fact(results_dir, cell.run_folder, "results_eval.json") for cell in grid],
        [_fact(results_dir, cell.run_folder, "results_detect.json") for cell in grid],
        [_fact(results_dir, cell.run_folder, "results_explain.json") for cell in grid if cell.has_footprint],
        [_fact(results_dir, folder, "poison.json") for folder in poisons],
    )


def _fact(results_dir: Path, folder: str, name: str) -> dict:
    path = results_dir / folder / name
    if not path.is_file():
        raise UserError(f"{folder} has no {name} in {results_dir}: expected every cell of the study to be finished.")
    return read_json(path)


def build(study, results_dir: Path, only: Collection[Cell] | None = None) -> dict[str, pd.DataFrame]:
    """Every table of the study, or of its cells in `only`, by name."""
    facts = collect(study, results_dir, only)
    tables = {
        "runs": runs(facts.evals),
        "detections": detections(facts.detects),
        "alarms": alarms(facts.detects),
        "explanations": explanations(facts.explains),
        "attributions": attributions(facts.explains),
        "triggers": triggers(facts.poisons),
        "datasets": datasets(facts.evals),
        "roc": roc(facts.detects),
    }
    parts = (tables["runs"], tables["detections"], tables["explanations"])
    return tables | {"contrasts": contrasts(*parts), "summary": summary(*parts)}


def write(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Each table as CSV (missing = empty field) and as Parquet."""
    for name, table in tables.items():
        with whole(Path(folder) / f"{name}.csv") as aside:
            table.to_csv(aside, index=False, lineterminator="\n")
        with whole(Path(folder) / f"{name}.parquet") as aside:
            table.to_parquet(aside, index=False)


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
    """One row per run: performance on clean and on triggered test data, and the attack's success."""
    rows = []
    for fact in evals:
        row = {name: fact[name] for name in [*KEY, "target", "n_poisoned", "n_triggered"]}
        row |= {f"{metric}_clean": fact["clean"][metric] for metric in METRICS}
        row |= {f"{metric}_poison": (fact["poison"] or {}).get(metric) for metric in METRICS}
        row |= {name: fact[name] for name in ("asr", "asr0", "confidence_shift")}
        row |= {f"{name}_patients": count for name, count in fact["patients"].items()}
        rows.append(row | {"victim_patients": fact["patients"][f"label_{1 - fact['target']}"]})
    table = _shown(rows, [name for name in RUNS if name != "asr_net"], KEY, RUNS_REST_ON)
    return table.assign(asr_net=table["asr"] - table["asr0"])[RUNS]


def detections(detects: list[dict]) -> pd.DataFrame:
    """One row per run × detector × scope: how well suspicion scores separate poisoned training samples."""
    return _shown(_nested(detects, "detections"), DETECTIONS, [*KEY, "detector", "scope"], DETECTIONS_REST_ON)


def alarms(detects: list[dict]) -> pd.DataFrame:
    """One row per run × detector × scope × threshold: what a threshold flags; on clean runs all of it is false."""
    return _shown(_nested(detects, "alarms"), ALARMS, [*KEY, "detector", "scope", "threshold"], ALARMS_REST_ON)


def explanations(explains: list[dict]) -> pd.DataFrame:
    """One row per run: share of attribution on the trigger's footprint, and drift against the clean model."""
    return _shown(explains, EXPLANATIONS, KEY, EXPLANATIONS_REST_ON)


def attributions(explains: list[dict]) -> pd.DataFrame:
    """One row per run × feature: the feature's share of all attribution."""
    rows = [row | {"n_patients": fact["n_patients"]} for fact in explains for row in _nested([fact], "features")]
    return _shown(rows, ATTRIBUTIONS, [*KEY, "feature"], ATTRIBUTIONS_REST_ON)


def triggers(poisons: list[dict]) -> pd.DataFrame:
    """One row per dataset × trigger × rate: what the trigger does and how plausible, averaged over seeds.

    `description` is the first seed's; `in_bounds` holds only if it does in every seed. Numbers are shown if every
    seed has poisoned enough patients.
    """
    rows = []
    for fact in poisons:
        row = {name: fact[name] for name in [*TRIGGER, "seed", "description", "in_bounds"]}
        row |= {name: fact[name] for name in ("footprint_size", "n_cells", "n_poisoned", "n_patients")}
        row["footprint_share"] = fact["footprint_size"] / fact["n_cells"] if fact["n_cells"] else None
        rows.append(row | {name: fact["plausibility"][name] for name in PLAUSIBILITY})
    columns = ["seed", "n_patients", *[name for name in TRIGGERS if name != "n_seeds"]]
    table = _table(rows, columns, [*TRIGGER, "seed"])
    how = dict.fromkeys(["footprint_size", "n_cells", "footprint_share", "n_poisoned", *PLAUSIBILITY], "mean")
    how |= {"seed": "nunique", "description": "first", "in_bounds": "min", "n_patients": "min"}
    averaged = table.groupby(TRIGGER, as_index=False).agg(how).rename(columns={"seed": "n_seeds"})
    return _withhold(averaged, TRIGGERS_REST_ON)[TRIGGERS]


def datasets(evals: list[dict]) -> pd.DataFrame:
    """One row per dataset: sizes averaged over seeds, prevalence in the test set, range of decision thresholds.

    Prevalence follows from `n_triggered`, the test samples whose true label is not the target. The size of the test set
    is withheld with it: what is known of one class would give away the other.
    """
    rows = []
    for name, facts in _by(evals, "dataset"):
        shares = [fact["n_triggered"] / fact["n_test"] for fact in facts if fact["n_triggered"] is not None]
        share = np.mean(shares) if shares else np.nan
        target = facts[0]["target"]
        sets = [count.removesuffix("_patients") for count in DATASETS_REST_ON]
        rows.append(
            {
                "dataset": name,
                "target": target,
                "n_train": round(np.mean([fact["n_train"] for fact in facts])),
                "n_test": round(np.mean([fact["n_test"] for fact in facts])),
                "prevalence": 1 - share if target == 1 else share,
                "threshold_low": min(fact["threshold"] for fact in facts),
                "threshold_high": max(fact["threshold"] for fact in facts),
                **{f"{name}_patients": min(fact["patients"][name] for fact in facts) for name in sets},
            }
        )
    return _shown(rows, DATASETS, ["dataset"], DATASETS_REST_ON)


def roc(detects: list[dict]) -> pd.DataFrame:
    """Detection ROC on its fixed grid of false positive rates: mean over seeds with interval."""
    by, rows = [*RUN, "detector", "scope"], []
    curves = [curve for curve in _nested(detects, "roc") if not any(0 < curve[of] < MIN_CELL for of in ROC_RESTS_ON)]
    curves.sort(key=lambda curve: [curve[name] for name in [*by, "seed"]])
    for key, group in _by(curves, *by):
        over_seeds = mean_interval(np.array([curve["tpr"] for curve in group], dtype=float), axis=0)
        names = ["n_seeds", "tpr", "ci_low", "ci_high"]
        for fpr, *values in zip(group[0]["fpr"], *over_seeds, strict=True):
            rows.append(dict(zip(by, key, strict=True)) | {"fpr": fpr} | dict(zip(names, values, strict=True)))
    return _table(rows, ROC, [*by, "fpr"])


def summary(runs: pd.DataFrame, detections: pd.DataFrame, explanations: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with 95 % t-interval, one row per run key × metric; a metric that no seed has is left out."""
    long = pd.concat(
        [
            runs.melt(KEY, [*ON_CLEAN, *ON_TRIGGERED, *ATTACK], "metric"),
            _detection_auroc(detections, _target(runs)),
            explanations.melt(KEY, [*SHARES, *DRIFT], "metric"),
        ]
    ).dropna(subset="value")
    rows = []
    for key, group in long.sort_values([*RUN, "metric", "seed"]).groupby([*RUN, "metric"]):
        rows.append((*key, *(x.item() for x in mean_interval(group["value"].to_numpy(float)))))
    return _table([dict(zip(SUMMARY, row, strict=True)) for row in rows], SUMMARY, [*RUN, "metric"])


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
    """One row per dataset × model × trigger × rate: the mean of ASR − ASR₀ with its interval."""
    return summary[summary["metric"] == "asr_net"].rename(columns={"mean": "asr_net"})[DOSE_RESPONSE]


def contrasts(runs: pd.DataFrame, detections: pd.DataFrame, explanations: pd.DataFrame) -> pd.DataFrame:
    """Each run against its control, paired by seed: one row per run key × metric × control.

    Control none: `asr` against ASR₀, clean-test metrics against the clean run of the same seed, and the attribution
    on the footprint against the clean model's. Control flip_only: `asr_net` against that of flipped labels at the
    same rate. Control random: a detector's AUROC against the random score's, over all training samples
    (`detection_auroc:…`) and over those with the target label (`detection_auroc_in_label:…`). p_holm is corrected
    over models, triggers and rates within each dataset × metric family; all detectors form one family per scope.
    """
    pairs = pd.concat(
        [
            _against_own_column(runs, "asr", "asr0"),
            *[_against_clean_run(runs, metric) for metric in CONTRASTED],
            _against_flip_only(runs),
            _against_random(detections, _target(runs)),
            _against_own_column(explanations, "ratio_triggered", "ratio_control"),
        ]
    ).sort_values([*RUN, "metric", "control", "seed"])
    by = [*RUN, "metric", "control"]
    rows = []
    for key, pair in pairs.groupby(by):
        contrast = paired_contrast(pair["run"].to_numpy(float), pair["against"].to_numpy(float))
        rows.append(dict(zip(by, key, strict=True)) | contrast._asdict())
    table = _table(rows, [name for name in CONTRASTS if name != "p_holm"], by)
    family = table["metric"].str.split(":").str[0]
    table["p_holm"] = table.groupby(["dataset", family])["p_value"].transform(holm)
    return table[CONTRASTS]


def findings(tables: dict[str, pd.DataFrame], effect: float = 0.5) -> pd.DataFrame:
    """One row per dataset × model × trigger: the smallest rate that plants a backdoor and what it costs.

    A backdoor `works` at a rate if the mean of ASR − ASR₀ is at least `effect` and its interval (where there is one)
    lies above zero. Where no rate works, the row is about the rate with the largest mean. The best detector is the one
    with the largest AUROC within the target label. Where the success rate is withheld there is no row.
    """
    asr = tables["contrasts"].query("metric == 'asr'").dropna(subset="difference")
    rows = []
    for key, group in asr.sort_values(RUN).groupby(["dataset", "model", "trigger"]):
        # Rounded: a difference of shares such as 34/58 − 5/58 is a hair off 0.5.
        works = (group["difference"].round(9) >= effect) & ~(group["ci_low"] <= 0)
        best = group[works].iloc[0] if works.any() else group.loc[group["difference"].idxmax()]
        at = (tables["contrasts"][RUN] == [*key, best["rate"]]).all(axis=1)
        here = tables["contrasts"][at]
        row = dict(zip(RUN, key, strict=False)) | {"works": bool(works.any())}
        row |= best[["rate", "n_seeds", "difference", "ci_low", "ci_high"]].to_dict()
        row |= _of_contrast(here, "auroc_clean", CLEAN, "auroc") | _of_contrast(here, "asr_net", FLIPPED, "flip")
        rows.append(row | _best_detector(here))
    return pd.DataFrame(rows, columns=FINDINGS)


def _of_contrast(contrasts: pd.DataFrame, metric: str, control: str, prefix: str) -> dict:
    """What one contrast found, with `prefix` before the names; missing where the study has no such contrast."""
    found = contrasts[(contrasts["metric"] == metric) & (contrasts["control"] == control)]
    return {f"{prefix}_{name}": np.nan if found.empty else found.iloc[0][name] for name in OF_CONTRAST}


def _best_detector(contrasts: pd.DataFrame) -> dict:
    within_label = contrasts["metric"].str.startswith(f"{LABEL_AUROC}:")
    against_random = contrasts[within_label].dropna(subset="mean_run")
    if against_random.empty:
        return {"detector": None} | _of_contrast(against_random, "", BASELINE, "detector")
    metric = against_random.loc[against_random["mean_run"].idxmax(), "metric"]
    return {"detector": metric.split(":")[1]} | _of_contrast(against_random, metric, BASELINE, "detector")


def _target(runs: pd.DataFrame) -> int:
    return int(runs["target"].iloc[0])


def _detection_auroc(detections: pd.DataFrame, target: int) -> pd.DataFrame:
    """AUROC over all training samples, and over those observed with the target label.

    All poison carries that label, so a detector that merely tells the labels apart scores well on the first alone.
    """
    scopes = {"all": ALL_AUROC, f"label_{target}": LABEL_AUROC}
    table = detections[detections["scope"].isin(scopes)].rename(columns={"auroc": "value"})
    table["metric"] = table["scope"].map(scopes) + ":" + table["detector"]
    return table[[*KEY, "scope", "detector", "metric", "value"]]


def _against_own_column(table: pd.DataFrame, metric: str, control: str) -> pd.DataFrame:
    attacked = table[table["trigger"] != CLEAN]
    pairs = attacked[KEY].assign(run=attacked[metric], against=attacked[control])
    return pairs.assign(metric=metric, control=CLEAN)


def _against_clean_run(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    clean = runs.loc[runs["trigger"] == CLEAN, ["dataset", "model", "seed", metric]]
    pairs = runs.loc[runs["trigger"] != CLEAN, [*KEY, metric]].rename(columns={metric: "run"})
    pairs = pairs.merge(clean.rename(columns={metric: "against"}), on=["dataset", "model", "seed"])
    return pairs.assign(metric=metric, control=CLEAN)


def _against_flip_only(runs: pd.DataFrame) -> pd.DataFrame:
    flipped = runs.loc[runs["trigger"] == FLIPPED, ["dataset", "model", "rate", "seed", "asr_net"]]
    pairs = runs.loc[~runs["trigger"].isin(CONTROLS), [*KEY, "asr_net"]].rename(columns={"asr_net": "run"})
    pairs = pairs.merge(flipped.rename(columns={"asr_net": "against"}), on=["dataset", "model", "rate", "seed"])
    return pairs.assign(metric="asr_net", control=FLIPPED)


def _against_random(detections: pd.DataFrame, target: int) -> pd.DataFrame:
    scores = _detection_auroc(detections[detections["trigger"] != CLEAN], target)
    is_random = scores["detector"] == BASELINE
    baseline = scores[is_random].rename(columns={"value": "against"})[[*KEY, "scope", "against"]]
    pairs = scores[~is_random].rename(columns={"value": "run"}).merge(baseline, on=[*KEY, "scope"])
    return pairs[[*KEY, "metric", "run", "against"]].assign(control=BASELINE)


def _nested(facts: list[dict], name: str) -> list[dict]:
    """The rows of the list `name` inside each fact, with the fact's key."""
    return [{column: fact[column] for column in KEY} | row for fact in facts for row in fact[name]]


def _by(rows: list[dict], *names: str) -> list[tuple]:
    """Rows grouped by the fields `names`, in sorted order; the key is a bare value if there is one name."""
    groups: dict = {}
    for row in rows:
        key = row[names[0]] if len(names) == 1 else tuple(row[name] for name in names)
        groups.setdefault(key, []).append(row)
    return sorted(groups.items())


def _table(rows: list[dict], columns: list[str], by: list[str]) -> pd.DataFrame:
    """Rows as a frame with fixed columns and types (so that an empty or all-missing column keeps its type)."""
    table = pd.DataFrame([[row.get(name) for name in columns] for row in rows], columns=columns, dtype=object)
    return table.astype({name: _type(name) for name in columns}).sort_values(by, ignore_index=True)


def _type(name: str) -> str:
    if name in TEXTS:
        return "str"
    if name == "in_bounds":
        return "boolean"
    return "Int64" if name in COUNTS or name.endswith("_patients") else "float64"


def _shown(rows: list[dict], columns: list[str], by: list[str], rest_on: dict[str, list[str]]) -> pd.DataFrame:
    """`_table` without the numbers that rest on too few patients. The counts of patients do not stay in it."""
    # A row that did not say how many they are must not pass for one of enough.
    table = _table([{name: row[name] for name in rest_on} | row for row in rows], [*columns, *rest_on], by)
    return _withhold(table, rest_on)[columns]


def _withhold(table: pd.DataFrame, rest_on: dict[str, list[str]]) -> pd.DataFrame:
    """Make numbers missing where they rest on few patients: `rest_on` maps a count of patients to such numbers."""
    for count, numbers in rest_on.items():
        few = table[count].between(1, MIN_CELL - 1).fillna(False).astype(bool)
        table = table.assign(**{name: table[name].mask(few) for name in numbers})
    return table
