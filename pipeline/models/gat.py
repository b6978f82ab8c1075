"""Graph attention network (Veličković et al. 2018, arXiv 1710.10903) on windows of CAN frames as graphs.

Jumping knowledge (Xu et al. 2018, arXiv 1806.03536) lets the answer read the states of all layers, pooling makes one
of all nodes: their mean, their maximum, or both, or a mean by weights that are learned (Li et al. 2016, arXiv
1511.05493, equation 7).
"""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch_geometric.nn import JumpingKnowledge
from torch_geometric.nn.aggr import AttentionalAggregation, MaxAggregation, MeanAggregation, MultiAggregation

from pipeline.models.base import Dropout, NetworkParameters
from pipeline.models.shared.graphnets import EncoderParameters, GraphEncoder
from pipeline.models.shared.graphs import GraphView as View

__all__ = ["View"]

OFFERS = ("representation", "attribution", "saliency")
READS = "frames"


class Parameters(NetworkParameters, EncoderParameters):
    jumping_knowledge: Literal["cat", "max"] = Field(
        "cat", description="of the states of all layers: side by side, or their largest"
    )
    pooling: Literal["mean", "max", "mean_max", "attention"] = Field(
        "mean_max", description="what stands for all nodes: their mean, maximum, both, or a mean by learned weights"
    )


GATConfig = Parameters


class Network(nn.Module):
    """Vectors [B, F] of `GraphView` → [B, width]."""

    def __init__(self, parameters: Parameters, view: View):
        super().__init__()
        self.view = [view]  # in a list, so that it is no part of this module: it is the classifier's preprocessor
        self.encoder = GraphEncoder(parameters, view)
        self.jump = JumpingKnowledge(parameters.jumping_knowledge)
        states = parameters.width * (parameters.layers + 1 if parameters.jumping_knowledge == "cat" else 1)
        self.pool = _pooling(parameters.pooling, states)
        self.output = nn.Linear(states * (2 if parameters.pooling == "mean_max" else 1), parameters.width)
        self.dropout = Dropout(parameters.dropout)
        self.width = parameters.width

    def forward(self, x: Tensor) -> Tensor:
        graphs = self.view[0].graphs(x)
        nodes = self.jump(self.encoder(graphs))
        pooled = self.pool(nodes, ptr=graphs.first)
        return self.output(self.dropout(pooled)).relu()


def _pooling(kind: str, width: int) -> nn.Module:
    if kind == "attention":
        return AttentionalAggregation(nn.Linear(width, 1))
    if kind == "mean_max":
        return MultiAggregation([MeanAggregation(), MaxAggregation()])
    return {"mean": MeanAggregation, "max": MaxAggregation}[kind]()
