"""Graph attention over the graphs of `GraphView`: what the graph models are made of."""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch_geometric.nn import GATConv

from pipeline.models.shared.graphs import Graphs, GraphView
from pipeline.study.params import Params


class EncoderParameters(Params):
    """The size of a stack of graph attention."""

    hidden: int = Field(24, ge=1, description="units per head")
    heads: int = Field(4, ge=1, description="attention heads per layer")
    layers: int = Field(3, ge=1)
    embedding: int = Field(16, ge=1, description="numbers that stand for an id")
    dropout: float = Field(0.1, ge=0, lt=1, description="of what all nodes come to")

    @property
    def width(self) -> int:
        """Units per layer, of all heads."""
        return self.hidden * self.heads


class GraphEncoder(nn.Module):
    """Graphs → the states of their nodes after the input and after each layer, [n, width] each.

    A node starts from its columns, the embedding of its id (nothing where it is not known) and the mean columns of the
    edges into and out of it. These means are needed because in GATConv (Veličković et al. 2018, arXiv 1710.10903, with
    edge features as torch-geometric has them) an edge only weighs what comes along it against the other edges of the
    node: where there is one, its columns would say nothing. Each layer adds to the states what comes over the edges
    (residual), normalised per node (Ba et al. 2016, arXiv 1607.06450) and so without regard to batch-mates.
    """

    def __init__(self, given: EncoderParameters, view: GraphView):
        super().__init__()
        width = given.width
        self.embedding = nn.Embedding(view.n_ids + 1, given.embedding)
        self.input = nn.Linear(view.node_columns + given.embedding + 2 * view.edge_columns, width)
        self.convolutions = nn.ModuleList(
            # Its own loops are those of the bus: an id that follows itself.
            GATConv(width, given.hidden, given.heads, edge_dim=view.edge_columns, add_self_loops=False)
            for _ in range(given.layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(given.layers))

    def forward(self, graphs: Graphs) -> list[Tensor]:
        source, target = graphs.edge_index
        embedded = self.embedding(graphs.id) * graphs.node[:, :1]
        around = [mean_of(graphs.edge, ends, len(graphs.id)) for ends in (target, source)]
        states = [self.input(torch.cat([graphs.node, embedded, *around], dim=1)).relu()]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            came = convolution(states[-1], graphs.edge_index, graphs.edge)
            states.append(states[-1] + norm(came).relu())
        return states


def mean_of(rows: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """The mean of the `rows` [r, C] of each `group` [r], [n_groups, C]; 0 where it has none."""
    total = rows.new_zeros(n_groups, rows.shape[1]).index_add(0, group, rows)
    return total / torch.bincount(group, minlength=n_groups).clamp(min=1)[:, None]
