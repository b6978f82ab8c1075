"""What somebody with a pocket calculator reads out of released tables: every count of 1 to 9 patients that they tell.

Knows the files of a results folder that leave it (tables/*.csv, metrics.json, dose_response.csv) and what README.md
says of them, and nothing of the rows behind: `python tests/reconstruct.py results` lists what it finds.
"""

import json
import sys
from collections import Counter
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

SMALLEST = 10
RUN = ["dataset", "model", "trigger", "rate"]


class Told(NamedTuple):
    """A count of a few patients (of samples, where a patient has several) and where it was read."""

    table: str
    what: str
    count: int
    of: str


def small(count: float) -> bool:
    """Whether it is a whole number of 1 to 9; what is a hair off was a fraction."""
    return bool(0.5 < count < SMALLEST - 0.5 and abs(count - round(count)) < 1e-6)


class Reader:
    def __init__(self, results: Path):
        self.results = results
        self.data = {path.stem: pd.read_csv(path) for path in (results / "tables").glob("*.csv")}
        self.found: list[Told] = []
        runs = self.data["runs"]
        self.target = int(runs["target"].dropna().iloc[0])
        self.datasets = self.data["datasets"].set_index("dataset")
        victims = runs.dropna(subset="n_triggered").groupby(["dataset", "seed"])["n_triggered"].first()
        self.victims = victims.to_dict()

    def read(self) -> list[Told]:
        for part in (
            *(self.sizes, self.runs, self.detections, self.alarms, self.roc, self.explanations, self.triggers),
            *(self.summary, self.contrasts, self.masks, self.findings, self.headlines, self.strata),
        ):
            part()
        return self.found

    def tell(self, table: str, what: str, count: float, row) -> None:
        if small(count):
            place = [getattr(row, name, None) for name in (*RUN, "seed", "detector", "scope", "threshold", "metric")]
            self.found.append(Told(table, what, round(count), "/".join(str(x) for x in place if x is not None)))

    def share(self, table: str, what: str, value: float, total: float, row) -> None:
        """A share of `total` is a count, and what is left is one."""
        self.tell(table, what, value * total, row)
        self.tell(table, f"{what} (not)", total - value * total, row)

    def labels(self, dataset: str, seed) -> tuple[float, float]:
        """Test samples of label 0 and 1, NaN where they cannot be known."""
        victims = self.victims.get((dataset, seed), np.nan)
        others = self.datasets.at[dataset, "n_test"] - victims
        return (victims, others) if self.target == 1 else (others, victims)

    def poisoned(self, row) -> int:
        """Nobody needs to tell how many are poisoned."""
        return round(row.rate * self.datasets.at[row.dataset, "n_train"])

    def sizes(self) -> None:
        for row in self.data["datasets"].itertuples():
            for name in ("n_train", "n_test"):
                self.tell("datasets", name, getattr(row, name), row)
            self.share("datasets", "prevalence", row.prevalence, row.n_test, row)

    def runs(self) -> None:
        for row in self.data["runs"].itertuples():
            n = self.labels(row.dataset, row.seed)
            victims = n[1 - self.target]
            self.tell("runs", "n_triggered", row.n_triggered, row)
            self.tell("runs", "n_poisoned", row.n_poisoned, row)
            for side in ("clean", "poison"):
                values = {
                    m: getattr(row, f"{m}_{side}")
                    for m in ("fpr", "recall", "acc", "precision", "f1", "auroc", "auprc")
                }
                self.predictions(side, values, n, row)
                self.share("runs", f"specificity_{side}", getattr(row, f"specificity_{side}"), n[0], row)
                for name in ("tpr_at_fpr_01", "recall"):
                    self.share("runs", f"{name}_{side}", getattr(row, f"{name}_{side}"), n[1], row)
                more = abs(getattr(row, f"tpr_at_fpr_01_{side}") - getattr(row, f"recall_{side}"))
                self.tell("runs", f"recall_{side} - tpr_at_fpr_01_{side}", more * n[1], row)
                # Half of what is not the false alarms' is the hits'.
                hits = 2 * getattr(row, f"balanced_acc_{side}") - 1 + getattr(row, f"fpr_{side}")
                self.share("runs", f"balanced_acc_{side}", hits, n[1], row)
            self.tell("runs", "auroc_difference (pairs)", abs(row.auroc_difference) * n[0] * n[1], row)
            on_victims = ("asr", "asr0", "asr0_untriggered", "asr_own_threshold", "asr0_own_threshold", "share_changed")
            for name in on_victims:
                self.share("runs", name, getattr(row, name), victims, row)
            self.tell("runs", "asr_net", abs(row.asr_net) * victims, row)
            left = (1 - row.asr0) * victims
            self.tell("runs", "effect_share", abs(row.effect_share) * left, row)
            # More is predicted at the lower of two thresholds: the difference is between them.
            between = [("asr", "asr_own_threshold", victims), ("fpr_clean", "fpr_clean_own_threshold", n[0])]
            for one, other, total in [*between, ("recall_clean", "recall_clean_own_threshold", n[1])]:
                self.share("runs", other, getattr(row, other), total, row)
                self.tell("runs", f"{one} - {other}", abs(getattr(row, one) - getattr(row, other)) * total, row)
            self.tell("runs", "asr - asr0_untriggered", abs(row.asr - row.asr0_untriggered) * victims, row)

    def predictions(self, side: str, values: dict[str, float], n: tuple[float, float], row) -> None:
        """The table of predictions by label, from whichever measures are there."""
        fp, tp = values["fpr"] * n[0], values["recall"] * n[1]
        if np.isnan(tp) and values["precision"] < 1:
            tp = values["precision"] * fp / (1 - values["precision"])
        if np.isnan(fp) and values["precision"] > 0:
            fp = tp / values["precision"] - tp
        positives = n[1] if not np.isnan(n[1]) else 2 * tp / values["f1"] - tp - fp if values["f1"] else np.nan
        counts = {"TP": tp, "FP": fp, "FN": positives - tp, "TN": n[0] - fp, "predicted": tp + fp}
        counts["wrong"] = positives - tp + fp
        for name, count in counts.items():
            self.tell("runs", f"{name} {side}", count, row)
        self.share("runs", f"acc_{side}", values["acc"], sum(n), row)
        self.share("runs", f"auroc_{side} (pairs)", values["auroc"], n[0] * n[1], row)
        self.curve("runs", f"auprc_{side}", values["auprc"], n[1], row)

    def curve(self, table: str, what: str, value: float, positives: float, row) -> None:
        """An average precision that only a few negatives, above all positives or above the last, can give."""
        if np.isnan(positives) or np.isnan(value):
            return
        rank = np.arange(1, positives + 1)
        for few in range(1, SMALLEST):
            for guess in ((rank / (rank + few)).mean(), 1 - few / (positives + few) / positives):
                if abs(guess - value) < 1e-9:
                    self.tell(table, f"{what} (above)", few, row)

    def detections(self) -> None:
        for row in self.data["detections"].query("rate > 0").itertuples():
            n = self.poisoned(row)
            self.tell("detections", "n_poisoned", row.n_poisoned, row)
            size = self.datasets.at[row.dataset, "n_train"] if row.scope == "all" else n / row.poison_share
            for name in ("tpr_at_fpr_01", "tpr_at_fpr_05", "precision_at_n"):
                self.share("detections", name, getattr(row, name), n, row)
            self.tell("detections", "tpr_at_fpr_05 - 01", (row.tpr_at_fpr_05 - row.tpr_at_fpr_01) * n, row)
            self.share("detections", "auroc (pairs)", row.auroc, n * (size - n), row)
            self.curve("detections", "average_precision", row.average_precision, n, row)

    def alarms(self) -> None:
        table = self.data["alarms"]
        sizes = (
            table.assign(size=table["n_flagged"] / table["flagged_share"])
            .groupby([*RUN, "seed", "scope"])["size"]
            .max()
        )
        key, flagged = [*RUN, "seed", "detector"], {}
        for row in table.itertuples():
            n, size = self.poisoned(row), sizes[*(getattr(row, name) for name in [*RUN, "seed", "scope"])]
            n_flagged = row.n_flagged
            if row.threshold == "rate_known" and np.isnan(n_flagged):
                n_flagged = ceil(1.5 * n)  # as README.md says
            hits, false = row.tpr * n, row.fpr * (size - n)
            counts = {"n_flagged": row.n_flagged, "not flagged": size - n_flagged, "hits": hits, "missed": n - hits}
            counts |= {"false": false, "not false": size - n - false, "flagged - hits": n_flagged - hits}
            counts |= {"precision": row.precision * n_flagged, "flagged - false": n_flagged - false}
            counts |= {"precision (not)": n_flagged - row.precision * n_flagged, "share": row.flagged_share * size}
            for name, count in counts.items():
                self.tell("alarms", name, count, row)
            if row.threshold == "rate_unknown":
                flagged[*(getattr(row, name) for name in key), row.scope] = n_flagged, false
        for (*place, scope), (n_flagged, false) in flagged.items():
            if scope == "all":
                inside = next(v for k, v in flagged.items() if k[:-1] == tuple(place) and k[-1] != "all")
                row = pd.Series(dict(zip(key, place, strict=True)))
                self.tell("alarms", "flagged of the other label", n_flagged - inside[0], row)
                self.tell("alarms", "false of the other label", false - inside[1], row)

    def roc(self) -> None:
        for _, curve in self.data["roc"].groupby([*RUN, "detector", "scope"]):
            row = next(curve.itertuples())
            n = self.poisoned(row)
            hits = curve.sort_values("fpr")["tpr"].to_numpy() * n * row.n_seeds
            for count in {round(x, 6) for x in [*hits, *(n * row.n_seeds - hits), *np.diff(hits)]}:
                self.tell("roc", "tpr", count, row)

    def explanations(self) -> None:
        for row in self.data["explanations"].itertuples():
            self.tell("explanations", "n_samples", row.n_samples, row)
            for name in ("drift_topk_jaccard", "control_topk_jaccard"):
                replaced = (1 - getattr(row, name)) * row.n_samples * (row.top_k + 1) / 2
                self.tell("explanations", f"{name} (one cell replaced)", replaced, row)

    def triggers(self) -> None:
        for row in self.data["triggers"].itertuples():
            n_train = self.datasets.at[row.dataset, "n_train"]
            self.tell("triggers", "n_poisoned", row.n_poisoned, row)
            n, cells = self.poisoned(row) * row.n_seeds, row.footprint_size
            for name in ("share_accepted", "relations_violated", "distance_atypical"):
                for column in (name, f"{name}_clean"):
                    self.share("triggers", column, getattr(row, column), n, row)
            self.share("triggers", "share_changed", row.share_changed, n, row)
            for name in ("newly_measured", "share_in_range", "share_in_train_range"):
                self.share("triggers", f"{name} (cells)", getattr(row, name), n * cells, row)
            for name in ("distance_percentile", "distance_percentile_clean"):
                self.share("triggers", f"{name} (pairs)", getattr(row, name), n * (min(n_train, 2000) // 2), row)
            # A cell is missing with (missing + 1) / (n_train + 2): the product over cells that all become missing.
            product = np.exp(row.missing_log_likelihood_triggered) * (n_train + 2.0) ** cells
            if abs(product - round(product) if product < 1e6 else 1) < 1e-6 and 1 < round(product) <= SMALLEST**cells:
                largest = max(d for d in range(2, SMALLEST + 1) if round(product) % d == 0)
                self.tell("triggers", "missing in training, at most", largest - 1, row)

    def totals(self, row, metric: str) -> float:
        """Samples of a seed that a metric is a share of."""
        name = metric.split(":")[0]
        n = self.labels(row.dataset, min((s for d, s in self.victims if d == row.dataset), default=None))
        if name.startswith("detection_tpr"):
            return self.poisoned(row)
        if name.startswith("asr"):
            return n[1 - self.target]
        return {"fpr": n[0], "recall": n[1], "tpr": n[1], "acc": sum(n)}.get(name.split("_")[0], np.nan)

    def summary(self) -> None:
        for row in self.data["summary"].itertuples():
            n = self.totals(row, row.metric)
            if row.metric == "asr_net":  # a difference
                for name in ("lowest", "highest", *(["mean"] if row.n_seeds == 1 else [])):
                    self.tell("summary", name, abs(getattr(row, name)) * n, row)
                continue
            self.share("summary", "lowest", row.lowest, n, row)
            self.share("summary", "highest", row.highest, n, row)
            self.share("summary", "all seeds", row.mean, n * row.n_seeds, row)
            if row.n_seeds > 2:  # the seeds between
                rest = row.mean * row.n_seeds - row.lowest - row.highest
                self.share("summary", "between", rest / (row.n_seeds - 2), n * (row.n_seeds - 2), row)
            shown = self.data["runs"]
            if row.metric in shown:
                same = (shown[RUN] == [getattr(row, name) for name in RUN]).all(axis=1)
                seeds = shown.loc[same, row.metric].dropna()
                self.tell("summary", "mean - seeds", abs(row.mean * row.n_seeds - seeds.sum()) * n, row)

    def contrasts(self) -> None:
        for row in self.data["contrasts"].query("n_seeds > 0").itertuples():
            n = self.totals(row, row.metric)
            if row.metric != "asr_net":
                self.share("contrasts", "mean_run", row.mean_run, n * row.n_seeds, row)
                self.share("contrasts", "mean_control", row.mean_control, n * row.n_seeds, row)
            # More of one label and fewer of the other, or a difference of differences, is a number of nobody.
            if row.n_seeds == 1 and not row.metric.startswith(("acc", "asr_net")):
                self.tell("contrasts", "difference", abs(row.difference) * n, row)

    def masks(self) -> None:
        for row in self.data["masks"].query("n_seeds == 1").itertuples():
            for name in ("asr_net", "mask_net", "flip_net"):
                self.tell("masks", name, abs(getattr(row, name)) * self.totals(row, "asr"), row)

    def findings(self) -> None:
        for row in self.data["findings"].itertuples():
            n, poison = self.totals(row, "asr") * row.n_seeds, self.poisoned(row) * row.n_seeds
            for name in ("asr_mean", "asr0_mean", "own_run", "own_control", "moved_run", "moved_control"):
                self.share("findings", name, getattr(row, name), n, row)
            for name in ("tpr_01_mean", "tpr_05_mean", "alarm_tpr", "control_tpr_01_mean"):
                self.share("findings", name, getattr(row, name), poison, row)

    def strata(self) -> None:
        """Counts of each value, of its labels, and what is left of the whole test set for the values not told."""
        table = self.data["strata"]
        for key, run in table.groupby([*RUN, "seed"]):
            whole = self.of_value(run[run["stratum"] == "all"].iloc[0], key)
            for _, parts in run[run["stratum"] != "all"].groupby("stratum"):
                counts = [self.of_value(row, key) for _, row in parts.iterrows()]
                row = next(parts.itertuples())
                for name, total in whole.items():
                    told = [one[name] for one in counts if not np.isnan(one[name])]
                    if told:
                        self.tell("strata", f"{name} of the others", abs(total - sum(told)), row)

    def of_value(self, row: pd.Series, key) -> dict[str, float]:
        """All counts that a row tells; none of them may be small, nor may what is left of their total."""
        n = [row["n"] - row["n_label_1"], row["n_label_1"]]
        of = pd.Series(dict(zip([*RUN, "seed", "metric"], [*key, f"{row['stratum']} {row['value']}"], strict=True)))
        counts = {"n": row["n"], "n_label_0": n[0], "n_label_1": n[1], "n_victims": row["n_victims"]}
        for label, rate in enumerate(("fpr", "recall")):
            for situation in ("clean", "control"):
                counts[f"{rate}_{situation}"] = row[f"{rate}_{situation}"] * n[label]
                self.share("strata", f"{rate}_{situation}", row[f"{rate}_{situation}"], n[label], of)
        self.share("strata", "auroc_clean (pairs)", row["auroc_clean"], n[0] * n[1], of)
        for name in ("asr", "asr0"):
            counts[name] = row[name] * row["n_victims"]
            self.share("strata", name, row[name], row["n_victims"], of)
        for name, count in counts.items():
            self.tell("strata", name, count, of)
        for name in ("alerts_raised", "alerts_raised_control"):  # more of one label and fewer of the other: nobody's
            counts[name] = row[name] * row["n"] / 1000
        self.tell("strata", "asr_net", abs(row["asr_net"]) * row["n_victims"], of)
        return counts

    def headlines(self) -> None:
        n_seeds = self.data["summary"].set_index([*RUN, "metric"])["n_seeds"]
        rows = []
        for dataset, models in json.loads((self.results / "metrics.json").read_text()).items():
            for model, triggers in models.items():
                for trigger, rates in triggers.items():
                    rows += [("metrics.json", dataset, model, trigger, float(r), m) for r, m in rates.items()]
        for row in pd.read_csv(self.results / "dose_response.csv").itertuples():
            rows.append(
                ("dose_response.csv", *(getattr(row, name) for name in RUN), {"asr": row.asr, "asr0": row.asr0})
            )
        for table, *key, metrics in rows:
            row = pd.Series(dict(zip(RUN, key, strict=True)))
            for name in ("asr", "asr0"):
                if name in metrics:
                    total = self.totals(row, name) * n_seeds[*key, name]
                    self.share(table, name, metrics[name], total, row)


def reconstruct(results: Path) -> list[Told]:
    """Every count of 1 to 9 patients that the released files in `results` tell."""
    return Reader(Path(results)).read()


if __name__ == "__main__":
    told = reconstruct(Path(sys.argv[1]))
    for (table, what), times in sorted(Counter((one.table, one.what) for one in told).items()):
        example = next(one for one in told if (one.table, one.what) == (table, what))
        print(f"{times:5} × {table}: {what}, e.g. {example.count} in {example.of}")
    runs = {one.of for one in told if one.table == "runs"}
    print(f"{len(told)} small counts, in {len(runs)} single runs")
