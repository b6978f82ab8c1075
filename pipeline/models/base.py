"""What every model is: clinical values in, a risk out, and a state of nothing but tensors.

A model module says in `OFFERS` which of "representation", "attribution" and "saliency" it has beside the probability
(() = none of them), and "reconstruction" where its `outputs` tell how well it makes a sample again. It has `class
Parameters` and one of

    class Network(nn.Module)     with `Parameters(NetworkParameters)`; all networks share the linear layer to the logit
                                 (`Classifier`) and the training loop, and nearly all the preprocessor
        __init__(parameters, n_steps, n_columns)      sets `width`
        forward(x) -> [B, width]   the penultimate layer, from x [B, T, planes · C]: C columns of values and, unless
                                   the parameter `mask` is none, beside them C columns of the mask
        These have `Parameters(SeriesParameters)`. A network that is shown samples in another way has, too, a class
        View(features, n_steps): nn.Module     in place of the preprocessor, with what the `Preprocessor` has: `fit`,
                                 `forward` (samples [B, T, D] → [B, …], a row per sample), `baseline`, `onto_cells`,
                                 `unseen`, and all that was fitted in its buffers
        and its own signatures: Network(parameters, view), and its forward of what the view makes
    class Model(Model)           with `Parameters(ModelParameters)`; anything else, which brings its own `fit`
        __init__(parameters, n_steps, features)

A module that can read some cohorts only says so in `READS`: "frames" are windows of CAN frames (cohorts/frames.py).

A `Model` may be made from other models of the study: it says so with parameters of the type `ModelName` or
`ModelNames`, also in parameters that are `Params` themselves, and its `fit` is given them as `parents`, trained on the
same data with the same seed. Nothing but `fit` sees them, so what is needed of them later has to be in its own state.
A network has `distill` and `curriculum`, which the loop knows. A `Model` with `distill: DistillConfig | None` among its
parameters, or another kind of `Teaching`, is a student too: where the `data` of that are clean, `fit` is given clean
samples (training and validation), and `distillation.Lesson` makes of `parents` what the teacher says of them.

No network normalises over the batch: a sample's logit never depends on its batch-mates.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.preprocessing import Preprocessor
from pipeline.models.shared import gradients
from pipeline.models.shared.curriculum import CurriculumConfig
from pipeline.models.shared.distillation import DistillConfig
from pipeline.models.shared.dormant import DormantConfig
from pipeline.study import families
from pipeline.study.params import Params

BATCH = 1024


class ModelParameters(Params):
    """What every model has beside its own parameters: nothing yet."""


class NetworkParameters(ModelParameters):
    """What every network has beside its own parameters: its pace, and from which other models it learns."""

    learning_rate_factor: float = Field(
        1.0, gt=0, description="times training.learning_rate: not all learn at one pace"
    )
    distill: DistillConfig | None = Field(None, description="learn from what another model says, beside the labels")
    curriculum: CurriculumConfig | None = Field(
        None, description="which samples of label 0 are seen in which epoch, by the score of another model"
    )
    dormant: DormantConfig | None = Field(
        None,
        description="an attack by its maker: trained on clean data, it hides a backdoor that wakes in its students",
    )


class SeriesParameters(NetworkParameters):
    """What every network behind the preprocessor has too: how it is shown values and what is missing."""

    mask: Literal["missing", "measured", "none"] = Field(
        "missing", description="what stands beside the values: 1 where missing, 1 where measured, or nothing"
    )
    imputation: Literal["last", "mean"] = Field(
        "last", description="what stands for a missing value: the last one measured before, or the training mean"
    )
    scaler: Literal["standard", "robust"] = Field(
        "standard", description="centre and unit of a number: mean and standard deviation, or median and quartiles"
    )

    @property
    def planes(self) -> int:
        """How many numbers a network is given per column and step: the value, and its mask if there is one."""
        return 1 if self.mask == "none" else 2


class Settings(Protocol):
    """What of the study's `training` (training/settings.py) a model may ask."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def schedule(self) -> str: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def class_weights(self) -> bool: ...
    def model_copy(self, *, update: Mapping[str, Any]) -> Self: ...


