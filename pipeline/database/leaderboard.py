"""Which attack won: one row per dataset × model × trigger × rate, over seeds, each beside its controls."""

from collections.abc import Sequence
from typing import Any

from pipeline.database.intervals import SAME_PATIENTS, Difference, difference, error_of
from pipeline.database.recorded import Group, Recorded, differing, other_cohorts
from pipeline.database.shown import Column, Table
from pipeline.errors import UserError
from pipeline.results.columns import LABEL_AUROC
from pipeline.study.grid import CHOSEN, FLIPPED
from pipeline.study.variants import BASELINE
from pipeline.words import counted, suggestion

_HIGHER = ("asr", "asr_net", "effect_share", "asr_own_threshold", "effect_share_own_threshold", "confidence_shift")
_AT_CLEAN_THRESHOLD = ("asr", "asr_net", "effect_share")
_WORSE_WHEN_HIGH = ("brier", "ece", "fpr")  # on clean data: what would be noticed


def direction(metric: str) -> int:
    """1: the attacker wants `metric` high, −1: low, 0: it is no question of winning.

    An attacker wants triggered samples to get the target label, the model to be as good as any on clean data, and
    detectors to find nothing.
    """
    name = metric.partition(":")[0]
    if name in _HIGHER:
        return 1
    if name.startswith("detection_"):
        return -1
    if name.endswith(("_clean", "_clean_own_threshold")) and not name.startswith(("drift", "control", "ratio")):
        return -1 if name.startswith(_WORSE_WHEN_HIGH) else 1
    return 0


def leaderboard(studies: Sequence[Recorded], metric: str, dataset: str | None, limit: int | None) -> Table:
    """The attacks of `studies` from the best to the worst for the attacker, then their controls, which have no rank.

    Raises `UserError` for a metric or dataset that no study has, and where there is nothing to show.
    """
    for study in studies:
        study.refuse_unknown(metric)
    if dataset is not None:
        known = dict.fromkeys(group.dataset for study in studies for group in study.groups)
        if dataset not in known:
            raise UserError(f"--dataset: unknown {dataset!r} {suggestion(dataset, known)}")
    notes: dict[str, None] = {}
    several = len(studies) > 1
    rows = []
    for study in studies:
        said = [f"{study.folder}: {line}" if several else line for line in study.left_out()]
        found, more = _rows(study, metric, dataset)
        rows += found
        said += [f"{study.folder}: {line}" if several else line for line in more]
        notes |= dict.fromkeys(said)
    sign = direction(metric) or 1
    rows.sort(key=lambda row: (row["mean"] is None, -sign * (row["mean"] or 0)))
    attacks = [row for row in rows if row["kind"] == "attack"]
    if not attacks:
        raise UserError(f"{metric}: no attack of the study has a number; expected at least one run that is done")
    _ranked(attacks)
    shown = attacks if limit is None else attacks[:limit]
    beside = {(row["study"], row["dataset"], row["model"], rate) for row in shown for rate in (row["rate"], 0.0)}
    controls = [row for row in rows if row["kind"] == "control"]
    controls = [row for row in controls if (row["study"], row["dataset"], row["model"], row["rate"]) in beside]
    below = [_how(metric), *_many(attacks), *_unfinished(shown + controls)]
    below += [line for study in studies for line in study.rounded()][:1] + list(notes)
    if len(shown) < len(attacks):
        below.insert(0, f"the first {len(shown)} of {counted(len(attacks), 'row')}, and their controls")
    fewer_pairs = any(row.get("n_pairs") not in (None, row["n_seeds"]) for row in shown + controls)
    above = (differing(studies) or ["the studies have the same settings"]) + other_cohorts(studies) if several else ()
    return Table(_columns(metric, several, fewer_pairs), shown + controls, above, below)


