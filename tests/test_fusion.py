"""Fusion: its rules on planted members, its agent, its state, and its table."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_cohort
from sklearn.metrics import roc_auc_score
from test_config import DEFAULT

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.errors import UserError
from pipeline.models import base
from pipeline.models.base import build
from pipeline.models.fusion import Parameters, auroc, halves, mixed
from pipeline.models.shared.dqn import DQNConfig, best_weights, learn, rewards_of
from pipeline.results import fusion as results
from pipeline.results import fusion_page as page
from pipeline.study import variants
from pipeline.study.config import Study, load_study
from pipeline.training import checkpoints
from pipeline.training.fitting import train
from pipeline.training.settings import Training

FEATURES = (Feature("a"), Feature("b"), Feature("hint"))
RULES = ("dqn", "max", "mean", "constant", "logistic", "mlp")


class Toy(base.Model):
    """Says as its logit what stands in one column; the anomaly detector among them has more to say."""

    built_from = ("logistic", {})

    def __init__(self, column: int, extra: str = ""):
        self._column, self._extra = column, extra

    def probability(self, x):
        return 1 / (1 + np.exp(-x[:, -1, self._column].astype(float)))

    def outputs(self, x):
        said = {"probability": self.probability(x)}
        return said | ({self._extra: x[:, -1, 2].astype(float)} if self._extra else {})

    def state(self):
        return {}

    def load(self, state):
        pass

    size = 0


MEMBERS = {"a": Toy(0, "node_error"), "b": Toy(1)}


def planted(n: int, seed: int, kind: str) -> Cohort:
    """`split`: a is right where the hint is above 0 and b elsewhere, neither knows the rest. `noise`: b knows nothing.

    `alike`: both say the same.
    """
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.3).astype(np.int8)
    hint, noise = rng.standard_normal(n), rng.standard_normal((2, n))
    right = 2.0 * (2 * label - 1) + noise[0]
    a, b = {
        "split": (np.where(hint > 0, right, 2 * noise[1]), np.where(hint > 0, 2 * noise[1], right)),
        "noise": (0.7 * right, 2 * noise[1]),
        "alike": (right, right),
    }[kind]
    values = np.stack([a, b, hint], axis=1)[:, None].astype(np.float32)
    return Cohort("planted", FEATURES, np.arange(n), np.arange(n), label, values)


LEARNING = {"dqn": {}, "fusion": {}}
QUICK = {"dqn": {"steps": 10}, "fusion": {"steps": 10}}  # where it does not matter how well they learn


def fused(data: Cohort, rule: str = "dqn", seed: int = 1, parents=MEMBERS, **parameters) -> base.Model:
    parameters = QUICK | parameters
    model = build("fusion", {"members": list(parents), "rule": rule, **parameters}, data.n_steps, data.features)
    model.fit(data, data, Training(), seed, parents)
    return model


def alone(data: Cohort) -> dict[str, float]:
    return {name: auroc(data.label, member.probability(data.values)) for name, member in MEMBERS.items()}


def test_auroc_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 2, 300), rng.integers(0, 40, 300) / 40
    assert auroc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


def test_the_agent_learns_which_member_to_trust_and_beats_both():
    data, test = planted(4000, 0, "split"), planted(4000, 1, "split")
    model, hint = fused(data, **LEARNING), test.values[:, 0, 2]
    alpha, found = model.outputs(test.values)["alpha"], auroc(test.label, model.probability(test.values))
    assert alpha[hint > 0.5].mean() > 0.75 and alpha[hint < -0.5].mean() < 0.25
    assert found > 0.95 > max(alone(test).values()) + 0.1
    # One number for all cannot do that, nor can a line.
    facts = model.facts()
    assert facts["rules"]["dqn"] > max(facts["rules"]["constant"], facts["rules"]["logistic"]) + 0.02
    assert facts["over_better_member"] > 0.1 and facts["auroc"] == facts["rules"]["dqn"]


@pytest.mark.parametrize("rule", ["dqn", "constant", "logistic", "mlp"])
def test_beside_a_member_that_knows_nothing_a_fusion_ends_near_the_other(rule):
    data, test = planted(2000, 0, "noise"), planted(4000, 1, "noise")
    model, known = fused(data, rule, **LEARNING), alone(test)
    assert known["a"] > 0.95 and known["b"] == pytest.approx(0.5, abs=0.03)
    assert auroc(test.label, model.probability(test.values)) > known["a"] - 0.03
    if rule == "dqn":
        assert model.outputs(test.values)["alpha"].mean() > 0.7
    if rule == "constant":
        assert model.state()["rule.alpha"].item() > 0.7


def test_where_members_say_the_same_no_rule_that_mixes_them_gains_anything():
    facts = fused(planted(1000, 0, "alike")).facts()
    for rule in ("dqn", "max", "mean", "constant"):
        assert facts["rules"][rule] == pytest.approx(facts["members"]["a"], abs=1e-9)
    assert facts["alpha"]["constant"] == 0.5, "of equals the nearest to 0.5"


def agent(rewards: np.ndarray, hint: np.ndarray, **config) -> np.ndarray:
    """The weights that an agent paid with `rewards` takes in the states `hint`."""
    given = DQNConfig(**config)
    state = torch.from_numpy(hint[:, None])
    ends = torch.zeros(len(hint), dtype=torch.bool)
    network = learn(state, torch.from_numpy(rewards), ends, given, 1)
    with torch.no_grad():
        return best_weights(network(state), given)


@pytest.mark.parametrize("discount", [0.0, 0.5])
def test_the_reward_reaches_training(discount):
    """The same agent with the rewards of other samples, or with their signs turned, has another policy."""
    data = planted(2000, 0, "split")
    hint = data.values[:, 0, 2].astype(float)
    scores = np.column_stack([member.probability(data.values) for member in MEMBERS.values()])
    config = DQNConfig()
    rewards = rewards_of(np.column_stack([mixed(scores, alpha) for alpha in config.weights]), data.label, config)
    far = np.abs(hint) > 0.5

    def share_right(rewards: np.ndarray) -> float:
        return float(((agent(rewards, hint, discount=discount, steps=400) > 0.5) == (hint > 0))[far].mean())

    assert share_right(rewards) > 0.9
    assert share_right(-rewards) < 0.1
    shuffled = rewards[np.random.default_rng(0).permutation(len(rewards))]
    assert 0.2 < share_right(shuffled) < 0.8


def test_the_reward_depends_on_the_weight_through_the_fused_probability():
    scores, label = np.array([[0.9, 0.2], [0.9, 0.2]]), np.array([1, 0])
    fused_at = np.column_stack([mixed(scores, alpha) for alpha in (0, 0.5, 1)])
    likelihood = rewards_of(fused_at, label, DQNConfig())
    np.testing.assert_allclose(likelihood, np.log([[0.2, 0.55, 0.9], [0.8, 0.45, 0.1]]))
    margin = rewards_of(fused_at, label, DQNConfig(reward="margin"))
    np.testing.assert_allclose(margin, [[-0.6, 0.1, 0.8], [0.6, -0.1, -0.8]])
    assert np.isfinite(rewards_of(np.array([[0.0], [1.0]]), label, DQNConfig())).all()


def test_double_dqn_finds_the_values_of_a_chain_by_hand():
    """Two states in turn, the second pays 1 for the second action; with a discount γ all are worth what comes later.

    With both actions free everywhere: V₁ = r + γ V₀ and V₀ = γ V₁, so V₁ = 1 / (1 − γ²) and V₀ = γ V₁.
    """
    state = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    rewards = torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    config = DQNConfig(
        weights=(0, 1), discount=0.5, steps=1500, target_update=25, weight_decay=0, epsilon_end=1.0, learning_rate=0.003
    )
    spread = rewards.std()  # values are in units of the spread of the rewards
    network = learn(state, rewards, torch.zeros(2, dtype=torch.bool), config, 1)
    with torch.no_grad():
        values = network(state) * spread
    second = 1 / (1 - 0.25)
    np.testing.assert_allclose(values, [[0.5 * second] * 2, [0.5 * 0.5 * second, second]], atol=0.05)
    # An episode that ends behind the second state has nothing to come.
    network = learn(state, rewards, torch.tensor([False, True]), config, 1)
    with torch.no_grad():
        values = network(state) * spread
    np.testing.assert_allclose(values, [[0.5, 0.5], [0, 1]], atol=0.05)


@pytest.mark.parametrize(("alpha", "member"), [(1, "a"), (0, "b")])
def test_a_constant_of_0_or_1_is_the_member_to_the_bit(alpha, member):
    data = planted(500, 0, "split")
    model = fused(data, "constant", alpha=alpha)
    np.testing.assert_array_equal(model.probability(data.values), MEMBERS[member].probability(data.values))
    facts = model.facts()
    assert facts["auroc"] == facts["members"][member] and facts["rules"]["constant"] > facts["auroc"]


def test_the_best_constant_is_that_of_a_slow_search():
    data = planted(600, 3, "noise")
    chosen, _ = halves(data)
    part = data.subset(chosen)
    first, second = (member.probability(part.values) for member in MEMBERS.values())
    grid = [step / 20 for step in range(21)]
    quality = {a: round(roc_auc_score(part.label, a * first + (1 - a) * second), 12) for a in grid}
    best = [a for a in grid if quality[a] == max(quality.values())]
    expected = min(best, key=lambda a: (round(abs(a - 0.5), 9), a))
    assert fused(data, "constant", fusion={"points": 21}).state()["rule.alpha"].item() == pytest.approx(expected)


def test_max_and_mean_by_hand_of_three():
    data = planted(300, 0, "noise")
    parents = MEMBERS | {"c": Toy(2)}
    said = [member.probability(data.values) for member in parents.values()]
    for rule, expected in (("max", np.maximum.reduce(said)), ("mean", sum(said) / 3)):
        model = fused(data, rule, parents=parents)
        np.testing.assert_allclose(model.probability(data.values), expected, rtol=1e-12)
        assert set(model.facts()["rules"]) == {"max", "mean", "logistic", "mlp"}, "no weight is for three"


def test_the_state_is_what_the_members_say_standardised_on_what_it_was_fitted_on():
    data = planted(400, 0, "noise")
    chosen, _ = halves(data)
    p, q = (member.probability(data.values) for member in MEMBERS.values())
    columns = np.column_stack([np.abs(2 * p - 1), data.values[:, 0, 2], p, np.abs(2 * q - 1), q]).astype(float)
    expected = (columns - columns[chosen].mean(axis=0)) / columns[chosen].std(axis=0)
    np.testing.assert_allclose(fused(data).representation(data.values), expected, rtol=1e-4, atol=1e-5)
    far = data.values.copy()
    far[:, :, 2] = 1e30
    assert np.abs(fused(data).representation(far)).max() == 8
    far[:, :, 2] = np.nan
    with pytest.raises(ArithmeticError, match="a:node_error: 400 of 400 are not finite"):
        fused(data).probability(far)


def test_what_a_member_says_the_same_of_all_says_nothing():
    data = planted(400, 0, "noise")
    data.values[:, :, 2] = 0.1
    assert not fused(data).representation(data.values)[:, 1].any()


@pytest.mark.parametrize("rule", RULES)
def test_a_seed_gives_the_same_bits_and_another_seed_others(rule):
    data = planted(300, 0, "split")
    before = torch.random.get_rng_state()
    states = [fused(data, rule, seed).state() for seed in (1, 1, 2)]
    assert torch.equal(before, torch.random.get_rng_state())
    same = [all(torch.equal(states[0][name], other[name]) for name in states[0]) for other in states[1:]]
    assert same == [True, rule not in ("dqn", "mlp")]


def test_halves_share_no_group_and_both_have_both_labels():
    rng = np.random.default_rng(0)
    for n_groups in (8, 30, 200):
        cohort = make_cohort(400)
        group = rng.integers(0, n_groups, 400)
        cohort = Cohort("made", cohort.features, cohort.sample_id, group, cohort.label, cohort.values)
        chosen, how = halves(cohort)
        assert how == "groups" and not set(group[chosen]) & set(group[~chosen])
        assert 0.35 < chosen.mean() < 0.65 and cohort.label[chosen].mean() == pytest.approx(
            cohort.label.mean(), abs=0.1
        )


def test_of_one_group_the_first_half_is_fitted_on():
    cohort = planted(100, 0, "split")
    one = Cohort("made", FEATURES, cohort.sample_id, np.zeros(100, int), cohort.label, cohort.values)
    chosen, how = halves(one)
    assert how == "time" and chosen.tolist() == [True] * 50 + [False] * 50
    few = one.subset(np.flatnonzero(one.label == 0)[:30])
    with pytest.raises(UserError, match="expected both labels in each, found 30 samples, 0 of them with label 1"):
        halves(few)


class Memory(Toy):
    """Knows the label of every sample of its training data, and nothing of others."""

    def __init__(self, seen: Cohort):
        self._known = dict(zip(seen.values[:, 0, 0].tolist(), seen.label.tolist(), strict=True))

    def probability(self, x):
        return np.array([0.1 + 0.8 * self._known.get(value, abs(value) % 1) for value in x[:, 0, 0].tolist()])

    def outputs(self, x):
        return {"probability": self.probability(x)}


@pytest.mark.parametrize("rule", ["dqn", "constant", "logistic", "mlp"])
def test_a_member_that_knows_its_training_data_by_heart_is_not_trusted_for_that(rule):
    """The samples of `train` could have been fitted on just as well: that is what the second fusion does."""
    data, validation, test = (planted(1000, seed, "noise") for seed in (0, 1, 2))
    parents = {"heart": Memory(data), "a": MEMBERS["a"]}
    found = []
    for fitted_on in (validation, data):
        quick = {"dqn": {"steps": 500 if rule == "dqn" else 1}, "fusion": {"steps": 200 if rule == "mlp" else 1}}
        model = build("fusion", {"members": list(parents), "rule": rule} | quick, 1, FEATURES)
        model.fit(data, fitted_on, Training(), 1, parents)
        found.append(auroc(test.label, model.probability(test.values)))
    assert found[0] > 0.93 and found[1] < found[0] - 0.02


PARENTS = {"boosted": {"of": "lightgbm", "trees": 20}, "logistic": {}}


@pytest.fixture(scope="module")
def real() -> tuple[Cohort, dict[str, base.Model]]:
    """A cohort and two real members, one a variant."""
    data = make_cohort(400, steps=3)
    parents = {name: build(name, given, data.n_steps, data.features) for name, given in PARENTS.items()}
    for member in parents.values():
        member.fit(data, data, Training(), 1)
    return data, parents


@pytest.mark.parametrize("rule", RULES)
def test_a_state_alone_brings_the_fusion_back(real, rule, tmp_path):
    data, parents = real
    model = fused(data, rule, parents=parents)
    checkpoints.save(tmp_path / "model.pt", model.state())
    again = build("fusion", {"members": list(PARENTS), "rule": rule}, data.n_steps, data.features)
    checkpoints.load_weights(again, tmp_path / "model.pt")
    np.testing.assert_array_equal(again.probability(data.values), model.probability(data.values))
    np.testing.assert_array_equal(again.representation(data.values), model.representation(data.values))
    assert again.size == model.size == model.facts()["own_size"] + sum(member.size for member in parents.values())


def test_a_fusion_may_be_a_member_and_a_network_too(real):
    data, parents = real
    network = build("mlp", {"hidden": [4]}, data.n_steps, data.features)
    network.preprocessor.fit(data.values)
    inner = fused(data, "constant", parents=parents)
    inner.built_from = ("inner", {"of": "fusion", "members": list(PARENTS), "rule": "constant"})
    outer = fused(data, "mean", parents={"inner": inner, "mlp": network})
    again = build("fusion", {"members": ["inner", "mlp"], "rule": "mean"}, data.n_steps, data.features)
    again.load(outer.state())
    np.testing.assert_array_equal(again.probability(data.values), outer.probability(data.values))


def test_training_takes_the_parents_and_leaves_them_as_they_are(real, tmp_path):
    data, parents = real
    before = {name: member.state() for name, member in parents.items()}
    given = {"members": list(PARENTS), "rule": "dqn"} | QUICK
    model = build("fusion", given, data.n_steps, data.features)
    arguments = (model, Parameters(**given), data, data, Training(), 1, tmp_path / "c.pt", "", parents)
    rows, resumed = train(*arguments)
    assert resumed == 0 and len(rows) == 1 and rows[0]["validation_auroc"] > 0.7
    json.dumps(model.facts(), allow_nan=False)
    for name, member in parents.items():
        assert all(torch.equal(tensor, before[name][key]) for key, tensor in member.state().items())


def text(**content) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(content).encode()), dtype=torch.uint8)


def bytes_of(raw: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)


COLUMNS = ["boosted:confidence", "boosted:probability", "logistic:confidence", "logistic:probability"]
TWO = [["boosted", PARENTS["boosted"]], ["logistic", {}]]
BAD = {
    "no_bytes": ({"made_of": torch.zeros(3)}, "made_of: expected the bytes of a JSON text"),
    "a_pickle": ({"made_of": bytes_of(b"\x80\x04cos\nsystem\n.")}, "made_of: expected JSON of `members`"),
    "deep": ({"made_of": bytes_of(b"[" * 60_000)}, "made_of: expected JSON of `members`"),
    "long": ({"made_of": bytes_of(b" " * 70_000)}, "made_of: 70,000 bytes, expected at most 65,536"),
    "other_json": ({"made_of": text(members=[1, 2], columns=COLUMNS)}, "made_of: expected JSON of `members`"),
    "one_member": ({"made_of": text(members=TWO[:1], columns=COLUMNS)}, "made_of: 1 members, expected 2"),
    "no_model": (
        {"made_of": text(members=[["os", {}], TWO[1]], columns=COLUMNS)},
        "made_of: 'os' is no model of this project",
    ),
    "base": ({"made_of": text(members=[["x", {"of": "base"}], TWO[1]], columns=COLUMNS)}, "'base' is no model"),
    "parameters": (
        {"made_of": text(members=[["boosted", {"of": "lightgbm", "trees": -1}], TWO[1]], columns=COLUMNS)},
        "made_of: boosted: trees: Input should be greater",
    ),
    "another_member": ({"made_of": text(members=TWO[::-1], columns=COLUMNS)}, "logistic: it holds seen, text"),
    "a_giant": (
        {"made_of": text(members=[["mlp", {"hidden": [900_000, 900_000]}], TWO[1]], columns=COLUMNS)},
        r"made_of: mlp would have 810,\d{3},\d{3},\d{3} numbers, more than the state holds",
    ),
    "columns": ({"made_of": text(members=TWO, columns=COLUMNS[:3])}, r"centre: expected torch.float64 of shape \(3,\)"),
    "shape": ({"rule.0.weight": torch.zeros(2, 2, dtype=torch.float64)}, "rule.0.weight: expected torch.float64"),
    "more": ({"member.7.x": torch.zeros(1)}, "expected .*: its own and those of its members"),
    "no_member": ({"member.0.text": None}, "boosted: it holds seen"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_what_is_no_state_of_a_fusion_is_refused_in_one_sentence(real, change, message):
    data, parents = real
    state = {**fused(data, "logistic", parents=parents).state(), **change}
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    model = build("fusion", {"members": list(PARENTS), "rule": "logistic"}, data.n_steps, data.features)
    with pytest.raises(ValueError, match=message) as refused:
        model.load(state)
    assert "\n" not in str(refused.value) and type(refused.value) is ValueError
    assert not model._members, "nothing of it is kept"


def study(**fusion) -> Study:
    named = {"models": ["mlp", "logistic", "lightgbm", "fusion"], "model_params": {"fusion": fusion}}
    return load_study(variants.merged(DEFAULT, named))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"members": ["mlp", "logistic", "lightgbm"]}, r"members: \[.*\] given, expected at most 2 entries"),
        ({"members": ["mlp", "logistic", "lightgbm"], "rule": "constant"}, r"members: .* at most 2 entries"),
        ({"members": ["mlp"], "rule": "max"}, r"members: .* at least 2 entries"),
        ({"members": ["mlp", "mlp"]}, r"members: .* no entry twice"),
        ({}, r"members: missing"),
        ({"members": ["mlp", "logistic"], "alpha": 0.3}, r"alpha: 0.3 given, expected a null"),
        ({"members": ["mlp", "logistic"], "rule": "constant", "alpha": 2}, r"alpha: 2 given"),
        (
            {"members": ["mlp", "logistic"], "dqn": {"discont": 0}},
            r"dqn.discont: no such key \(did you mean 'discount'",
        ),
        ({"members": ["mlp", "logistic"], "fusion": {"hidden": []}}, r"fusion.hidden: \[\] given"),
    ],
)
def test_a_fusion_that_cannot_be_is_refused_before_any_job(given, message):
    with pytest.raises(UserError, match=f"^config: model_params.fusion.{message}"):
        study(**given)
    if given:
        with pytest.raises(ValueError):
            Parameters.model_validate(given)


def test_three_members_are_for_the_rules_that_weigh_nothing():
    made = study(members=["mlp", "logistic", "lightgbm"], rule="mean")
    assert made.parents("fusion") == ["mlp", "logistic", "lightgbm"]
    study(members=["mlp", "logistic"], rule="constant", alpha=0)


# The table


def fact(
    seed: int,
    rules: dict[str, float],
    members: dict[str, float],
    rule: str = "dqn",
    groups: int = 50,
    people: bool = True,
) -> dict:
    told = {"rule": rule, "auroc": rules[rule], "rules": rules, "members": members, "pairs": 10_000}
    told |= {"alpha": {"constant": 0.337, "dqn_mean": 0.611}, "groups": {"label_0": 80, "label_1": groups}}
    key = {"dataset": "ward", "model": "fuse", "trigger": "none", "rate": 0.0, "seed": seed}
    return key | {"model_facts": told, "people": people}


def made_table(rows: list[tuple[dict, dict]], **changes) -> pd.DataFrame:
    named = {"datasets": ["ward"], "models": ["a", "b", "fuse"], "triggers": ["rare_value"], "rates": [0.1]}
    named |= {"seeds": [1], "detectors": ["random"]}
    made = Study(**named, model_params={"fuse": {"of": "fusion", "members": ["a", "b"]}})
    return results.table(made, [fact(seed, *row, **changes) for seed, row in enumerate(rows)])


def test_the_table_compares_by_seed_with_the_member_of_the_higher_mean():
    rows = [
        ({"dqn": 0.92, "constant": 0.90, "mean": 0.95}, {"a": 0.80, "b": 0.88}),
        ({"dqn": 0.93, "constant": 0.92, "mean": 0.94}, {"a": 0.90, "b": 0.89}),
        ({"dqn": 0.94, "constant": 0.91, "mean": 0.96}, {"a": 0.85, "b": 0.90}),
    ]
    table = made_table(rows)
    assert list(table.columns) == results.COLUMNS and set(table["better_member"]) == {"b"}
    own = table[table["kind"] == "fusion"].iloc[0]
    differences = np.array([0.92 - 0.88, 0.93 - 0.89, 0.94 - 0.90])
    assert own["difference"] == pytest.approx(differences.mean()) and own["n_seeds"] == 3
    over = np.array([0.02, 0.01, 0.03])
    half = 4.302652729911275 * over.std(ddof=1) / np.sqrt(3)
    assert own[["over_constant", "over_constant_low", "over_constant_high"]].astype(float).tolist() == pytest.approx(
        [over.mean(), over.mean() - half, over.mean() + half]
    )
    member = table[(table["kind"] == "member") & (table["candidate"] == "b")].iloc[0]
    assert member["difference"] == member["difference_low"] == member["difference_high"] == 0
    assert table.loc[table["candidate"] == "constant", "alpha"].tolist() == [0.34]
    (told,) = page.answers(table, "ward")
    assert told.startswith("Fusion fuse (dqn) beats its better member, b: AUROC 0.930 [")
    assert "mean ranks best (0.950)" in told and "A constant α does as well" in told
    assert page.answers(table, "icu") == []
    html = page.section_html(table)
    assert "the model itself (dqn)" in html and "member a" in html and 'id="fusion"' in html


@pytest.mark.parametrize(
    ("dqn", "words"),
    [
        ((0.80, 0.81, 0.79), "does not beat its better member"),
        ((0.90, 0.90, 0.90), "equals its better member"),
        ((0.95, 0.84, 0.93), "is not to be told from its better member"),
        ((0.85,), "is behind, but with one seed not to be told from, its better member"),
    ],
)
def test_the_sentence_says_plainly_what_the_seeds_say(dqn, words):
    rows = [({"dqn": auroc, "constant": 0.90}, {"a": 0.90, "b": 0.5}) for auroc in dqn]
    (told,) = page.answers(made_table(rows), "ward")
    assert words in told
    if words.startswith(("does not", "is behind")):
        assert "of all rules on the same state constant ranks best" in told.lower()


def test_few_patients_are_withheld_and_shares_are_in_tens():
    rows = [({"dqn": 0.91237, "constant": 0.9}, {"a": 0.90, "b": 0.5})] * 2
    assert made_table(rows)["auroc"].iloc[0] == pytest.approx(0.912)
    few = made_table(rows, groups=7)
    assert few[["auroc", "difference", "alpha"]].isna().all().all()
    assert page.answers(few, "ward")[0].startswith("Fusion fuse (dqn): Nothing can be shown")


def test_of_cars_nothing_is_withheld_and_shares_are_exact():
    rows = [({"dqn": 0.91237, "constant": 0.9}, {"a": 0.90, "b": 0.5})] * 2
    table = made_table(rows, groups=7, people=False)
    assert table["auroc"].iloc[0] == 0.91237 and table["alpha"].notna().any()
    assert "its better member, a" in page.answers(table, "ward")[0]


def test_a_study_without_a_fusion_has_the_table_with_its_columns_and_no_section():
    made = Study(
        datasets=["ward"], models=["mlp"], triggers=["rare_value"], rates=[0.1], seeds=[1], detectors=["random"]
    )
    empty = results.table(made, [])
    assert list(empty.columns) == results.COLUMNS and empty.empty and page.section_html(empty) == ""
    assert page.headline(empty, "ward") == []
    assert str(empty["n_seeds"].dtype) == "Int64" and str(empty["auroc"].dtype) == "float64"
