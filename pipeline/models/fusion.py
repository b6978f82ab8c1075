"""Several trained models fused into one: by a rule that is given, by one that is learned, or by a Double-DQN.

Rules `constant` and `dqn` mix two members, p = α(x) · p_first + (1 − α(x)) · p_second, with one α for all samples or
the one of a sample's state. `max` and `mean` learn nothing. `logistic` and `mlp` learn p from the state. The *state* is
all that the members say of a sample (`Model.outputs`) and how sure each is, |2p − 1|, standardised.

Which rule a fusion has is a parameter. All that can be are fitted whatever it is, and `facts` tells how well each of
them, and each member, ranks the same samples: an agent that one number does as well as is not worth its replay buffer.
No action changes which sample comes next, and a label tells the reward of every action at once, so an agent knows less
than logistic regression on the same state and pays for it with noise.

Where it is fitted: on one half of the validation data, and compared on the other, whole groups in either. Members have
learned the training data by heart, some more than others, and a rule fitted there trusts the one that did so most:
measured with an over-fitted member, agent and constant α became that member (config/README.md). The price: a small
sample to learn from, half of the validation samples, which rules with much to learn pay most. What chooses a threshold,
the study's `threshold`, uses all of the validation data; of the half that the rule has seen the fused model is surer
than of new samples, so false alarms and hits on test data may be a little worse than that threshold promised.
Poison reaches a fusion through its members. The validation data is poisoned only where the study says so
(`validation`), so by default a fusion is fitted on samples that the attacker has not touched: part of what it does
to a backdoor is that.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.errors import UserError
from pipeline.models import base
from pipeline.models.shared.dqn import DQNConfig, Layers, best_weights, learn, perceptron, rewards_of
from pipeline.smallcells import shown_of
from pipeline.study import families
from pipeline.study.params import ModelNames, Params

OFFERS = ("representation",)

WEIGHING = ("dqn", "constant")  # rules that mix two members
FARTHEST = 8.0  # standard deviations: a column of the state is cut there, as a member may say anything of odd data
MOST_BYTES = 1 << 16  # of what a state says of its members
_MEMBER = "member."


class FusionConfig(Params):
    """How the rules that are no DQN are fitted."""

    points: int = Field(101, ge=2, le=10_001, description="of constant: values of α tried, evenly from 0 to 1")
    penalty: float = Field(1.0, gt=0, description="of logistic: weight of half the squared coefficients")
    hidden: Layers = Field((16,), min_length=1, description="of mlp: units per layer")
    steps: int = Field(300, ge=1, le=100_000, description="of mlp: steps of AdamW, each on all samples")
    learning_rate: float = Field(0.01, gt=0, description="of mlp")
    weight_decay: float = Field(0.1, ge=0, description="of mlp")


class Parameters(base.ModelParameters):
    # The same as the validator below, for a study is checked against the schema before any job.
    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                {
                    "if": {"properties": {"rule": {"enum": list(WEIGHING)}}},
                    "then": {"properties": {"members": {"maxItems": 2}}},
                },
                {
                    "if": {"properties": {"rule": {"const": "constant"}}, "required": ["rule"]},
                    "else": {"properties": {"alpha": {"type": "null"}}},
                },
            ]
        }
    )

    members: Annotated[ModelNames, Field(min_length=2)] = Field((), description="two or more models of the study")
    rule: Literal["dqn", "max", "mean", "constant", "logistic", "mlp"] = Field("dqn", description="how they are fused")
    alpha: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="of constant: the weight of the first member; null: the one that ranks best"
    )
    dqn: DQNConfig = DQNConfig()
    fusion: FusionConfig = FusionConfig()

    @model_validator(mode="after")
    def _fits_the_rule(self):
        if len(set(self.members)) < len(self.members):
            raise ValueError("members: one is named twice")
        # None at all is for planning to refuse, which knows what models there are.
        if self.rule in WEIGHING and len(self.members) not in (0, 2):
            raise ValueError(f"members: the rule {self.rule} weighs two models, {len(self.members)} given")
        if self.alpha is not None and self.rule != "constant":
            raise ValueError(f"alpha: of no use to the rule {self.rule}, expected rule: constant")
        return self


class Told(NamedTuple):
    """What a rule is fitted on: probabilities [N, M], state [N, H], label and weight [N], where an episode ends [N]."""

    scores: np.ndarray
    state: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    last: np.ndarray


class Model(base.Model):
    """Its state holds those of its members, and what each was built from as JSON; `size` counts their numbers too,
    since nothing can be said without them.
    """

    def __init__(self, parameters: Parameters, n_steps: int, features: tuple[Feature, ...]):
        self._parameters, self._shape = parameters, (n_steps, features)
        self._members: list[base.Model] = []
        self._columns: list[str] = []
        self._scaling = _scaling(0)
        self._learned: dict[str, Tensor] = {}
        self._facts: dict[str, Any] = {}

    def fit(  # type: ignore[override]  # it is made from others, which `base.Model.fit` tells of
        self, train: Cohort, validation: Cohort, settings: base.Settings, seed: int, parents: Mapping[str, base.Model]
    ) -> None:
        """On half of `validation`, see above. `UserError` where its halves cannot both have both labels."""
        given = self._parameters
        self._members = [parents[name] for name in given.members]
        chosen, how = halves(validation)
        part, other = validation.subset(chosen), validation.subset(~chosen)
        scores, columns = self._ask(part.values)
        self._columns = list(columns)
        raw = np.column_stack(list(columns.values()))
        scale = raw.std(axis=0)
        # A spread of rounding errors is none.
        scale[scale <= 1e-9 * np.abs(raw).max(axis=0, initial=0)] = np.inf
        self._scaling = {"centre": torch.from_numpy(raw.mean(axis=0)), "scale": torch.from_numpy(scale)}
        positives = int(part.label.sum())
        odds = (len(part) - positives) / positives if settings.class_weights else 1.0
        ends = np.append(part.group_id[1:] != part.group_id[:-1], True)
        told = Told(scores, self._standardised(columns), part.label, np.where(part.label == 1, odds, 1.0), ends)
        rules = [rule for rule in RULES if rule not in WEIGHING or len(self._members) == 2]
        learned = {rule: RULES[rule].fit(given, told, seed) for rule in rules}
        self._learned = learned[given.rule]
        if given.alpha is not None:
            self._learned = {"alpha": torch.tensor(given.alpha, dtype=torch.float64)}
        self._compare(other, learned, {"halves": how, "n_fitted": len(part), "n_compared": len(other)})

    def probability(self, x: np.ndarray) -> np.ndarray:
        return self._fused(*self._told(x))

    def outputs(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The probability and, where the rule mixes two members, the weight `alpha` of the first."""
        scores, state = self._told(x)
        said = {"probability": self._fused(scores, state)}
        if self._parameters.rule in WEIGHING:
            said["alpha"] = RULES[self._parameters.rule].alpha(self._parameters, self._learned, state)
        return said

    def representation(self, x: np.ndarray) -> np.ndarray:
        """The state: all that the members say, standardised, [N, H] float32."""
        return self._told(x)[1].astype(np.float32)

    def facts(self) -> dict[str, Any]:
        """How every rule and every member ranks the half of the validation data that no rule was fitted on.

        `auroc` is that of this model, `rules` and `members` of all; `constant` is the best constant α whatever `alpha`
        is. `best_rule` and `better_member` are the highest of their kind, of equals the first. `alpha` has the constant
        and the mean and spread of the agent's. `pairs` and `groups` (of each label) say how much they rest on.
        """
        return self._facts

    def unseen(self, cohort: Cohort) -> list[str]:
        return list(dict.fromkeys(name for member in self._members for name in member.unseen(cohort)))

    def state(self) -> dict[str, Tensor]:
        made_of = {"members": [member.built_from for member in self._members], "columns": self._columns}
        text = json.dumps(made_of, sort_keys=True).encode()
        return {
            "made_of": torch.frombuffer(bytearray(text), dtype=torch.uint8),
            **self._scaling,
            **{f"rule.{name}": tensor for name, tensor in self._learned.items()},
            **{
                f"{_MEMBER}{position}.{name}": tensor
                for position, member in enumerate(self._members)
                for name, tensor in member.state().items()
            },
        }

    def load(self, state: dict[str, Any]) -> None:
        own = {name: tensor for name, tensor in state.items() if not str(name).startswith(_MEMBER)}
        built_from, columns = _read(own.get("made_of"))
        if len(built_from) != len(self._parameters.members):
            raise ValueError(f"made_of: {len(built_from)} members, expected {len(self._parameters.members)}")
        blank = RULES[self._parameters.rule].blank(self._parameters, len(columns))
        expected = _scaling(len(columns)) | {f"rule.{name}": tensor for name, tensor in blank.items()}
        base.check_state(own, expected, others=("made_of",))
        members = []
        for position, (name, parameters) in enumerate(built_from):
            prefix = f"{_MEMBER}{position}."
            theirs = {key.removeprefix(prefix): state[key] for key in state if str(key).startswith(prefix)}
            members.append(self._rebuilt(name, parameters, theirs))
        taken = len(own) + sum(len(member.state()) for member in members)
        if taken != len(state):
            raise ValueError(f"it holds {len(state)} tensors, expected {taken}: its own and those of its members")
        self._members, self._columns = members, columns
        self._scaling = {name: own[name] for name in self._scaling}
        self._learned = {name: own[f"rule.{name}"] for name in blank}

    @property
    def size(self) -> int:
        return sum(tensor.numel() for tensor in self._learned.values()) + sum(member.size for member in self._members)

    def to(self, device: torch.device) -> "Model":
        """Its members compute there; what is left is small."""
        self._members = [member.to(device) for member in self._members]
        return self

    def _rebuilt(self, name: str, parameters: dict[str, Any], state: dict[str, Any]) -> base.Model:
        """A member with its state; ValueError in one sentence for what is none."""
        member = parameters.get("of", name)
        if member not in families.names("models"):
            raise ValueError(f"made_of: {str(member)[:80]!r} is no model of this project")
        needed = 0
        try:
            # Takes no memory, whatever sizes the parameters ask for. What looks at numbers while it is built, and what
            # has none before it is fitted, is of no size that they could ask for.
            with torch.device("meta"), suppress(NotImplementedError, AttributeError):
                needed = base.build(name, parameters, *self._shape).size
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise ValueError(f"made_of: {name}: {key}: {first['msg'].removeprefix('Value error, ')}") from None
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"made_of: {name}: {' '.join(str(error).split())[:200]}") from None
        if needed > sum(tensor.numel() for tensor in state.values() if isinstance(tensor, Tensor)):
            raise ValueError(f"made_of: {name} would have {needed:,} numbers, more than the state holds of it")
        built = base.build(name, parameters, *self._shape)
        try:
            built.load(state)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}: {str(error)[:300]}") from None
        return built

    def _ask(self, x: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The members' probabilities [N, M], and the columns of the state as they say them, [N] each.

        `ArithmeticError` where one is not finite: a member that says so has failed.
        """
        columns: dict[str, np.ndarray] = {}
        scores = []
        for name, member in zip(self._parameters.members, self._members, strict=True):
            said = member.outputs(x)
            scores.append(said["probability"])
            said = said | {"confidence": np.abs(2 * said["probability"] - 1)}
            columns |= {f"{name}:{key}": np.asarray(said[key], np.float64) for key in sorted(said)}
        for key, column in columns.items():
            if not np.isfinite(column).all():
                told = shown_of(int((~np.isfinite(column)).sum()), len(column))
                raise ArithmeticError(f"{key}: {told} of {len(column):,} are not finite")
        return np.column_stack(scores), columns

    def _told(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, columns = self._ask(x)
        return scores, self._standardised(columns)

    def _standardised(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        """[N, H] float64, within ± `FARTHEST`; what was the same in all samples it was fitted on is 0."""
        if list(columns) != self._columns:
            raise ValueError(f"the members say {', '.join(columns)}; it was fitted on {', '.join(self._columns)}")
        raw = np.column_stack(list(columns.values()))
        centre, scale = (self._scaling[name].numpy() for name in ("centre", "scale"))
        return np.clip((raw - centre) / scale, -FARTHEST, FARTHEST)

    def _fused(self, scores: np.ndarray, state: np.ndarray) -> np.ndarray:
        return RULES[self._parameters.rule].fuse(self._parameters, self._learned, scores, state)

    def _compare(self, data: Cohort, learned: dict[str, dict[str, Tensor]], facts: dict[str, Any]) -> None:
        given, label = self._parameters, data.label
        scores, state = self._told(data.values)
        rules = {rule: auroc(label, RULES[rule].fuse(given, learned[rule], scores, state)) for rule in learned}
        members = {name: auroc(label, score) for name, score in zip(given.members, scores.T, strict=True)}
        own = auroc(label, self._fused(scores, state))
        alpha = {}
        if "dqn" in learned:
            chosen = RULES["dqn"].alpha(given, learned["dqn"], state)
            alpha = {
                "constant": learned["constant"]["alpha"].item(),
                "dqn_mean": float(chosen.mean()),
                "dqn_spread": float(chosen.std()),
            }
        better = max(members, key=members.__getitem__)
        self._facts = facts | {
            "rule": given.rule,
            "auroc": own,
            "rules": rules,
            "members": members,
            "alpha": alpha,
            "best_rule": max(rules, key=rules.__getitem__),
            "better_member": better,
            "over_better_member": own - members[better],
            "pairs": int(label.sum()) * int((label == 0).sum()),
            "groups": {f"label_{value}": len(np.unique(data.group_id[label == value])) for value in (0, 1)},
            "own_size": sum(tensor.numel() for tensor in self._learned.values()),
        }


def halves(cohort: Cohort) -> tuple[np.ndarray, str]:
    """Which samples are in the half that a rule is fitted on, [N] bool, and how they were told apart.

    "groups": whole groups are dealt in turn, those with most samples of label 1 first, then the large ones, so nothing
    depends on a seed. "time": where groups are too few for both halves to have both labels, each group is cut in the
    middle, for samples of a group stand in the order of time; then both halves know all groups, and where windows
    overlap, the one at the cut shares frames with the next. `UserError` where that does not help either.
    """
    groups, position, size = np.unique(cohort.group_id, return_inverse=True, return_counts=True)
    positives = np.bincount(position, weights=cohort.label, minlength=len(groups))
    order = np.lexsort((-size, -positives))
    turn = np.empty(len(groups), int)
    turn[order] = np.arange(len(groups))
    by_group = np.isin(turn % 4, (0, 3))[position]
    rows = np.argsort(position, kind="stable")
    place = np.empty(len(rows), int)
    place[rows] = np.arange(len(rows)) - np.repeat(np.cumsum(size) - size, size)
    by_time = 2 * place < size[position]
    for chosen, how in ((by_group, "groups"), (by_time, "time")):
        if all(len(np.unique(cohort.label[half])) == 2 for half in (chosen, ~chosen)):
            return chosen, how
    told = [shown_of(count, len(cohort), cohort.people) for count in (len(cohort), int(cohort.label.sum()))]
    raise UserError(
        f"{cohort.name}: a fusion is fitted on half of the validation data and compared on the other; expected both "
        f"labels in each, found {told[0]} samples, {told[1]} of them with label 1"
    )


def auroc(label: np.ndarray, score: np.ndarray) -> float:
    """P(score of a 1 > score of a 0), ties count half, from mid-ranks (Mann & Whitney 1947); both labels are there."""
    from scipy.stats import rankdata

    positive = label == 1
    n = int(positive.sum())
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * (len(label) - n)))


def mixed(scores: np.ndarray, alpha: np.ndarray | float) -> np.ndarray:
    """α · first + (1 − α) · second of `scores` [N, 2]; exactly the first for α = 1 and the second for α = 0."""
    return alpha * scores[:, 0] + (1 - alpha) * scores[:, 1]


class _Rule:
    """A rule: `fit` gives what it has learned, by name; `blank` the same as zeros; `fuse` takes [N, M] and [N, H]."""

    @staticmethod
    def fit(given: Parameters, told: Told, seed: int) -> dict[str, Tensor]:
        return {}

    @staticmethod
    def blank(given: Parameters, n_columns: int) -> dict[str, Tensor]:
        return {}

    @classmethod
    def fuse(cls, given: Parameters, learned: dict[str, Tensor], scores: np.ndarray, state: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    @staticmethod
    def alpha(given: Parameters, learned: dict[str, Tensor], state: np.ndarray) -> np.ndarray:
        """Of a rule in `WEIGHING`, the weight of the first member, [N]."""
        raise NotImplementedError


class _Max(_Rule):
    @staticmethod
    def fuse(given: Parameters, learned: dict[str, Tensor], scores: np.ndarray, state: np.ndarray) -> np.ndarray:
        return scores.max(axis=1)


class _Mean(_Rule):
    @staticmethod
    def fuse(given: Parameters, learned: dict[str, Tensor], scores: np.ndarray, state: np.ndarray) -> np.ndarray:
        return scores.mean(axis=1)


class _Weighing(_Rule):
    @classmethod
    def fuse(cls, given: Parameters, learned: dict[str, Tensor], scores: np.ndarray, state: np.ndarray) -> np.ndarray:
        return mixed(scores, cls.alpha(given, learned, state))


class _Constant(_Weighing):
    """The α of a grid that has the highest AUROC; of equals the one nearest to 0.5, of these the smaller one."""

    @staticmethod
    def fit(given: Parameters, told: Told, seed: int) -> dict[str, Tensor]:
        grid = np.linspace(0, 1, given.fusion.points)
        quality = np.array([auroc(told.label, mixed(told.scores, alpha)) for alpha in grid])
        best = grid[quality == quality.max()]
        alpha = best[np.argmin(np.round(np.abs(best - 0.5), 9))]
        return {"alpha": torch.tensor(alpha, dtype=torch.float64)}

    @staticmethod
    def blank(given: Parameters, n_columns: int) -> dict[str, Tensor]:
        return {"alpha": torch.zeros((), dtype=torch.float64)}

    @staticmethod
    def alpha(given: Parameters, learned: dict[str, Tensor], state: np.ndarray) -> np.ndarray:
        return np.full(len(state), learned["alpha"].item())


class _Agent(_Weighing):
    """The weight that a Double-DQN values most in the state (models/shared/dqn.py)."""

    @staticmethod
    def fit(given: Parameters, told: Told, seed: int) -> dict[str, Tensor]:
        config = given.dqn
        fused = np.column_stack([mixed(told.scores, alpha) for alpha in config.weights])
        rewards = rewards_of(fused, told.label, config) * told.weight[:, None]
        state, paid, last = map(torch.from_numpy, (told.state, rewards, told.last))
        network = learn(state, paid, last, config, seed)
        return network.state_dict()

    @staticmethod
    def blank(given: Parameters, n_columns: int) -> dict[str, Tensor]:
        return _blank_layers((n_columns, *given.dqn.hidden, len(given.dqn.weights)))

    @staticmethod
    def alpha(given: Parameters, learned: dict[str, Tensor], state: np.ndarray) -> np.ndarray:
        return best_weights(_through(learned, state), given.dqn)


class _Logistic(_Rule):
    @staticmethod
    def fit(given: Parameters, told: Told, seed: int) -> dict[str, Tensor]:
        from sklearn.linear_model import LogisticRegression

        regression = LogisticRegression(C=1 / given.fusion.penalty, max_iter=10_000, tol=1e-6)
        regression.fit(told.state, told.label, told.weight)
        weight, bias = (torch.from_numpy(part.copy()) for part in (regression.coef_, regression.intercept_))
        return {"0.weight": weight, "0.bias": bias}

    @staticmethod
    def blank(given: Parameters, n_columns: int) -> dict[str, Tensor]:
        return _blank_layers((n_columns, 1))

    @staticmethod
    def fuse(given: Parameters, learned: dict[str, Tensor], scores: np.ndarray, state: np.ndarray) -> np.ndarray:
        return torch.sigmoid(_through(learned, state))[:, 0].numpy()


class _Perceptron(_Logistic):
    @staticmethod
    def fit(given: Parameters, told: Told, seed: int) -> dict[str, Tensor]:
        config = given.fusion
        network = perceptron((told.state.shape[1], *config.hidden, 1), seed, "fusion mlp")
        optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        state, label, weight = (torch.from_numpy(part).double() for part in (told.state, told.label, told.weight))
        for _ in range(config.steps):
            loss = nn.functional.binary_cross_entropy_with_logits(network(state)[:, 0], label, weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return network.state_dict()

    @staticmethod
    def blank(given: Parameters, n_columns: int) -> dict[str, Tensor]:
        return _blank_layers((n_columns, *given.fusion.hidden, 1))


RULES: dict[str, type[_Rule]] = {
    "dqn": _Agent,
    "max": _Max,
    "mean": _Mean,
    "constant": _Constant,
    "logistic": _Logistic,
    "mlp": _Perceptron,
}


def _through(learned: dict[str, Tensor], state: np.ndarray) -> Tensor:
    """The output of the layers in `learned`, named as those of `perceptron`, [N, H] → [N, last]."""
    x, n_layers = torch.from_numpy(state), len(learned) // 2
    for layer in range(n_layers):
        x = x @ learned[f"{2 * layer}.weight"].T + learned[f"{2 * layer}.bias"]
        x = x.relu() if layer + 1 < n_layers else x
    return x


def _blank_layers(sizes: tuple[int, ...]) -> dict[str, Tensor]:
    blank = {}
    for layer, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
        blank[f"{2 * layer}.weight"] = torch.zeros(outputs, inputs, dtype=torch.float64)
        blank[f"{2 * layer}.bias"] = torch.zeros(outputs, dtype=torch.float64)
    return blank


def _scaling(n_columns: int) -> dict[str, Tensor]:
    return {name: torch.zeros(n_columns, dtype=torch.float64) for name in ("centre", "scale")}


def _read(made_of: Any) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """What each member was built from, and the columns of the state; ValueError for anything else."""
    if not isinstance(made_of, Tensor) or made_of.dtype != torch.uint8 or made_of.ndim != 1:
        raise ValueError("made_of: expected the bytes of a JSON text as a vector of uint8")
    if len(made_of) > MOST_BYTES:
        raise ValueError(f"made_of: {len(made_of):,} bytes, expected at most {MOST_BYTES:,}")
    try:
        content = json.loads(made_of.numpy().tobytes().decode())
        members, columns = content["members"], content["columns"]
        sound = set(content) == {"members", "columns"} and all(isinstance(name, str) for name in columns)
        sound &= isinstance(members, list) and isinstance(columns, list)
        sound &= all(isinstance(name, str) and isinstance(given, dict) for name, given in members)
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise ValueError("made_of: expected JSON of `members`, each a name and parameters, and of `columns`")
    return [(name, given) for name, given in members], columns
