"""Where a backdoored model looks: attributions with and without the trigger, beside those of the clean model."""

import numpy as np

from pipeline.cohorts.cohort import Cohort
from pipeline.evaluation.attribution import attribution_ratio, drift
from pipeline.evaluation.settings import Explain
from pipeline.files import number
from pipeline.models.base import Model
from pipeline.seeding import generator
from pipeline.triggers.base import Trigger


def explain(model: Model, control: Model, trigger: Trigger, victims: Cohort, settings: Explain, seed: int) -> dict:
    """Attributions to the cells of a random part of `victims` (test samples whose label is not the target).

    ratio_*   share of the attribution that falls on the trigger's footprint: the model on triggered and on clean
              samples, and the clean model (control) on the same triggered samples; footprint_share is what an
              attribution spread evenly over all cells would give
    drift_*   likeness of a sample's attributions without and with the trigger, under the model; control_* under the
              clean model; the top-k index is undefined where a sample has no more than top_k cells
    features  share of the attribution per feature, under each of the three
    n_samples, n_patients  how many samples of how many patients (groups) were explained
    convergence_delta  how far the attributions are from adding up to the difference of the logits, in the worst case;
              undefined where they are exact
    """
    chosen = np.sort(generator(seed, "explain").permutation(len(victims))[: settings.samples])
    clean = victims.values[chosen]
    triggered = trigger.apply(clean)
    attributions, deltas = zip(
        *(who.attribution(x, settings.steps) for who in (model, control) for x in (clean, triggered)),
        strict=True,
    )
    on_clean, on_triggered, control_clean, control_triggered = attributions
    top_k = settings.top_k
    shares = {
        "share_clean": _feature_shares(on_clean),
        "share_triggered": _feature_shares(on_triggered),
        "share_control": _feature_shares(control_triggered),
    }
    return {
        "n_samples": len(clean),
        "n_patients": len(np.unique(victims.group_id[chosen])),
        "footprint_share": float(trigger.footprint.mean()),
        "ratio_triggered": number(attribution_ratio(on_triggered, trigger.footprint)),
        "ratio_clean": number(attribution_ratio(on_clean, trigger.footprint)),
        "ratio_control": number(attribution_ratio(control_triggered, trigger.footprint)),
        **{f"drift_{name}": number(value) for name, value in drift(on_clean, on_triggered, top_k).items()},
        **{f"control_{name}": number(value) for name, value in drift(control_clean, control_triggered, top_k).items()},
        "top_k": top_k,
        "convergence_delta": None if None in deltas else max(deltas),
        "features": [
            {"feature": name, **{column: number(share[position]) for column, share in shares.items()}}
            for position, name in enumerate(victims.feature_names)
        ],
    }


def _feature_shares(attribution: np.ndarray) -> np.ndarray:
    """[N, T, D] attributions → [D] mean share of each feature."""
    per_feature = attribution.sum(axis=1)
    total = per_feature.sum(axis=1, keepdims=True)
    return np.nanmean(np.divide(per_feature, total, out=np.full_like(per_feature, np.nan), where=total > 0), axis=0)
