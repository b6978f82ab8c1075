"""What every detector keeps to, what each finds, and how findings are counted."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.cohorts.overlay import CLEAN, COVER, POISON
from pipeline.detectors.base import MINIMUM, Evidence, Suspicion, per_label, robust_z, tukey_fence
from pipeline.evaluation.detection import evaluate
from pipeline.evaluation.metrics import auroc
from pipeline.study import families

DETECTORS = families.names("detectors")
INFORMED = [name for name in DETECTORS if name != "random"]
N, WIDTH, TARGET = 600, 16, 1


def planted(share: float = 0.05, seed: int = 0) -> tuple[Evidence, np.ndarray]:
    """Evidence with poison that stands out in activations and saliency, and where it is ([N] bool)."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, N)
    representation = rng.normal(size=(N, WIDTH)) + 3 * label[:, None]
    profiles = rng.dirichlet(np.full(WIDTH, 20.0), N)
    poisoned = (label == TARGET) & (rng.random(N) < share)
    representation[poisoned] += 3 * rng.normal(size=WIDTH)
    profiles[poisoned, 2] += 0.3
    return _evidence(representation, label, profiles), poisoned


def _evidence(representation: np.ndarray, label: np.ndarray, profiles: np.ndarray) -> Evidence:
    return Evidence(representation.astype(np.float32), label, lambda: profiles.astype(np.float32), 7, "runs/a")


def _take(evidence: Evidence, rows: np.ndarray) -> Evidence:
    return _evidence(evidence.representation[rows], evidence.label[rows], evidence.profiles[rows])


def _detect(name: str, evidence: Evidence) -> Suspicion:
    module = families.load("detectors", name)
    return module.detect(evidence, module.Parameters())


@pytest.mark.parametrize("name", DETECTORS)
def test_every_sample_gets_a_finite_score(name):
    suspicion = _detect(name, planted()[0])
    assert suspicion.score.shape == suspicion.flagged.shape == (N,)
    assert (suspicion.score.dtype, suspicion.flagged.dtype) == (np.float64, bool)
    assert np.isfinite(suspicion.score).all()
    assert np.ptp(suspicion.score) > 0


@pytest.mark.parametrize("name", DETECTORS)
def test_same_evidence_same_suspicion(name):
    first, again = (_detect(name, planted()[0]) for _ in range(2))
    assert (first.score == again.score).all() and (first.flagged == again.flagged).all()


@pytest.mark.parametrize("name", INFORMED)
def test_order_of_samples_does_not_matter(name):
    evidence, _ = planted()
    order = np.random.default_rng(1).permutation(N)
    suspicion, shuffled = _detect(name, evidence), _detect(name, _take(evidence, order))
    assert shuffled.score == pytest.approx(suspicion.score[order], abs=1e-6)
    assert (shuffled.flagged == suspicion.flagged[order]).all()


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("n_ones", [0, 1, 2, MINIMUM - 1, MINIMUM])
def test_small_labels_do_not_crash(name, n_ones):
    evidence, _ = planted()
    rows = np.concatenate([np.flatnonzero(evidence.label == 0), np.flatnonzero(evidence.label == 1)[:n_ones]])
    suspicion = _detect(name, _take(evidence, rows))
    if n_ones < MINIMUM and name in INFORMED:
        ones = evidence.label[rows] == 1
        assert not suspicion.score[ones].any() and not suspicion.flagged[ones].any()


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("level", [0.0, 0.7])
def test_dead_layers_do_not_crash(name, level):
    """All activations equal, all saliency zero (0) or the same: nothing to see, so nothing is flagged."""
    label = np.arange(200) % 2
    same = np.full((200, WIDTH), level)
    suspicion = _detect(name, _evidence(same, label, same))
    if name in INFORMED:
        assert not suspicion.score.any() and not suspicion.flagged.any()


@pytest.mark.parametrize("name", INFORMED)
def test_planted_poison_is_found(name):
    evidence, poisoned = planted()
    suspicion = _detect(name, evidence)
    target = evidence.label == TARGET
    assert auroc(poisoned, suspicion.score) > 0.9
    assert auroc(poisoned[target], suspicion.score[target]) > 0.9
    assert suspicion.flagged[poisoned].mean() > 0.9
    assert suspicion.flagged[~poisoned].mean() < 0.1


def test_random_scores_know_nothing():
    evidence, poisoned = planted()
    aurocs = [auroc(poisoned, _detect("random", replace(evidence, seed=seed)).score) for seed in range(20)]
    assert np.mean(aurocs) == pytest.approx(0.5, abs=0.06)


