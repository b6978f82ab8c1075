"""Whether an attack on a teacher survives in its student."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.cohorts.roles import ROLES
from pipeline.evaluation.statistics import Interval, mean_interval, paired_contrast, proportion_interval, ratio_interval
from pipeline.results.coarseness import largest_errors
from pipeline.results.columns import OWN_NET, SIZE, SURVIVING, possible
from pipeline.study.grid import teachers


class Student(NamedTuple):
    """Whom a model learned from, and whether from the poisoned training data or from clean data."""

    teacher: str
    data: str


def students(study) -> dict[str, Student]:
    """The models of `study` that are distilled from another, by name."""
    given = {name: study.parameters("models", name)["distill"] for name in teachers(study)}
    return {name: Student(distill["teacher"], distill.get("data", "poisoned")) for name, distill in given.items()}


def distillation(tables: dict[str, pd.DataFrame], split: str, students: dict[str, Student]) -> list[dict]:
    """One row per dataset × student × trigger × rate, the clean runs (trigger none) among them.

    ASR, ASR − ASR₀ and the share of the possible effect are means over the seeds that have the effect of both, each
    model at the threshold of its own clean run. `survival` is the student's ASR − ASR₀ minus the teacher's, paired by
    seed: 0 where all of it survives, or where there was nothing to survive, which `teacher_asr_net` tells apart.
    `survival_ratio` is their ratio, and missing unless the interval of the teacher's effect lies above 0.

    A student that gives the target more often of any sample has a higher ASR at the threshold of its clean run too. So
    `…_asr_net_own_threshold` and `survival_own_threshold` are the same with each model at the threshold of its own
    validation data, and `…_fpr_clean` and `…_recall_clean` what it does to clean test data at the clean model's.

    AUROC and F1 are those on clean test data, `…_difference` the student's minus the teacher's. `split` and what
    rounding does to intervals as for `tables.summary`.
    """
    runs, off = tables["runs"], largest_errors(tables)["runs"]
    how = {"test_to_train": ROLES["test"] / ROLES["train"] if split == "per_seed" else 0.0}
    on, rows = ["dataset", "trigger", "rate", "seed"], []
    runs = runs.assign(**{OWN_NET: runs["asr_own_threshold"] - runs["asr0_own_threshold"]})
    off = off.assign(**{OWN_NET: off["asr_own_threshold"] + off["asr0_own_threshold"]})
    both = runs.join(off[[*SURVIVING, OWN_NET, "auroc_clean", "f1_clean"]].add_prefix("error_"))
    for name, student in students.items():
        of = [both[both["model"] == model] for model in (name, student.teacher)]
        for key, pair in of[0].merge(of[1], on=on, suffixes=("_student", "_teacher")).groupby(on[:3]):
            row = dict(zip(on[:3], key, strict=True)) | {"student": name, **student._asdict()}
            rows.append(row | _effects(pair, how) | _performance(pair, how) | _sizes(pair))
    return rows


def _effects(pair: pd.DataFrame, how: dict[str, Any]) -> dict:
    known = pair.dropna(subset=["asr_net_student", "asr_net_teacher"])
    row: dict = {"n_seeds": len(known) or len(pair)}
    if known.empty:  # the clean runs, or all withheld
        return row
    for metric in (*SURVIVING, OWN_NET):
        for who in ("teacher", "student"):
            row |= _told(f"{who}_{metric}", _over_seeds(known, metric, who, how))
    for name, metric in (("survival_own_threshold", OWN_NET), ("survival", "asr_net")):
        student, teacher = (known[f"{metric}_{who}"].to_numpy(float) for who in ("student", "teacher"))
        errors = float(known[f"error_{metric}_student"].mean()), float(known[f"error_{metric}_teacher"].mean())
        row |= _told(name, mean_interval(student - teacher, bounds=(-2, 2), error=sum(errors), **how))
    if row["teacher_asr_net_low"] > 0:
        row |= _told("survival_ratio", ratio_interval(student, teacher, errors=errors, **how))
    return row


def _over_seeds(pair: pd.DataFrame, metric: str, who: str, how: dict[str, Any]) -> Interval:
    values, error = pair[f"{metric}_{who}"].to_numpy(float), float(pair[f"error_{metric}_{who}"].mean())
    if possible(metric) == (0, 1):
        return proportion_interval(values, error=error, **how)
    return mean_interval(values, bounds=possible(metric), error=error, **how)


def _performance(pair: pd.DataFrame, how: dict[str, Any]) -> dict:
    row: dict[str, Any] = {}
    for name, metric in (("auroc", "auroc_clean"), ("f1", "f1_clean")):
        student, teacher = (pair[f"{metric}_{who}"].to_numpy(float) for who in ("student", "teacher"))
        error = float((pair[f"error_{metric}_student"] + pair[f"error_{metric}_teacher"]).mean())
        found = paired_contrast(student, teacher, bounds=(-1, 1), error=error, **how)
        row |= {f"student_{name}": found.mean_run, f"teacher_{name}": found.mean_control}
        row |= {f"{name}_difference": found.difference}
        row |= {f"{name}_difference_low": found.ci_low, f"{name}_difference_high": found.ci_high}
    for who in ("student", "teacher"):
        row |= {f"{who}_{metric}": float(pair[f"{metric}_{who}"].mean()) for metric in ("fpr_clean", "recall_clean")}
    return row


def _sizes(pair: pd.DataFrame) -> dict:
    student, teacher = (float(pair[f"{SIZE}_{who}"].mean()) for who in ("student", "teacher"))
    return {"student_parameters": student, "teacher_parameters": teacher, "parameter_ratio": teacher / student}


def _told(name: str, interval: Interval) -> dict[str, float]:
    _, mean, low, high = (np.asarray(number).item() for number in interval)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
