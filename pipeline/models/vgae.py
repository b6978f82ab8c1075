"""Variational graph auto-encoder (Kipf & Welling 2016, arXiv 1611.07308) on windows of CAN frames as graphs.

It learns what graphs of windows with label 0 are like, as the victim sees them, and calls the rest anomalies. No other
label is used: poison reaches it where attack windows are relabelled 0 (target 0), and no other way.

Its probability is a monotone map of the anomaly score, not calibrated: a share of no windows. So its Brier score and
calibration error mean little, its ranking and its decisions at a threshold all.

It can be a teacher of any model: its probabilities, as soft labels, tell how anomalous a window is. As a student it
learns a representation from any teacher that has one, and how well windows can be made again from another vgae. Soft
labels mean nothing to it: it has no label to weigh them against; its probability is scaled when its training is over;
on windows of label 0 those of a classifier all say the same, and those of a vgae are made of the errors it can learn.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.errors import UserError
from pipeline.models import base
from pipeline.models.shared.distillation import Teaching, standardised
from pipeline.models.shared.graphnets import EncoderParameters, GraphEncoder, mean_of
from pipeline.models.shared.graphs import Graphs, GraphView
from pipeline.models.shared.optimizer import AdamW, learning_rate
from pipeline.seeding import integer_seed
from pipeline.study.params import Params

OFFERS = ("representation", "reconstruction")
READS = "frames"

ERRORS = ("node_error", "neighbour_error", "id_error")
PARTS = (*ERRORS, "kl")


class Weights(Params):
    """What each part counts."""

    node_error: float = Field(1.0, ge=0, description="of the bytes, counts and positions of nodes")
    neighbour_error: float = Field(1.0, ge=0, description="of which ids follow each id, and which it follows")
    id_error: float = Field(1.0, ge=0, description="of the ids of nodes")
    kl: float = Field(0.1, ge=0, description="divergence of the latent normals from the standard one")

    def of(self, parts: Tensor) -> Tensor:
        """[N, parts] → their weighted sum, [N]."""
        return parts @ torch.tensor([getattr(self, name) for name in PARTS], dtype=parts.dtype, device=parts.device)


class VGAEDistill(Teaching):
    """From which model of the study, and how, a vgae learns, beside its own loss."""

    reconstruction: float = Field(
        0.0, ge=0, description="weight of the distance to the errors of the teacher, a vgae too, window by window"
    )


class Parameters(base.ModelParameters, EncoderParameters):
    latent: int = Field(16, ge=1, description="latent numbers per node")
    learning_rate_factor: float = Field(3.0, gt=0, description="times training.learning_rate")
    loss: Weights = Field(Weights(), description="weights of the parts of the training loss, in nats per node")
    score: Weights = Field(
        Weights(), description="weights of the parts of the anomaly score, each standardised on the training windows"
    )
    pooling: Literal["mean", "max"] = Field("max", description="of the errors of its nodes, which is a window's")
    false_alarms: float = Field(
        0.01, gt=0, lt=1, description="share of the validation windows of label 0 whose probability is 0.5 or more"
    )
    distill: VGAEDistill | None = Field(None, description="learn from another model too, on the windows of label 0")


VGAEConfig = Parameters


class AutoEncoder(nn.Module):
    """Graphs → latent normals per node → their columns, neighbours and ids again.

    The decoders are networks of one hidden layer that read the latent numbers of a node alone. That of the neighbours
    says for each id, known or not, whether it follows and whether it is followed: unlike the inner product of the paper
    it knows directions, and needs no pairs of nodes.
    """

    def __init__(self, given: Parameters, view: GraphView):
        super().__init__()
        self.encoder = GraphEncoder(given, view)
        self.dropout = base.Dropout(given.dropout)
        self.latent = nn.Linear(given.width, 2 * given.latent)
        self.n_ids = view.n_ids + 1
        sizes = {"node": view.node_columns - 1, "neighbours": 2 * self.n_ids, "id": self.n_ids}
        self.decoders = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(given.latent, given.width), nn.ReLU(), nn.Linear(given.width, size))
                for name, size in sizes.items()
            }
        )

    def forward(self, graphs: Graphs) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the latent normals, [n, latent] each."""
        mean, log_deviation = self.latent(self.dropout(self.encoder(graphs)[-1])).chunk(2, dim=1)
        return mean, log_deviation.clamp(-10, 10)

    def parts(self, graphs: Graphs, latent: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
        """The errors of each node where `latent` [n, latent] is what its decoders read, and its KL: [n, PARTS].

        `node_error` is half the mean squared error of its columns, `neighbour_error` the binary cross-entropy added up
        over ids, `id_error` the cross-entropy, `kl` the divergence, equation 2 of Kipf & Welling with one term each.
        """
        columns = graphs.node[:, 1:]
        node_error = (self.decoders["node"](latent) - columns).square().mean(dim=1) / 2
        neighbours = self.decoders["neighbours"](latent)
        neighbour_error = functional.binary_cross_entropy_with_logits(
            neighbours, self._neighbours(graphs), reduction="none"
        ).sum(dim=1)
        id_error = functional.cross_entropy(self.decoders["id"](latent), self._ids(graphs), reduction="none")
        kl = (mean.square() + (2 * log_deviation).exp() - 1 - 2 * log_deviation).sum(dim=1) / 2
        return torch.stack([node_error, neighbour_error, id_error, kl], dim=1)

    def _ids(self, graphs: Graphs) -> Tensor:
        """[n] the id of each node, the last where it is not known: no node of training is that, hence a large error."""
        return torch.where(graphs.node[:, 0] > 0, graphs.id, self.n_ids - 1)

    def _neighbours(self, graphs: Graphs) -> Tensor:
        """[n, 2 · ids] 1 for each id that follows the node, and behind for each that it follows."""
        ids, (source, target) = self._ids(graphs), graphs.edge_index
        near = torch.zeros(len(ids), 2 * self.n_ids, device=ids.device)
        near[source, ids[target]] = 1
        near[target, self.n_ids + ids[source]] = 1
        return near


class Model(base.Model):
    """The anomaly score is Σ weight · (part − mean) / deviation, mean and deviation over the training windows of
    label 0; a part of a window is that of its nodes, pooled.

    Its probability is ½ + arctan(z) / π, where z is 0 at the score that the share `false_alarms` of the validation
    windows of label 0 reach, and its unit their interquartile range: however far a score is, a larger one is told from
    it, which a logistic function rounds to 1.

    What is random is the training alone: scores read the latent means.

    The loss of a student is its own + latent · hint + reconstruction · mean ((error − teacher's) / deviation)². The
    hint is that of `distillation`, on the `representation`. The second mean is over windows and `ERRORS`, those of the
    latent means as in `outputs`, pooled as the teacher pools its own; the deviation is the teacher's over the training
    windows of label 0. Its `kl` is not matched: it counts latent numbers, of which a small student has fewer.
    """

    def __init__(self, parameters: Parameters, n_steps: int, features: tuple[Feature, ...]):
        self._parameters = parameters
        self._view = GraphView(features, n_steps)
        self._network = AutoEncoder(parameters, self._view)
        self._scale = {
            "part_mean": torch.zeros(len(PARTS), dtype=torch.float64),
            "part_deviation": torch.ones(len(PARTS), dtype=torch.float64),
            "score_at_half": torch.zeros((), dtype=torch.float64),
            "score_unit": torch.ones((), dtype=torch.float64),
        }
        self._losses: list[float] = []

    def fit(
        self,
        train: Cohort,
        validation: Cohort,
        settings: base.Settings,
        seed: int,
        parents: Mapping[str, base.Model] | None = None,
    ) -> None:
        """On the windows of label 0 for all epochs, with the study's pace, batches and weight decay.

        `parents` holds the teacher of `distill`.
        """
        normal, held_out = (part.values[part.label == 0] for part in (train, validation))
        for values, name in ((normal, "training"), (held_out, "validation")):
            if not len(values):
                raise UserError(f"vgae: the {name} data of {train.name} have no window of label 0, expected some")
        self._view.fit(normal)
        encoded = self._encode(normal)
        torch.manual_seed(integer_seed(seed, "hint"))
        lesson = self._lesson(parents or {}, normal)
        # Learned beside the model, and no part of it: the map to the teacher's representation.
        beside = lesson.hint.parameters() if lesson and lesson.hint else []
        optimizer = AdamW([*self._network.parameters(), *beside], settings.weight_decay)
        shuffle = torch.Generator().manual_seed(integer_seed(seed, "shuffle"))
        torch.manual_seed(integer_seed(seed, "dropout"))
        pace = settings.learning_rate * self._parameters.learning_rate_factor
        settings = settings.model_copy(update={"learning_rate": pace})
        self._network.train()
        self._losses = []
        for epoch in range(settings.epochs):
            batches = torch.randperm(len(encoded), generator=shuffle).to(encoded.device).split(settings.batch_size)
            total = torch.zeros((), dtype=torch.float64, device=encoded.device)
            for number, batch in enumerate(batches):
                loss = self._loss(self._view.graphs(encoded.index_select(0, batch)), batch, lesson)
                rate = learning_rate(settings, epoch + number / len(batches))
                optimizer.step(torch.autograd.grad(loss, optimizer.parameters), rate)
                total.add_(loss.detach(), alpha=len(batch))
            self._losses.append(total.item() / len(encoded))
            if not np.isfinite(self._losses[-1]):
                raise UserError(
                    f"training diverged: the loss is {self._losses[-1]} in epoch {epoch + 1}; "
                    "try a smaller training.learning_rate"
                )
        parts = self._over_windows(normal)["parts"]
        self._scale["part_mean"] = torch.from_numpy(parts.mean(axis=0))
        self._scale["part_deviation"] = torch.from_numpy(np.maximum(parts.std(axis=0), 1e-12))
        score = self._score(self._over_windows(held_out)["parts"])
        first, third, half = np.quantile(score, [0.25, 0.75, 1 - self._parameters.false_alarms])
        self._scale["score_at_half"] = torch.tensor(half)
        self._scale["score_unit"] = torch.tensor(max(third - first, 1e-12))

    def probability(self, x: np.ndarray) -> np.ndarray:
        return self._probability(self._score(self._over_windows(x)["parts"]))

    def outputs(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """`probability`; the four parts, `score`; `latent_mean`, `latent_std`: mean over nodes and dimensions of the
        latent means and standard deviations.
        """
        found = self._over_windows(x)
        score = self._score(found["parts"])
        parts = dict(zip(PARTS, found["parts"].T, strict=True))
        latent = {name: found[name].mean(axis=1, dtype=np.float64) for name in ("latent_mean", "latent_std")}
        return {"probability": self._probability(score), **parts, "score": score, **latent}

    def representation(self, x: np.ndarray) -> np.ndarray:
        """The mean of the latent means of the nodes, [N, latent] float32."""
        return self._over_windows(x)["latent_mean"]

    def facts(self) -> dict[str, Any]:
        """The loss of each epoch in nats per node, and how the anomaly score is scaled."""
        return {"train_loss_by_epoch": self._losses, **{name: value.tolist() for name, value in self._scale.items()}}

    def unseen(self, cohort: Cohort) -> list[str]:
        return self._view.unseen(cohort)

    def state(self) -> dict[str, Tensor]:
        learned = {**self._prefixed("view", self._view), **self._prefixed("network", self._network)}
        return {**self._scale, **{name: tensor.cpu() for name, tensor in learned.items()}}

    def load(self, state: dict[str, Any]) -> None:
        base.check_state(state, self.state())
        self._scale = {name: state[name] for name in self._scale}
        for prefix, module in (("view", self._view), ("network", self._network)):
            module.load_state_dict({name: state[f"{prefix}.{name}"] for name in module.state_dict()})

    @property
    def size(self) -> int:
        return sum(parameter.numel() for parameter in self._network.parameters())

    def to(self, device: torch.device) -> "Model":
        self._view.to(device)
        self._network.to(device)
        return self

    @staticmethod
    def _prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
        return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}

    def _encode(self, x: np.ndarray) -> Tensor:
        device = self._view.known.device
        batches = (x[start : start + base.BATCH] for start in range(0, len(x), base.BATCH))
        return torch.cat([self._view(torch.from_numpy(np.float32(batch)).to(device)) for batch in batches])

    def _lesson(self, parents: Mapping[str, base.Model], normal: np.ndarray) -> "_Lesson | None":
        """What the teacher among `parents` says of the windows `normal` [N, W, D], if there is one."""
        config, device = self._parameters.distill, self._view.known.device
        if config is None:
            return None
        teacher, said = parents[config.teacher], dict[str, Any]()
        if config.latent:
            said["latent"] = standardised(teacher.representation(normal)).to(device)
            said["hint"] = nn.Linear(self._parameters.latent, said["latent"].shape[1]).to(device)
        if config.reconstruction:
            outputs = teacher.outputs(normal)
            errors = np.stack([outputs[name] for name in ERRORS], axis=1)
            said["errors"] = torch.from_numpy(errors.astype(np.float32)).to(device)
            said["deviation"] = torch.from_numpy(np.maximum(errors.std(axis=0), 1e-12).astype(np.float32)).to(device)
            said["pooling"] = cast(Model, teacher)._parameters.pooling  # planning takes no other teacher
        return _Lesson(config, **said)

    def _loss(self, graphs: Graphs, rows: Tensor, lesson: "_Lesson | None") -> Tensor:
        """Minus the evidence lower bound, weighted, of one draw of the latent numbers per node; and of a student what
        its `lesson` adds, where the graphs are those of `rows` [B] of its windows.
        """
        mean, log_deviation = self._network(graphs)
        latent = mean + log_deviation.exp() * torch.randn_like(mean)
        loss = self._parameters.loss.of(self._network.parts(graphs, latent, mean, log_deviation)).mean()
        if lesson and lesson.hint and lesson.latent is not None:
            mapped = lesson.hint(mean_of(mean, graphs.graph, len(rows)))
            loss = loss + lesson.config.latent * (mapped - lesson.latent[rows]).square().mean()
        if lesson and lesson.errors is not None and lesson.deviation is not None:
            parts = self._network.parts(graphs, mean, mean, log_deviation)[:, : len(ERRORS)]
            distance = (_pooled(parts, graphs, lesson.pooling) - lesson.errors[rows]) / lesson.deviation
            loss = loss + lesson.config.reconstruction * distance.square().mean()
        return loss

    @torch.no_grad()
    def _over_windows(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Of each window its pooled `parts` [N, 4] float64, and `latent_mean`, `latent_std` [N, latent] float32."""
        self._network.eval()
        found: dict[str, list[Tensor]] = {"parts": [], "latent_mean": [], "latent_std": []}
        for start in range(0, len(x), base.BATCH):
            graphs = self._view.graphs(self._encode(x[start : start + base.BATCH]))
            mean, log_deviation = self._network(graphs)
            parts, size = self._network.parts(graphs, mean, mean, log_deviation).double(), len(graphs.first) - 1
            found["parts"].append(_pooled(parts, graphs, self._parameters.pooling))
            found["latent_mean"].append(mean_of(mean, graphs.graph, size))
            found["latent_std"].append(mean_of(log_deviation.exp(), graphs.graph, size))
        return {name: torch.cat(batches).cpu().numpy() for name, batches in found.items()}

    def _score(self, parts: np.ndarray) -> np.ndarray:
        standard = (torch.from_numpy(parts) - self._scale["part_mean"]) / self._scale["part_deviation"]
        return self._parameters.score.of(standard).numpy()

    def _probability(self, score: np.ndarray) -> np.ndarray:
        z = (score - self._scale["score_at_half"].item()) / self._scale["score_unit"].item()
        return 0.5 + np.arctan(z) / np.pi


@dataclass(frozen=True)
class _Lesson:
    """What a teacher says of N windows, where `config` gives it a weight.

    `latent` [N, H], standardised, which `hint` maps the student's representation to; `errors` [N, ERRORS], pooled as
    `pooling` says, and their `deviation` [ERRORS].
    """

    config: VGAEDistill
    latent: Tensor | None = None
    hint: nn.Linear | None = None
    errors: Tensor | None = None
    deviation: Tensor | None = None
    pooling: str = ""


def _pooled(parts: Tensor, graphs: Graphs, pooling: str) -> Tensor:
    """The `parts` of nodes [n, P] → of their windows, [B, P]."""
    if pooling == "mean":
        return mean_of(parts, graphs.graph, len(graphs.first) - 1)
    return torch.segment_reduce(parts, "max", lengths=graphs.first.diff(), unsafe=True)