def test_random_scores_differ_between_cells_and_others_do_not():
    evidence, _ = planted()
    elsewhere = replace(evidence, cell="runs/b")
    assert abs(np.corrcoef(*(_detect("random", at).score for at in (evidence, elsewhere)))[0, 1]) < 0.2
    for name in INFORMED:
        assert (_detect(name, evidence).score == _detect(name, elsewhere).score).all()


def test_random_flags_its_share():
    assert _detect("random", planted()[0]).flagged.mean() == pytest.approx(0.05)


def test_spectral_scores_rank_as_the_squared_projection():
    evidence, _ = planted()
    rows = evidence.label == 0
    centred = evidence.representation[rows] - evidence.representation[rows].mean(axis=0)
    top = np.linalg.svd(centred.astype(np.float64), full_matrices=False)[2][0]
    expected = (centred @ top) ** 2
    assert (np.argsort(_detect("spectral_signatures", evidence).score[rows]) == np.argsort(expected)).all()


def test_activation_clustering_flags_no_even_split():
    rng = np.random.default_rng(0)
    representation = rng.normal(size=(400, 4))
    representation[:200] += 20
    assert not _detect(
        "activation_clustering", _evidence(representation, np.zeros(400, int), representation)
    ).flagged.any()


def test_activation_clustering_sees_a_cluster_of_one():
    representation = np.random.default_rng(0).normal(size=(5000, 4))
    representation[17] += 1000
    suspicion = _detect("activation_clustering", _evidence(representation, np.zeros(5000, int), representation))
    assert np.argmax(suspicion.score) == 17 and np.flatnonzero(suspicion.flagged).tolist() == [17]


def test_saliency_is_computed_once_and_only_when_needed():
    calls = []
    evidence = replace(planted()[0], saliency=lambda: calls.append(1) or np.ones((N, WIDTH)))
    _detect("spectral_signatures", evidence)
    assert not calls
    _detect("saliency", evidence)
    _detect("saliency", evidence)
    assert len(calls) == 1


def test_scores_must_be_finite():
    with pytest.raises(ArithmeticError, match="under 10 of 2 suspicions"):
        Suspicion(np.array([0.0, np.nan]), np.zeros(2, bool))


def test_per_label_puts_results_in_place():
    label = np.array([1, 0] * 15 + [2])
    evidence = _evidence(np.zeros((31, 1)), label, np.zeros((31, 1)))
    suspicion = per_label(evidence, lambda rows: Suspicion(rows * 1.0, rows > 20))
    assert (suspicion.score[:30] == np.arange(30)).all() and suspicion.score[30] == 0
    assert np.flatnonzero(suspicion.flagged).tolist() == list(range(21, 30))


def test_robust_z_and_fence_by_hand():
    # Quartiles 2 and 4: the fence is at 7. Median 3, MAD 1.
    score = np.array([1.0, 2, 3, 4, 7.1])
    assert tukey_fence(score).tolist() == [False, False, False, False, True]
    assert robust_z(score) == pytest.approx((score - 3) / 1.4826)
    assert robust_z(np.array([0.0, 0, 0, 0, 5])) == pytest.approx([0, 0, 0, 0, 2.5])
    assert not robust_z(np.ones(4)).any()


LABELS = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
SUSPICION = Suspicion(np.array([9.0, 8, 7, 6, 1, 8.5, 2, 3, 4, 5]), np.array([True, False, True] + [False] * 7))
POISONED = np.array([True, True] + [False] * 8)
PATIENTS = np.array([0, 0, 0, 1, 2, 3, 4, 5, 6, 6])
NO_COVER = {"n_cover": 0, "cover_patients": 0, "auroc_cover": None}


def roles(poisoned: np.ndarray) -> np.ndarray:
    return np.where(poisoned, POISON, CLEAN).astype(object)


