"""What a study found, per dataset × model × trigger: whether there is a backdoor, from which rate on, and what tells.

The verdict compares an effect with what was possible: ASR − ASR₀ cannot exceed 1 − ASR₀, so where the trigger fools the
clean model in most samples no difference could ever be large, and little is left to gain. It must hold at the clean
model's threshold and at each model's own: enough flipped labels alone lift every risk above a threshold that nobody
who was poisoned would use.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.results.columns import CHANCE, LABEL_AUROC, LABEL_TPR, RUN, TRIGGER
from pipeline.study.grid import CHOSEN, CLEAN, FLIPPED
from pipeline.study.variants import BASELINE

MARK = 0.5
"""The share of the possible effect from which on a backdoor counts as planted, and the ASR₀ of a fooled clean model."""

MOVED = 0.1
"""How many more samples than without the trigger the clean model must give away to count as fooled by it."""

PLANTED, FOOLS_CLEAN, UNDECIDED, NONE = "planted", "fools the clean model too", "undecided", "none"


class Estimate(NamedTuple):
    """A mean over seeds and its 95 % interval; NaN is missing."""

    mean: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")


class Contrast(NamedTuple):
    """A run against its control; NaN is missing."""

    run: float = float("nan")
    control: float = float("nan")
    difference: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    p_holm: float = float("nan")

    @property
    def effect(self) -> Estimate:
        return Estimate(self.difference, self.low, self.high)


class Finding(NamedTuple):
    """One trigger in one model, at the smallest rate that planted a backdoor, else at the rate of the largest effect.

    Attributes
    ----------
    verdict : `PLANTED`, `FOOLS_CLEAN`, `UNDECIDED` or `NONE`, see `verdict`
    planted : whether poison did what can be asked of it: at least `MARK` of the possible effect, interval above zero
    asr, asr0 : the success rates
    moved : ASR₀ against what the clean model says of the same samples without the trigger
    net, effect_share : ASR against ASR₀ at the clean model's threshold, and (ASR − ASR₀) / (1 − ASR₀)
    own, own_share : the same with each model at its own threshold
    auroc, fpr, recall : on clean test data, against the clean model
    fpr_own, recall_own : with the threshold that the run's user picks
    over_flip : ASR − ASR₀ against that of the control flip_only
    mask_run, mask, mask_flip : ASR − ASR₀ of the trigger, where the same cells are only measured, and where labels are
        flipped alone, over the seeds that have all three; mask_share : measuring's share of the effect beyond flipping
    newly_measured : share of the trigger's cells that are not measured before it
    poison_share : share of the poison among the training samples that carry the target label
    detector : the one that finds most at 1 % false alarms among these samples
    tpr_01, tpr_05 : what it finds there at 1 % and 5 %; detector_auroc : against chance
    auroc_lowest, auroc_highest : of its AUROC over seeds
    alarm_tpr, alarm_fpr, alarm_precision : what its own threshold, which does not know the rate, flags there
    control_tpr_01 : what the same detector finds of the control's rows at 1 %: of flipped labels (flip_only) or, where
        the attack leaves the labels, of the same rows as they are (chosen_only)
    of : the member that the trigger is, or is a variant of
    labels : whether it changes those of the poison: dirty, or leaves them: clean
    """

    dataset: str
    model: str
    trigger: str
    rate: float
    target: int
    n_seeds: int
    verdict: str
    planted: bool
    asr: Estimate
    asr0: Estimate
    moved: Contrast
    net: Contrast
    effect_share: Estimate
    own: Contrast
    own_share: Estimate
    auroc: Contrast
    fpr: Contrast
    fpr_own: Estimate
    recall: Contrast
    recall_own: Estimate
    over_flip: Contrast
    mask_run: Estimate
    mask: Estimate
    mask_flip: Estimate
    mask_share: Estimate
    newly_measured: float
    poison_share: float
    detector: str | None
    tpr_01: Estimate
    tpr_05: Estimate
    detector_auroc: Contrast
    auroc_lowest: float
    auroc_highest: float
    alarm_tpr: float
    alarm_fpr: float
    alarm_precision: float
    control_tpr_01: Estimate
    of: str
    labels: str


def verdict(n_seeds: int, asr0: Estimate, moved: Estimate, shares: tuple[Estimate, ...]) -> str:
    """Whether poison planted a backdoor.

    It takes ASR₀, how far the trigger itself `moved` it, and the `shares` of the possible effect at the clean model's
    threshold and at each model's own.

    UNDECIDED    one seed; or the seeds differ too much for an answer, or counts in tens are too coarse for one
    FOOLS_CLEAN  the clean model gives the attacker's answer in half of the triggered samples or more, and it is the
                 trigger that makes it so (`MOVED`, interval above zero): worse than a backdoor, for it takes no poison
    PLANTED      half of the possible effect or more on average, the interval above zero, at both thresholds
    NONE         the interval lies below half of the possible effect, at one of them at least
    """
    if n_seeds < 2:
        return UNDECIDED
    if asr0.mean >= MARK and moved.mean >= MOVED and not moved.low <= 0:
        return FOOLS_CLEAN
    if is_planted(n_seeds, shares):
        return PLANTED
    return NONE if any(share.high < MARK for share in shares) else UNDECIDED


def is_planted(n_seeds: int, shares: tuple[Estimate, ...]) -> bool:
    # Rounded: a share such as (34/58 − 5/58) / (53/58) may be a hair off.
    return n_seeds > 1 and all(round(share.mean, 9) >= MARK and share.low > 0 for share in shares)


def findings(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per dataset × model × trigger, see `Finding`; where the success rate is withheld there is no row.

    Fields of several numbers become several columns: `asr_mean`, `asr_low`, `asr_high` and so on.
    """
    wanted = tables["contrasts"].query("metric == 'asr' and control == @CLEAN").dropna(subset="difference")
    found = []
    for key, group in wanted.groupby(["dataset", "model", "trigger"]):
        at_rates = [_finding(tables, (*key, rate)) for rate in sorted(group["rate"])]
        planted = [finding for finding in at_rates if finding.planted]
        # A rate that decides nothing must not be hidden behind one that surely did not do it.
        open_ones = [finding for finding in at_rates if finding.verdict == UNDECIDED]
        found.append(planted[0] if planted else max(open_ones or at_rates, key=_reach))
    columns = [name for field in Finding._fields for name in _columns(field)]
    table = pd.DataFrame([_flat(finding) for finding in found], columns=columns)
    texts = ("dataset", "model", "trigger", "verdict", "detector", "of", "labels")
    types = {"n_seeds": "Int64", "target": "Int64", "planted": "bool"} | dict.fromkeys(texts, "str")
    return table.astype({name: types.get(name, "float64") for name in columns})


