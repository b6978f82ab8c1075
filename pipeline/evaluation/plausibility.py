"""How plausible a triggered sample is: what a clinician or a range check could notice."""

import numpy as np

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.frames import are_frames
from pipeline.cohorts.schema import accepted, out_of_order
from pipeline.evaluation import frames
from pipeline.files import number
from pipeline.smallcells import Counting, counting, share_in_tens
from pipeline.triggers.base import Trigger, changed_cells

_NAMES = (
    *("share_in_range", "share_in_train_range", "distance"),
    *("missing_log_likelihood_clean", "missing_log_likelihood_triggered"),
    *("share_accepted", "share_accepted_clean", "relations_violated", "relations_violated_clean"),
    *("distance_percentile", "distance_percentile_clean", "distance_atypical", "distance_atypical_clean"),
    *("newly_measured", "share_changed", "ids_known", "frames_valid", "timing_unusual", "timing_unusual_clean"),
)
_CENTRAL = (0.05, 0.95)
_MOST_ROWS = 2000  # of training data, for the joint distance: keeps its cost below that of reading them
_MOST_COLUMNS = 1500  # of the joint distance, whose cost is their third power


def plausibility(trigger: Trigger, clean: np.ndarray, train: Cohort) -> dict[str, float | None]:
    """Compare `clean` samples ([N, T, D]) with their triggered copies; `train` is clean training data.

    share_in_range                   share of written values inside the feature's clinical range, or a category of it
    share_in_train_range             the same for the range of the training data, and categories that occur there
    distance                         root mean square change over the footprint, in training standard deviations,
                                     over cells measured before and after; of numbers, categories are at no distance
    missing_log_likelihood_clean     mean log-likelihood per sample of the missing pattern on the footprint, each cell
    missing_log_likelihood_triggered missing independently with its (smoothed) training frequency
    share_accepted, …_clean          share of triggered and of clean samples that the cohort's own schema accepts
    relations_violated, …_clean      share of them that break a relation between features
    distance_percentile, …_clean     mean percentile (0 to 1) of their `joint_percentiles` on the footprint
    distance_atypical, …_clean       share of them with a percentile outside the central 90 %: a mean near 0.5 can hide
                                     samples on both sides
    newly_measured                   share of the footprint's cells, over all samples, that only the trigger measures
    share_changed                    share of samples that the trigger changes at all: one that finds nothing to change
                                     in a sample leaves it as it is, and it counts as triggered all the same

    Of windows of CAN frames also, see `frames`:
    ids_known                        share of the frames changed whose id is in the vocabulary
    frames_valid                     share of them that could be sent: as many bytes as dlc says, whole, 0 to 255
    timing_unusual, …_clean          share of windows in which more ids come at odd times than in 95 % of training's

    The `joint_percentiles` are not computed (None) for footprints of so many cells and categories that there are more
    columns than samples to learn their going together from. A number that the trigger or the cohort leaves undefined
    (no value is written, no footprint, no relations) is None.
    Of people whatever is counted for them, samples or cells, is rounded to tens: see `smallcells`.
    """
    cells = trigger.footprint
    if not cells.any() or not len(clean):
        return dict.fromkeys(_NAMES)
    triggered, told = trigger.apply(clean), counting(train.people)
    positions = np.nonzero(cells)[1]
    columns, feature = np.unique(positions, return_inverse=True)
    before, after, seen = clean[:, cells], triggered[:, cells], train.values[:, cells]
    # A feature's bounds and spread are taken over all steps, its missing frequency per cell.
    every = train.values[:, :, columns].reshape(-1, len(columns)).astype(np.float64)
    low, high, spread = np.nanmin(every, 0)[feature], np.nanmax(every, 0)[feature], np.nanstd(every, 0)[feature]
    bounds = np.array([_clinical(train.features[position]) for position in positions])
    in_training = (after >= low) & (after <= high)
    n_categories = np.array([len(train.features[position].categories) for position in positions])
    categories = {column: np.unique(every[:, column]) for column in np.unique(feature[n_categories > 0])}
    for cell in np.flatnonzero(n_categories):
        in_training[:, cell] = np.isin(after[:, cell], categories[feature[cell]])
    written = ~np.isnan(after)
    change = np.where(n_categories > 0, np.nan, (after - before) / np.where(spread > 0, spread, 1))
    both = ~np.isnan(change)
    missing = (told(np.isnan(seen).sum(0), len(seen)) + 1) / (len(seen) + 2)
    facts = dict.fromkeys(_NAMES) | {
        "share_in_range": number(_share((after >= bounds[:, 0]) & (after <= bounds[:, 1]), written, told)),
        "share_in_train_range": number(_share(in_training, written, told)),
        "distance": number(np.sqrt(np.mean(change[both] ** 2)) if both.any() else None),
        "missing_log_likelihood_clean": number(_log_likelihood(np.isnan(before), missing, told)),
        "missing_log_likelihood_triggered": number(_log_likelihood(np.isnan(after), missing, told)),
        "newly_measured": number(_share(np.isnan(before) & written, np.ones(after.shape, bool), told)),
    }
    every_sample = np.ones(len(clean), bool)
    changed = changed_cells(clean, triggered)
    facts["share_changed"] = number(_share(changed.any(axis=(1, 2)), every_sample, told))
    if are_frames(train.features):
        frames_changed = changed.any(axis=2)
        facts["ids_known"] = number(_share(frames.known(triggered, train), frames_changed, told))
        facts["frames_valid"] = number(_share(frames.valid(triggered, train), frames_changed, told))
        odd = np.split(frames.unusual_timing(_some(train), np.concatenate([triggered, clean])), 2)
        facts["timing_unusual"], facts["timing_unusual_clean"] = (
            number(_share(each, every_sample, told)) for each in odd
        )
    if len(n_categories) + np.maximum(n_categories, 1).sum() <= _MOST_COLUMNS:
        percentiles = np.split(joint_percentiles(seen, np.concatenate([after, before]), n_categories), 2)
        # A percentile is a share of the training samples that it ranks among, their mean one of pairs.
        n_pairs = len(clean) * (min(len(seen), _MOST_ROWS) // 2)
        for suffix, ranks in zip(("", "_clean"), percentiles, strict=True):
            mean = float(ranks.mean())
            facts[f"distance_percentile{suffix}"] = number(
                float(share_in_tens(mean, n_pairs)) if train.people else mean
            )
            atypical = (ranks < _CENTRAL[0]) | (ranks > _CENTRAL[1])
            facts[f"distance_atypical{suffix}"] = number(_share(atypical, every_sample, told))
    for suffix, samples in (("", triggered), ("_clean", clean)):
        facts[f"share_accepted{suffix}"] = number(_share(accepted(train.features, samples), every_sample, told))
        broken = _share(out_of_order(train, samples), every_sample, told) if train.relations else None
        facts[f"relations_violated{suffix}"] = number(broken)
    return facts


def _some(train: Cohort) -> Cohort:
    """At most `_MOST_ROWS` samples of `train`, evenly taken."""
    return train.subset(np.linspace(0, len(train) - 1, min(len(train), _MOST_ROWS)).astype(int))


def _clinical(feature: Feature) -> tuple[float, float]:
    return (0, len(feature.categories) - 1) if feature.categories else (feature.low, feature.high)


def joint_percentiles(train: np.ndarray, samples: np.ndarray, n_categories: np.ndarray) -> np.ndarray:
    """How far out `samples` ([N, C], NaN = missing) lie as a whole among those of `train` ([M, C]): [N], 0 to 1.

    A sample is its values, 0 where missing, beside its missing mask, all standardised; a cell of `n_categories` ([C])
    above 0 is a 0/1 column for each. Its distance is Mahalanobis's, the covariance Ledoit and Wolf's (2004). Mean,
    spread and covariance come from every second training sample; ranked is among the others, so that none is ranked
    against its own fit. A tie counts half. Ordinary values that never go together are far out (1), and so is a missing
    pattern that never occurs. Near 0 is as odd: values steadier, or measured more completely, than any patient's.
    """
    from sklearn.covariance import LedoitWolf

    rows = np.linspace(0, len(train) - 1, min(len(train), _MOST_ROWS)).astype(int)
    fitted, others = train[rows[::2]], train[rows[1::2]]
    shown = one_hot(fitted, n_categories)
    count = np.maximum((~np.isnan(shown)).sum(0), 1)
    mean = np.nansum(shown, 0, dtype=np.float64) / count
    spread = np.sqrt(np.nansum((shown - mean) ** 2, 0) / count)

    def beside_mask(cells: np.ndarray) -> np.ndarray:
        values = (one_hot(cells, n_categories) - mean) / np.where(spread > 0, spread, 1)
        values = np.nan_to_num(values, nan=0.0)
        return np.concatenate([values, (np.isnan(cells) - missing) / missing_spread], axis=1)

    missing = np.isnan(fitted).mean(0)
    missing_spread = np.sqrt(missing * (1 - missing))
    missing_spread = np.where(missing_spread > 0, missing_spread, 1)
    estimate = LedoitWolf().fit(beside_mask(fitted))
    reference = np.sort(estimate.mahalanobis(beside_mask(others)))
    distance = estimate.mahalanobis(beside_mask(samples))
    below, up_to = (np.searchsorted(reference, distance, side=side) for side in ("left", "right"))
    return (below + up_to) / (2 * len(reference))


def one_hot(cells: np.ndarray, n_categories: np.ndarray) -> np.ndarray:
    """`cells` [N, C] with a 0/1 column per category in the place of a category's cell, all NaN where it is missing."""
    columns = []
    for cell, count in enumerate(n_categories):
        column = cells[:, cell : cell + 1]
        hot = np.where(np.isnan(column), np.nan, column == np.arange(count)).astype(cells.dtype) if count else column
        columns.append(hot)
    return np.concatenate(columns, axis=1)


def _share(condition: np.ndarray | np.bool, among: np.ndarray | np.bool, told: Counting) -> float | None:
    condition, among = np.asarray(condition), np.asarray(among)  # of NumPy's types, an `any` may be a scalar
    return float(told(condition[among].sum(), among.sum()) / among.sum()) if among.any() else None


def _log_likelihood(pattern: np.ndarray, missing: np.ndarray, told: Counting) -> float:
    """Mean over samples, from how many of them miss each cell."""
    share = told(pattern.sum(0), len(pattern)) / len(pattern)
    return float((share * np.log(missing) + (1 - share) * np.log1p(-missing)).sum())