def test_detection_by_hand():
    tables = evaluate(SUSPICION, roles(POISONED), LABELS, PATIENTS, [1])
    everywhere, within = tables["detections"]
    assert everywhere == pytest.approx(
        {
            "scope": "all",
            "n_samples": 10,
            "poisoned_patients": 1,
            "clean_patients": 7,
            "auroc": 15 / 16,
            "average_precision": (1 + 2 / 3) / 2,
            "tpr_at_fpr_01": 0.5,
            "tpr_at_fpr_05": 0.5,
            "precision_at_n": 0.5,
            "n_poisoned": 2,
            "poison_share": 0.2,
            **NO_COVER,
        }
    )
    assert within == {
        "scope": "label_1",
        "n_samples": 5,
        "poisoned_patients": 1,
        "clean_patients": 3,
        **dict.fromkeys(["auroc", "average_precision", "tpr_at_fpr_01", "tpr_at_fpr_05", "precision_at_n"], 1.0),
        "n_poisoned": 2,
        "poison_share": 2 / 5,
        **NO_COVER,
    }
    own, known = (row for row in tables["alarms"] if row["scope"] == "all")
    about = {"scope": "all", "n_samples": 10, "n_poisoned": 2, "poisoned_patients": 1, "clean_patients": 7}
    flags = about | {"threshold": "rate_unknown", "n_flagged": 2, "flagged_patients": 1, "flagged_share": 0.2}
    assert own == flags | {"tpr": 0.5, "fpr": 1 / 8, "precision": 0.5}
    flags = about | {"threshold": "rate_known", "n_flagged": 3, "flagged_patients": 2, "flagged_share": 0.3}
    assert known == flags | {"tpr": 1.0, "fpr": 1 / 8, "precision": 2 / 3}
    assert [row["scope"] for row in tables["roc"]] == ["all", "label_1"]
    curve = tables["roc"][0]
    assert curve["fpr"][::50] == [0, 0.5, 1] and len(curve["fpr"]) == 101
    assert curve["tpr"][:12] == [0.5] * 12 and curve["tpr"][13:] == [1.0] * 88


def test_clean_training_data_has_only_false_alarms():
    tables = evaluate(SUSPICION, roles(np.zeros(10, bool)), LABELS, PATIENTS, [1])
    for row in tables["detections"]:
        assert row["n_poisoned"] == row["poison_share"] == 0
        counts = ("scope", "n_samples", "poisoned_patients", "clean_patients", "n_poisoned", "poison_share")
        counts += ("n_cover", "cover_patients")
        assert {value for name, value in row.items() if name not in counts} == {None}
        assert row["poisoned_patients"] == 0
    assert [row["threshold"] for row in tables["alarms"]] == ["rate_unknown"] * 2
    assert [row["fpr"] for row in tables["alarms"]] == [0.2, 0.4]
    assert all(row["tpr"] is None and row["precision"] is None for row in tables["alarms"])
    assert tables["roc"] == []


@pytest.mark.parametrize("poisoned", [POISONED, ~POISONED, np.ones(10, bool), np.zeros(10, bool)])
@pytest.mark.parametrize("target", [0, 1, 2])
def test_detection_is_json(poisoned, target):
    json.dumps(evaluate(SUSPICION, roles(poisoned), LABELS, PATIENTS, [target]), allow_nan=False)


def test_cover_is_neither_hit_nor_false_alarm():
    """With cover among them all measures are those without it; how far cover stands out is told beside."""
    rng = np.random.default_rng(0)
    label, flagged = rng.integers(0, 2, 300), rng.random(300) < 0.3
    role = np.where((label == 1) & (rng.random(300) < 0.2), POISON, CLEAN).astype(object)
    role[(label == 0) & (rng.random(300) < 0.2)] = COVER
    score, patient = rng.standard_normal(300) + 2 * (role == COVER), rng.integers(0, 250, 300)
    rest = role != COVER
    found = evaluate(Suspicion(score, flagged), role, label, patient, [1])
    without = evaluate(Suspicion(score[rest], flagged[rest]), role[rest], label[rest], patient[rest], [1])
    assert found["alarms"] == without["alarms"] and found["roc"] == without["roc"]
    for row, other in zip(found["detections"], without["detections"], strict=True):
        assert {name: row[name] for name in row if name not in NO_COVER} == {
            name: other[name] for name in other if name not in NO_COVER
        }
    everywhere, within = found["detections"]
    cover, clean = score[role == COVER], score[role == CLEAN]
    by_hand = np.mean(cover[:, None] > clean[None])
    assert everywhere["auroc_cover"] == pytest.approx(by_hand) and by_hand > 0.8
    assert everywhere["n_cover"] == len(cover) and everywhere["cover_patients"] == len(set(patient[role == COVER]))
    assert {name: within[name] for name in NO_COVER} == NO_COVER, "it has the other label"


def test_a_clean_run_is_told_of_every_target():
    tables = evaluate(SUSPICION, roles(np.zeros(10, bool)), LABELS, PATIENTS, [1, 0])
    assert [row["scope"] for row in tables["detections"]] == ["all", "label_1", "label_0"]
    alarms = {row["scope"]: row["n_flagged"] for row in tables["alarms"]}
    assert alarms == {"all": 2, "label_1": 2, "label_0": 0}