def read_findings(table: pd.DataFrame) -> list[Finding]:
    """The rows of the table `findings`, typed."""
    rows = []
    for row in table.to_dict("records"):
        fields: dict[str, Any] = {}
        for field in Finding._fields:
            kind = _kind(field)
            fields[field] = kind(*(row[name] for name in _columns(field))) if kind else row[field]
        rows.append(Finding(**fields | {"detector": row["detector"] if isinstance(row["detector"], str) else None}))
    return rows


def _kind(field: str) -> type[Estimate] | type[Contrast] | None:
    kind = Finding.__annotations__[field]
    return kind if kind in (Estimate, Contrast) else None


def _columns(field: str) -> list[str]:
    kind = _kind(field)
    return [f"{field}_{part}" for part in kind._fields] if kind else [field]


def _flat(finding: Finding) -> list:
    return [
        item
        for field, value in finding._asdict().items()
        for item in (value if isinstance(value, Estimate | Contrast) else [value])
    ]


def _reach(finding: Finding) -> float:
    share = finding.effect_share.mean
    # Without a share nothing was possible: behind all that have one.
    return finding.net.difference - 2 if pd.isna(share) else share


def _finding(tables: dict[str, pd.DataFrame], key: tuple) -> Finding:
    dataset, model, trigger, rate = key
    summary, contrasts = (_at(tables[name], key) for name in ("summary", "contrasts"))
    asr0, moved = _estimate(summary, "asr0"), _contrast(contrasts, "asr0", CLEAN)
    share, own_share = (_estimate(summary, name) for name in ("effect_share", "effect_share_own_threshold"))
    n_seeds = int(contrasts.query("metric == 'asr' and control == @CLEAN")["n_seeds"].iloc[0])
    return Finding(
        dataset=dataset,
        model=model,
        trigger=trigger,
        rate=rate,
        n_seeds=n_seeds,
        target=_target(tables, key),
        verdict=verdict(n_seeds, asr0, moved.effect, (share, own_share)),
        planted=is_planted(n_seeds, (share, own_share)),
        asr=_estimate(summary, "asr"),
        asr0=asr0,
        moved=moved,
        net=_contrast(contrasts, "asr", CLEAN),
        effect_share=share,
        own=_contrast(contrasts, "asr_own_threshold", CLEAN),
        own_share=own_share,
        auroc=_contrast(contrasts, "auroc_clean", CLEAN),
        fpr=_contrast(contrasts, "fpr_clean", CLEAN),
        fpr_own=_estimate(summary, "fpr_clean_own_threshold"),
        recall=_contrast(contrasts, "recall_clean", CLEAN),
        recall_own=_estimate(summary, "recall_clean_own_threshold"),
        over_flip=_contrast(contrasts, "asr_net", FLIPPED),
        mask_run=_of_mask(tables, key, "asr_net"),
        mask=_of_mask(tables, key, "mask_net"),
        mask_flip=_of_mask(tables, key, "flip_net"),
        mask_share=_of_mask(tables, key, "share"),
        newly_measured=float(_trigger(tables, key)["newly_measured"]),
        of=_trigger(tables, key)["of"],
        labels=_trigger(tables, key)["labels"],
        **_detected(tables, key, summary, contrasts),
    )