def _rows(study: Recorded, metric: str, dataset: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    means = {group: mean for group, mean in study.means(metric).items() if dataset in (None, group.dataset)}
    asr, asr0 = study.means("asr"), study.means("asr0")
    old = study.old_means(metric) & means.keys()
    cost, controls = study.against_clean("auroc_clean"), less_control(study, metric)
    random = study.means(f"{LABEL_AUROC}:{BASELINE}")
    best: dict[Group, tuple[float, str, Any]] = {}
    for name in study.metrics:
        kind, _, detector = name.partition(":")
        if kind != LABEL_AUROC or detector == BASELINE:
            continue
        for group, mean in study.means(name).items():
            if mean.mean is not None and (group not in best or mean.mean > best[group][0]):
                best[group] = (mean.mean, detector, mean)
    rows = []
    for group, mean in means.items():
        row = {"study": str(study.folder), **group._asdict(), "metric": metric}
        row["patients"] = (group.dataset, study.cohorts.get(group.dataset))
        row |= {"kind": "control" if study.is_control(group.trigger) else "attack", "rank": None, "against_first": None}
        row |= {"mean": mean.mean, "ci_low": mean.low, "ci_high": mean.high}
        row |= {"n_seeds": mean.n_seeds, "n_asked": study.groups[group], "current": int(group not in old)}
        row["seeds"] = f"{mean.n_seeds}/{row['n_asked']}{'*' if group in old else ''}"
        row |= {name: found[group].mean if group in found else None for name, found in (("asr", asr), ("asr0", asr0))}
        if group in controls:
            row["control"], less = controls[group]
            row |= {"control_difference": less.mean, "control_low": less.low, "control_high": less.high}
        if group in cost:
            paired = cost[group]
            row |= {"auroc_clean": paired.mean_a, "auroc_difference": paired.mean, "n_pairs": paired.n}
            row |= {"auroc_difference_low": paired.low, "auroc_difference_high": paired.high}
        if group in best:
            _, row["detector"], found = best[group]
            row |= {"detector_auroc": found.mean, "detector_auroc_low": found.low, "detector_auroc_high": found.high}
            row["random_auroc"] = random[group].mean if group in random else None
        rows.append(row)
    return rows, study.of_old(old)


def less_control(study: Recorded, metric: str) -> dict[Group, tuple[str, Difference]]:
    """What each attack has more than the control of its model and rate, paired by seed; of several the strongest.

    Controls of what the poison does without a trigger: its labels, or its choice of rows. What measuring alone does
    (mask_only) is a trigger of its own: that another adds nothing to it does not make it none.
    """
    values, errors, means = study.by_seed(metric), study.errors(metric), study.means(metric)
    sign, found = direction(metric) or 1, {}
    rivals: dict[Group, list[Group]] = {}
    for group, mean in means.items():
        if study.member(group.trigger) in (FLIPPED, CHOSEN) and mean.mean is not None:
            rivals.setdefault(group._replace(trigger=""), []).append(group)
    for group in means:
        if study.is_control(group.trigger):
            continue
        if of_group := rivals.get(group._replace(trigger="")):
            strongest = max(of_group, key=lambda rival: sign * (means[rival].mean or 0.0))
            error = error_of(errors.get(group, 0.0), errors.get(strongest, 0.0))
            pairs = values.get(group, {}), values.get(strongest, {})
            found[group] = strongest.trigger, difference(*pairs, metric, study.t, study.split, error)
    return found


def _ranked(attacks: list[dict[str, Any]]) -> None:
    """Give each its rank, and say whether its interval tells it from the first."""
    first = attacks[0]
    for rank, row in enumerate(attacks, 1):
        if row["mean"] is not None:
            row["rank"] = rank
        ends = (first["ci_low"], first["ci_high"], row["ci_low"], row["ci_high"])
        if row is first:
            row["against_first"] = "first"
        elif row["patients"] != first["patients"]:  # how far these vary, no interval over seeds says
            row["against_first"] = "other patients"
        elif None not in ends:
            overlap = row["ci_high"] >= first["ci_low"] and row["ci_low"] <= first["ci_high"]
            row["against_first"] = "overlaps" if overlap else "apart"


def _columns(metric: str, several: bool, fewer_pairs: bool) -> list[Column]:
    return [
        Column("rank", head="#"),
        *[Column("study", key=True)] * several,
        *[Column(name, key=True) for name in ("dataset", "model", "trigger", "rate")],
        Column("kind"),
        Column("metric", head=None),
        Column("mean", ("ci_low", "ci_high"), head=metric),
        Column("against_first", head="to the first"),
        Column("", head="seeds", field="seeds"),
        *[Column(name, head=None) for name in ("n_seeds", "n_asked", "current")],
        Column("asr", head="ASR"),
        Column("asr0", head="ASR₀"),
        Column("control_difference", ("control_low", "control_high"), head="less its control"),
        Column("control"),
        Column("auroc_clean", head="clean AUROC"),
        Column("auroc_difference", ("auroc_difference_low", "auroc_difference_high"), head="less clean run's"),
        Column("n_pairs", head="pairs" if fewer_pairs else None),
        Column("detector", head="best detector"),
        Column("detector_auroc", ("detector_auroc_low", "detector_auroc_high"), head="its AUROC"),
        Column("random_auroc", head="of random scores"),
    ]


def _how(metric: str) -> str:
    wanted = {1: "higher is better for the attacker", -1: "lower is better for the attacker"}
    order = wanted.get(direction(metric), "from high to low, which says nothing of who wins")
    nothing = "; where its interval reaches 0 the trigger has shown nothing" if metric in _HIGHER else ""
    if metric in _AT_CLEAN_THRESHOLD:
        order += "; at the clean model's threshold, …_own_threshold at that which the run's user sets"
    return (
        f"{metric}: {order}; mean over seeds with its 95 % interval, {SAME_PATIENTS}. Less its control: {metric} less "
        f"that of the same model and rate without a trigger (flip_only, chosen_only; the stronger){nothing}. Clean "
        "AUROC less the clean runs'. Both paired by seed, t-interval. Detectors: AUROC within the target label; the "
        "best of several is flattered by the choice"
    )


def _many(attacks: Sequence[dict[str, Any]]) -> list[str]:
    if len(attacks) < 2:
        return []
    same = sum(row["against_first"] == "overlaps" for row in attacks)
    unknown = sum(row["against_first"] is None for row in attacks)
    told = f"{same} of the others are not to be told from the first, their intervals overlap"
    elsewhere = sum(row["against_first"] == "other patients" for row in attacks)
    if elsewhere:
        told += f", and {elsewhere} are of other patients, with whom nobody can compare it so"
    if unknown:
        told += f", of {unknown} nobody can say (an interval needs two seeds)"
    return [f"the first of {len(attacks)} is flattered by the choice among so many; {told}"]


def _unfinished(rows: Sequence[dict[str, Any]]) -> list[str]:
    count = sum(row["n_seeds"] < row["n_asked"] for row in rows)
    return [f"{counted(count, 'row')} over fewer seeds than the study asks for"] if count else []
