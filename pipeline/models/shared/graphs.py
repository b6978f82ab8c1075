"""A window of CAN frames as a graph: who speaks after whom.

A node is an id that occurs in the window, an edge leads from the id of each frame to the id of the next one; frames
(and pairs of frames) of the same ids are one node (one edge) that counts them. So the graph forgets the order of the
frames but for what the edges and the last positions tell of it. Windows of a bus as such graphs: Islam et al. 2020,
IEEE Transactions on Intelligent Transportation Systems (10.1109/TITS.2020.3025685).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.cohorts.cohort import Cohort, Feature
from pipeline.cohorts.frames import frames_of
from pipeline.cohorts.preprocessing import named_unseen

CHUNK = 1024
"""Windows whose graphs are made at a time."""

EDGE_COLUMNS = ("reverse", "count", "interval_mean", "interval_std", "out_degree", "in_degree")


@dataclass(frozen=True)
class Graphs:
    """B graphs as one, their nodes and edges in order: what torch-geometric calls a batch.

    Attributes
    ----------
    id : [n] int64, the category of each node; n_ids where the id is missing
    node : [n, node columns], edge : [e, edge columns] as in `GraphView`
    edge_index : [2, e] int64, source and target of each edge among the n nodes
    graph : [n] int64, which of the graphs a node belongs to
    first : [B + 1] int64, the first node of each graph, and n
    """

    id: Tensor
    node: Tensor
    edge: Tensor
    edge_index: Tensor
    graph: Tensor
    first: Tensor


@dataclass(frozen=True)
class _Raw:
    """Graphs of B windows before they are standardised, padded to M nodes and W − 1 edges.

    `node` [B, columns, M] and `edge` [B, columns, W − 1] have a row per column, which is faster to make; `id` [B, M],
    `source` and `target` [B, W − 1] are −1 in the padding; `slot` [B, W] and `place` [B, W − 1] say which node each
    frame and which edge each pair of frames went into.
    """

    id: Tensor
    node: Tensor
    edge: Tensor
    source: Tensor
    target: Tensor
    slot: Tensor
    place: Tensor


class GraphView(nn.Module):
    """Windows [B, W, D] of CAN frames → graphs, each a vector of F numbers, so that a training can pick them by row.

    Columns of a node, over its frames:
        known           1 where its id occurred in training
        missing ×8      1 where byte j was never measured
        byte ×8         mean of the measured values of byte j
        range ×8        the highest of them minus the lowest: one odd frame among many hardly moves their mean
        count           frames / W
        position        position of its last frame / (W − 1)
    Columns of an edge s → t, over its pairs of consecutive frames:
        reverse         1 where there is an edge t → s too (an edge from an id to itself is its own reverse)
        count           pairs / (W − 1)
        interval_mean, interval_std    log(1 + ms) of mean and population standard deviation of the time from the
                        frame of s to that of t; intervals span orders of magnitude
        out_degree, in_degree          ids that follow s, and ids that t follows, / M

    Numbers are standardised over the nodes (edges) of the training windows. What has no value, such as the mean of a
    byte that was never measured, is 0, the mean of training; so is a number with one value only in training. Frames
    whose id is missing are one node, which is not known. An id of the vocabulary that never occurred in training
    is a node like any other, but not known: a network has no embedding of it, while what it sends and after whom is
    there to see. Ids outside the vocabulary are one node together, "other": of a vehicle whose ids no training capture
    has, hardly a graph is left. A byte that was never measured in training counts as missing.

    A vector holds M = min(W, ids + 1) nodes, first the ids of all (−1: no node), then each column of all; then W − 1
    edges in the same way, first their sources and targets among the nodes (−1: no edge).
    """

    known: Tensor
    node_mean: Tensor
    node_scale: Tensor
    edge_mean: Tensor
    edge_scale: Tensor

    def __init__(self, features: tuple[Feature, ...], n_steps: int):
        super().__init__()
        self._frames = frames_of(features, n_steps)
        self._n_steps, self._id_feature = n_steps, features[self._frames.id]
        n_bytes = len(self._frames.data)
        self.n_ids, self.n_nodes = self._frames.n_ids, min(n_steps, self._frames.n_ids + 1)
        self._node_flags, self._edge_flags = 1 + n_bytes, 1
        self.node_columns, self.edge_columns = 1 + 3 * n_bytes + 2, len(EDGE_COLUMNS)
        self.register_buffer("known", torch.ones(self.n_ids, dtype=torch.bool))
        for part, width in (("node", 2 * n_bytes + 2), ("edge", self.edge_columns - self._edge_flags)):
            self.register_buffer(f"{part}_mean", torch.zeros(width))
            self.register_buffer(f"{part}_scale", torch.ones(width))

    @property
    def n_columns(self) -> int:
        """F, the length of a vector."""
        return self.n_nodes * (1 + self.node_columns) + (self._n_steps - 1) * (2 + self.edge_columns)

    @torch.no_grad()
    def fit(self, values: np.ndarray) -> "GraphView":
        """Note the ids of the training windows `values` [N, W, D], and mean and spread of nodes and edges."""
        self.node_mean.zero_()  # what an earlier fit never saw counts as missing
        ids = values[:, :, self._frames.id]
        self.known.copy_(torch.from_numpy(np.isin(np.arange(self.n_ids), ids)))
        nodes, edges = [], []
        for start in range(0, len(values), CHUNK):
            raw = self._raw(self._tensor(values[start : start + CHUNK]))
            nodes.append(raw.node.transpose(1, 2)[raw.id >= 0][:, self._node_flags :].cpu())
            edges.append(raw.edge.transpose(1, 2)[raw.source >= 0][:, self._edge_flags :].cpu())
        for part, chunks in (("node", nodes), ("edge", edges)):
            mean, scale = _mean_and_scale(torch.cat(chunks))
            getattr(self, f"{part}_mean").copy_(mean)
            getattr(self, f"{part}_scale").copy_(scale)
        return self

    def unseen(self, cohort: Cohort) -> list[str]:
        """What occurs in `cohort` and never did in training, and so is not known or counts as missing: id = 1E5."""
        never = [(self._frames.id, id_) for id_ in torch.nonzero(~self.known).flatten().tolist()]
        never += [(self._frames.data[j], -1) for j in torch.nonzero(self._unmeasured).flatten().tolist()]
        return named_unseen(never, cohort)

    @property
    def _unmeasured(self) -> Tensor:
        """[bytes] which of them training has no value of."""
        return self.node_mean[: len(self._frames.data)].isnan()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, W, D] in units of the bus, NaN = missing → vectors [B, F]."""
        raw = self._raw(x)
        node = _standardised(raw.node, self.node_mean, self.node_scale, raw.id >= 0)
        edge = _standardised(raw.edge, self.edge_mean, self.edge_scale, raw.source >= 0)
        ends = torch.stack([raw.source, raw.target], dim=1)
        parts = (raw.id, node.flatten(1), ends.flatten(1), edge.flatten(1))
        return torch.cat([part.to(x.dtype) for part in parts], dim=1)

    def graphs(self, encoded: Tensor) -> Graphs:
        """Vectors [B, F] → their graphs; columns of nodes and edges keep their gradient."""
        nodes, edges = self._split(encoded)
        here, real = nodes[:, 0] >= 0, edges[:, 0] >= 0
        per_graph = here.sum(dim=1)
        first = torch.cat([per_graph.new_zeros(1), per_graph.cumsum(0)])
        nodes, edges = nodes.transpose(1, 2)[here], edges.transpose(1, 2)[real]
        rows = torch.arange(len(encoded), device=encoded.device)
        return Graphs(
            id=nodes[:, 0].long(),
            node=nodes[:, 1:],
            edge=edges[:, 2:],
            edge_index=edges[:, :2].long().T + first[real.nonzero()[:, 0]],
            graph=rows.repeat_interleave(per_graph),
            first=first,
        )

    def baseline(self, encoded: Tensor) -> Tensor:
        """The same graphs [B, F] with nothing to tell: no id known, and every number the mean of training."""
        nodes, edges = (part.clone() for part in self._split(encoded))
        nodes[:, 1:] = 0
        edges[:, 2:] = 0
        return torch.cat([nodes.flatten(1), edges.flatten(1)], dim=1)

    @torch.no_grad()
    def onto_cells(self, columns: Tensor, x: np.ndarray) -> np.ndarray:
        """Attributions to vectors [B, F] of the windows `x` [B, W, D] → absolute, on cells, [B, W, D] float64.

        Each is shared out evenly: that of a byte to the cells of its node that were averaged (all of them where none
        was measured), that of an interval likewise; of the other columns of a node to the ids of its frames, of an edge
        to the ids of its pairs of frames.
        """
        window = self._tensor(x)
        raw = self._raw(window)
        node, edge = (part.detach().abs().double() for part in self._split(columns))
        node, edge = node[:, 1:], edge[:, 2:]
        data, interval = list(self._frames.data), [self._frames.interval]
        n_bytes = len(data)
        of_bytes = node[:, 1 : 1 + 3 * n_bytes].unflatten(1, (3, n_bytes)).sum(dim=1)
        of_ids = node[:, :1] + node[:, 1 + 3 * n_bytes :].sum(dim=1, keepdim=True)
        of_intervals = edge[:, 2:4].sum(dim=1, keepdim=True)
        of_pairs = edge.sum(dim=1, keepdim=True) - of_intervals
        by_feature = window.transpose(1, 2)
        cells = torch.zeros(by_feature.shape, dtype=torch.float64, device=window.device)
        cells[:, data] = _shared_out(of_bytes, raw.slot, by_feature[:, data])
        cells[:, interval, 1:] = _shared_out(of_intervals, raw.place, by_feature[:, interval, 1:])
        # What counts frames or pairs of frames has read all of them.
        on_ids = _shared_out(of_ids, raw.slot, torch.zeros_like(by_feature[:, :1]))
        pairs = _shared_out(of_pairs, raw.place, torch.zeros_like(by_feature[:, :1, 1:])) / 2
        on_ids[:, :, :-1] += pairs
        on_ids[:, :, 1:] += pairs
        cells[:, [self._frames.id]] = on_ids
        return cells.transpose(1, 2).cpu().numpy()

    def _tensor(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(self.known.device)

    def _split(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors' nodes [B, 1 + columns, M] and edges [B, 2 + columns, W − 1]."""
        rows, steps = 1 + self.node_columns, self._n_steps - 1
        nodes, edges = encoded.tensor_split([rows * self.n_nodes], dim=1)
        return nodes.unflatten(1, (rows, self.n_nodes)), edges.unflatten(1, (2 + self.edge_columns, steps))

    def _raw(self, x: Tensor) -> _Raw:
        width, steps = self.n_nodes, self._n_steps
        x = x.transpose(1, 2).contiguous()  # [B, D, W]
        id_ = x[:, self._frames.id]
        # Comparisons with NaN are false.
        slot, nodes = _grouped(torch.where((id_ >= 0) & (id_ < self.n_ids), id_, self.n_ids).int(), width)
        numbered = nodes.clamp(min=0).long()
        known = torch.cat([self.known, self.known.new_zeros(1)])[numbered]
        frame = torch.arange(steps, dtype=x.dtype, device=x.device).expand_as(id_)
        last = torch.zeros_like(x[:, 0, :1]).repeat(1, width).scatter_reduce_(1, slot, frame, "amax")
        ones = torch.ones_like(id_)[:, None]
        data = x[:, list(self._frames.data)].masked_fill_(self._unmeasured[:, None], torch.nan)
        total, measured = _over_measured(data, slot, width)
        node = torch.cat(
            [
                known[:, None].to(x.dtype),
                (measured == 0).to(x.dtype),
                total / measured,
                _range(data, slot, width),
                _added_up(ones, slot, width) / steps,
                last[:, None] / (steps - 1),
            ],
            dim=1,
        )

        # In the order of their targets: sums over the edges into a node then read memory in order.
        place, pairs = _grouped((slot[:, 1:] * width + slot[:, :-1]).int(), steps - 1)
        real = pairs >= 0
        target = pairs.clamp(min=0).div(width, rounding_mode="floor").long()
        source = pairs.clamp(min=0).long() - target * width
        interval = x[:, [self._frames.interval], 1:]
        total, measured = _over_measured(interval, place, steps - 1)
        mean = total / measured
        distance = (interval - mean.gather(2, place[:, None])).square()
        spread = (_over_measured(distance, place, steps - 1)[0] / measured).sqrt()
        ordered = torch.where(real, pairs, width * width)
        opposite = (source * width + target).int()
        found = torch.searchsorted(ordered, opposite).clamp(max=steps - 2)
        reverse = ordered.gather(1, found) == opposite
        there = real[:, None].to(x.dtype)
        edge = torch.cat(
            [
                reverse[:, None].to(x.dtype),
                _added_up(ones[:, :, 1:], place, steps - 1) / (steps - 1),
                mean.log1p(),
                spread.log1p(),
                *(_added_up(there, end, width).gather(2, end[:, None]) / width for end in (source, target)),
            ],
            dim=1,
        )
        return _Raw(nodes, node, edge, torch.where(real, source, -1), torch.where(real, target, -1), slot, place)


def _grouped(key: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Keys [B, L] ≥ 0 → which of its row's different keys each is, in ascending order, [B, L], and these, [B, most].

    Behind the last of them stands −1.
    """
    ordered, order = key.sort(dim=1)
    rank = torch.zeros_like(order)
    torch.cumsum(ordered[:, 1:] != ordered[:, :-1], dim=1, out=rank[:, 1:])
    different = torch.full_like(key[:, :1], -1).repeat(1, most).scatter_(1, rank, ordered)
    return torch.empty_like(rank).scatter_(1, order, rank), different


def _added_up(values: Tensor, position: Tensor, width: int) -> Tensor:
    """[B, C, L] added up at `position` [B, L] → [B, C, width]."""
    total = values.new_zeros(*values.shape[:2], width)
    return total.scatter_add_(2, position[:, None].expand_as(values), values)


def _over_measured(values: Tensor, position: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Sum and count of what is no NaN in `values` [B, C, L] at each `position` → [B, C, width] each."""
    measured = ~values.isnan()
    given = torch.cat([values.masked_fill(~measured, 0), measured.to(values.dtype)], dim=1)
    total, count = _added_up(given, position, width).chunk(2, dim=1)
    return total, count


def _range(values: Tensor, position: Tensor, width: int) -> Tensor:
    """Highest minus lowest of what is no NaN in `values` [B, C, L] at each `position` → [B, C, width]; NaN of none."""
    index, nothing = position[:, None].expand_as(values), values.new_full((*values.shape[:2], width), torch.nan)
    ends = [
        nothing.scatter_reduce(2, index, values.nan_to_num(nan=-sign * torch.inf), reduce, include_self=False)
        for sign, reduce in ((1, "amax"), (-1, "amin"))
    ]
    found = ends[0] - ends[1]
    return torch.where(found.isfinite(), found, torch.nan)


def _shared_out(columns: Tensor, position: Tensor, values: Tensor) -> Tensor:
    """Each of `columns` [B, C, width] on the measured ones of `values` [B, C, L] at its position; all if none is."""
    weight, index = (~values.isnan()).double(), position[:, None].expand_as(values)
    among = _added_up(weight, position, columns.shape[2]).gather(2, index)
    weight = torch.where(among > 0, weight, 1.0)
    return columns.gather(2, index) * weight / _added_up(weight, position, columns.shape[2]).gather(2, index)


def _standardised(columns: Tensor, mean: Tensor, scale: Tensor, real: Tensor) -> Tensor:
    """[B, columns, L], numbers behind flags; what has no value is 0, and so is everything that is not `real`."""
    flags, numbers = columns.tensor_split([columns.shape[1] - len(mean)], dim=1)
    numbers = ((numbers - mean[:, None]) / scale[:, None]).nan_to_num_(nan=0.0)
    return torch.cat([flags, numbers], dim=1).mul_(real[:, None])


def _mean_and_scale(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of [n, C], NaN left out: mean, NaN where there is no value; standard deviation, infinite where there is one."""
    mean, scale = torch.full((2, rows.shape[1]), torch.nan)
    for column, values in enumerate(rows.T.double()):
        values = values[~values.isnan()]
        if len(values):
            mean[column] = values.mean()
            scale[column] = values.std(correction=0) if values.min() < values.max() else torch.inf
    return mean, scale