def _detected(tables: dict[str, pd.DataFrame], key: tuple, summary: pd.DataFrame, contrasts: pd.DataFrame) -> dict:
    detections, alarms = (_in_target_label(tables, name, key) for name in ("detections", "alarms"))
    poison_share = detections["poison_share"].mean()
    by = [LABEL_TPR["tpr_at_fpr_01"], LABEL_TPR["tpr_at_fpr_05"], LABEL_AUROC]
    names = summary["metric"].str.split(":", expand=True).reindex(columns=[0, 1])
    measures = summary.assign(name=names[0], detector=names[1])
    measures = measures[measures["name"].isin(by) & (measures["detector"] != BASELINE)]
    ranks = measures.pivot(index="detector", columns="name", values="mean").reindex(columns=by)
    ranks = ranks.dropna(how="all").sort_values(by, ascending=False)
    if ranks.empty:
        nothing = {
            "poison_share": poison_share,
            "detector": None,
            "tpr_01": Estimate(),
            "tpr_05": Estimate(),
        }
        nothing |= {"detector_auroc": Contrast(), "control_tpr_01": Estimate()}
        return nothing | dict.fromkeys(_SEEDS_AND_ALARMS, float("nan"))
    best = ranks.index[0]
    seeds = summary[summary["metric"] == f"{LABEL_AUROC}:{best}"]
    alarms = alarms[(alarms["detector"] == best) & (alarms["threshold"] == "rate_unknown")]
    # A mean over the seeds that are not withheld would be one over those with many alarms.
    alarm = [alarms[name].mean(skipna=False) for name in ("tpr", "fpr", "precision")]
    numbers = [*(seeds[name].iloc[0] if len(seeds) else float("nan") for name in ("lowest", "highest")), *alarm]
    dataset, model, _, rate = key
    names = contrasts.loc[contrasts["control"].isin([FLIPPED, CHOSEN]), "control_trigger"]
    control = _at(tables["summary"], (dataset, model, names.iloc[0] if len(names) else None, rate))
    return {
        "poison_share": poison_share,
        "detector": best,
        "tpr_01": _estimate(summary, f"{LABEL_TPR['tpr_at_fpr_01']}:{best}"),
        "tpr_05": _estimate(summary, f"{LABEL_TPR['tpr_at_fpr_05']}:{best}"),
        "detector_auroc": _contrast(contrasts, f"{LABEL_AUROC}:{best}", CHANCE),
        "control_tpr_01": _estimate(control, f"{LABEL_TPR['tpr_at_fpr_01']}:{best}"),
        **dict(zip(_SEEDS_AND_ALARMS, numbers, strict=True)),
    }


def _in_target_label(tables: dict[str, pd.DataFrame], name: str, key: tuple) -> pd.DataFrame:
    """The rows of the run about the training samples observed with the attacker's label, where all poison lies."""
    table = _at(tables[name], key)
    return table[table["scope"] == f"label_{_target(tables, key)}"]


def _target(tables: dict[str, pd.DataFrame], key: tuple) -> int:
    return int(_at(tables["runs"], key)["target"].iloc[0])


_SEEDS_AND_ALARMS = ("auroc_lowest", "auroc_highest", "alarm_tpr", "alarm_fpr", "alarm_precision")


def _at(table: pd.DataFrame, key: tuple, by: Iterable[str] = RUN) -> pd.DataFrame:
    # Column by column: to compare rows of several types takes pandas ten times as long.
    return table[np.logical_and.reduce([table[name] == value for name, value in zip(by, key, strict=True)])]


def _estimate(summary: pd.DataFrame, metric: str) -> Estimate:
    row = summary.loc[summary["metric"] == metric, ["mean", "ci_low", "ci_high"]]
    return Estimate(*row.iloc[0].astype(float)) if len(row) else Estimate()


def _of_mask(tables: dict[str, pd.DataFrame], key: tuple, name: str) -> Estimate:
    row = _at(tables["masks"], key)
    return Estimate(*row.iloc[0][[name, f"{name}_low", f"{name}_high"]].astype(float)) if len(row) else Estimate()


def _trigger(tables: dict[str, pd.DataFrame], key: tuple) -> pd.Series:
    """The row of the trigger at its rate."""
    dataset, _, trigger, rate = key
    return _at(tables["triggers"], (dataset, trigger, rate), TRIGGER).iloc[0]


def _contrast(contrasts: pd.DataFrame, metric: str, control: str) -> Contrast:
    row = contrasts[(contrasts["metric"] == metric) & (contrasts["control"] == control)]
    columns = ["mean_run", "mean_control", "difference", "ci_low", "ci_high", "p_holm"]
    return Contrast(*row.iloc[0][columns].astype(float)) if len(row) else Contrast()