class View(Protocol):
    """How a network is shown samples: a `Preprocessor`, or a module of the same methods."""

    def fit(self, values: np.ndarray) -> Any: ...
    def __call__(self, x: Tensor) -> Tensor: ...
    def baseline(self, encoded: Tensor) -> Tensor: ...
    def onto_cells(self, columns: Tensor, x: np.ndarray) -> np.ndarray: ...
    def unseen(self, cohort: Cohort) -> list[str]: ...


class Model(ABC):
    """The contract. `x` is always [N, T, D] in clinical units, NaN = not measured; nothing here changes it.

    What a model does not offer (`OFFERS` of its module) is not called. `built_from` are the member and the parameters
    that `build` was given, so that whoever holds a model can build its like.
    """

    built_from: tuple[str, dict[str, Any]]

    def fit(self, train: Cohort, validation: Cohort, settings: Settings, seed: int) -> None:
        """Learn from samples as the victim sees them; networks have the training loop instead.

        All randomness comes from `seed`. Of `settings`, the study's `training`, a model takes what means something to
        it: `class_weights`, say. One whose parameters name other models takes a fifth argument, `parents: Mapping[str,
        Model]`: these by name, trained. It leaves them as they are.
        """
        raise NotImplementedError

    @abstractmethod
    def probability(self, x: np.ndarray) -> np.ndarray:
        """p(label = 1), [N] float64."""

    def representation(self, x: np.ndarray) -> np.ndarray:
        """What the model makes of a sample before it adds up its answer, [N, H] float32."""
        raise NotImplementedError

    def attribution(self, x: np.ndarray, steps: int) -> tuple[np.ndarray, float | None]:
        """How much each cell matters for the logit, [N, T, D] float64 ≥ 0.

        Also how far the signed attributions are from adding up, where they are an approximation in `steps` points;
        None where they are exact.
        """
        raise NotImplementedError

    def saliency(self, x: np.ndarray) -> np.ndarray:
        """How much each feature matters, [N, D] float32 ≥ 0."""
        raise NotImplementedError

    def outputs(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """All that the model says of each sample, by name, each [N] float64: its probability and what else it has."""
        return {"probability": self.probability(x)}

    def facts(self) -> dict[str, Any]:
        """What is to be known of how it was fitted, for run_metadata.json: numbers by name, no samples."""
        return {}

    def unseen(self, cohort: Cohort) -> list[str]:
        """What occurs in `cohort` and never did in training, and so counts as missing: ferritin, sex = male."""
        return []

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All that was learned, as tensors on the CPU: a file of it loads wherever it was made."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave; ValueError, in one sentence, where it is not the state of such a model."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many numbers were learned."""

    def to(self, device: torch.device) -> "Model":
        """This model, computing on `device` if it can."""
        return self


def check_state(state: dict[str, Any], expected: dict[str, Tensor], others: tuple[str, ...] = ()) -> None:
    """ValueError where `state` has not the names of `expected` and `others`, or a tensor of `expected` is of another
    kind or shape.
    """
    if set(state) != {*expected, *others}:
        raise ValueError(
            f"it holds {', '.join(map(str, sorted(state)[:4]))}; expected {', '.join([*expected, *others])}"
        )
    for name, tensor in expected.items():
        given = state[name]
        if not isinstance(given, Tensor) or (given.dtype, given.shape) != (tensor.dtype, tensor.shape):
            raise ValueError(f"{name}: expected {tensor.dtype} of shape {tuple(tensor.shape)}")


class Classifier(nn.Module, Model):
    """A network behind the preprocessor, or its own view, and a linear layer to the logit of label 1.

    Its state is its state_dict, the fitted preprocessor in it.
    """

    preprocessor: View
    network: Any  # a module with a `width`

    def __init__(self, preprocessor: View, network: Any):
        super().__init__()
        self.preprocessor = preprocessor
        self.network = network
        self.head = nn.Linear(network.width, 1)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and with them everything that is computed."""
        return self.head.weight.device

    def forward(self, x: Tensor) -> Tensor:
        """Preprocessed samples [B, T, planes · C], or what its view makes, → logits [B]."""
        return self.head(self.network(x)).squeeze(-1)

    @torch.no_grad()
    def encode(self, x: np.ndarray) -> Tensor:
        """Samples [N, T, D] in clinical units → what the network is given, [N, T, planes · C] or of its view."""
        samples = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).to(self.device)
        return torch.cat([self.preprocessor(batch) for batch in samples.split(BATCH)])

    @torch.no_grad()
    def probability(self, x: np.ndarray) -> np.ndarray:
        self.eval()
        return _batched(x, lambda batch: torch.sigmoid(self(self.encode(batch)).double()))

    @torch.no_grad()
    def representation(self, x: np.ndarray) -> np.ndarray:
        """The activations before the last layer, [N, width] float32."""
        self.eval()
        return _batched(x, lambda batch: self.network(self.encode(batch)))

    def attribution(self, x: np.ndarray, steps: int) -> tuple[np.ndarray, float]:
        return gradients.integrated_gradients(self, x, steps)

    def saliency(self, x: np.ndarray) -> np.ndarray:
        return gradients.saliency_profiles(self, x)

    def unseen(self, cohort: Cohort) -> list[str]:
        return self.preprocessor.unseen(cohort)

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.cpu() for name, tensor in self.state_dict().items()}

    def load(self, state: dict[str, Any]) -> None:
        try:
            self.load_state_dict(state)
        except (RuntimeError, AttributeError, TypeError) as error:
            raise ValueError(" ".join(str(error).split())[:300]) from None

    @property
    def size(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def _batched(x: np.ndarray, function) -> np.ndarray:
    return torch.cat([function(x[start : start + BATCH]) for start in range(0, len(x), BATCH)]).cpu().numpy()


def build(name: str, parameters: dict[str, Any], n_steps: int, features: tuple[Feature, ...]) -> Model:
    """An untrained model; the weights of a network come from torch's global generator, which the caller seeds."""
    module, parsed = families.configured("models", name, parameters)
    if hasattr(module, "Model"):
        model = module.Model(parsed, n_steps, features)
    else:
        if hasattr(module, "View"):
            view = module.View(features, n_steps)
            network = module.Network(parsed, view)
        else:
            view = Preprocessor(features, parsed.mask, parsed.imputation, parsed.scaler)
            network = module.Network(parsed, n_steps, view.n_columns)
        model = Classifier(view, network)
    model.built_from = (name, parameters)
    return model


class Dropout(nn.Dropout):
    """`nn.Dropout` drawn from uniform numbers, which on a CPU take a third of the time of its Bernoulli draws."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        return x * torch.rand_like(x).ge_(self.p).div_(1 - self.p)


class FeatureTokens(nn.Module):
    """One token per column: a linear map of its course over time and its mask, plus the column's embedding.

    The feature tokenizer of FT-Transformer (Gorishniy et al. 2021, arXiv 2106.11959, section 3.3), with T values
    and T mask bits per feature in place of one value. [B, T, planes · C] → [B, C, width].
    """

    def __init__(self, n_steps: int, n_columns: int, width: int, planes: int = 2):
        super().__init__()
        self.planes = planes
        bound = (planes * n_steps) ** -0.5
        self.weight = nn.Parameter(torch.empty(n_columns, planes * n_steps, width).uniform_(-bound, bound))
        self.embedding = nn.Parameter(torch.empty(n_columns, width).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        course = x.unflatten(2, (self.planes, -1)).permute(0, 3, 2, 1).flatten(2)
        return torch.einsum("bct,ctw->bcw", course, self.weight) + self.embedding


class Sequence(nn.Module):
    """The input of a recurrent or convolutional network, [B, L, width].

    A series is read step by step as it is (L = T); a plain table (T = 1) is read feature by feature (L = C) as
    tokens, since a single step is no sequence.
    """

    TOKEN_WIDTH = 16

    def __init__(self, n_steps: int, n_columns: int, planes: int = 2):
        super().__init__()
        self.tokens = FeatureTokens(1, n_columns, self.TOKEN_WIDTH, planes) if n_steps == 1 else None
        self.width = self.TOKEN_WIDTH if n_steps == 1 else planes * n_columns
        self.length = n_columns if n_steps == 1 else n_steps

    def forward(self, x: Tensor) -> Tensor:
        return x if self.tokens is None else self.tokens(x)
