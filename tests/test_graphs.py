"""The graph of a window against one made frame by frame, the way back to its cells, and the models on it."""

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cans import CAN_FEATURES, IDS, make_can_cohort
from conftest import FEATURES, make_cohort
from test_config import DEFAULT

from pipeline.cohorts.frames import are_frames, frames_of
from pipeline.errors import UserError
from pipeline.evaluation.metrics import auroc
from pipeline.models import vgae
from pipeline.models.base import build
from pipeline.models.shared.distillation import standardised
from pipeline.models.shared.graphs import EDGE_COLUMNS, GraphView
from pipeline.study import families, preflight
from pipeline.study.config import load_study
from pipeline.study.variants import merged
from pipeline.training import checkpoints, loop
from pipeline.training.fitting import train
from pipeline.training.settings import Training

ID, BYTES, INTERVAL = 0, range(1, 9), 10
SMALL = {"hidden": 4, "heads": 2, "layers": 2, "embedding": 4}


def slow_graph(window: np.ndarray, view: GraphView) -> tuple[dict, dict]:
    """Nodes by id and edges by ids of one window [W, D], in the columns of `GraphView`, frame by frame."""
    steps = len(window)
    ids = [len(IDS) if math.isnan(frame[ID]) else int(frame[ID]) for frame in window]
    frames, pairs = defaultdict(list), defaultdict(list)
    for step, id_ in enumerate(ids):
        frames[id_].append(step)
        if step:
            pairs[ids[step - 1], id_].append(step)

    def standard(value, mean, scale):
        return 0.0 if math.isnan(value) else (value - float(mean)) / float(scale)

    nodes, edges = {}, {}
    for id_, steps_of in frames.items():
        missing, means, ranges = [], [], []
        for byte in BYTES:
            seen = [window[step, byte] for step in steps_of if not math.isnan(window[step, byte])]
            missing.append(0.0 if seen else 1.0)
            means.append(sum(map(float, seen)) / len(seen) if seen else math.nan)
            ranges.append(float(max(seen) - min(seen)) if seen else math.nan)
        numbers = [*means, *ranges, len(steps_of) / steps, steps_of[-1] / (steps - 1)]
        known = float(id_ < len(IDS) and bool(view.known[id_]))
        nodes[id_] = [known, *missing, *map(standard, numbers, view.node_mean, view.node_scale)]
    for (source, target), steps_of in pairs.items():
        waits = [float(window[step, INTERVAL]) for step in steps_of if not math.isnan(window[step, INTERVAL])]
        mean = sum(waits) / len(waits) if waits else math.nan
        spread = math.sqrt(sum((wait - mean) ** 2 for wait in waits) / len(waits)) if waits else math.nan
        numbers = [
            len(steps_of) / (steps - 1),
            math.log1p(mean),
            math.log1p(spread),
            len({end for start, end in pairs if start == source}) / view.n_nodes,
            len({start for start, end in pairs if end == target}) / view.n_nodes,
        ]
        reverse = float((target, source) in pairs)
        edges[source, target] = [reverse, *map(standard, numbers, view.edge_mean, view.edge_scale)]
    return nodes, edges


def odd_windows() -> np.ndarray:
    """Windows with everything that a trigger or a bus may leave in them."""
    x = make_can_cohort(60, seed=1).values
    rng = np.random.default_rng(2)
    x[:20, :, ID][rng.random((20, x.shape[1])) < 0.3] = np.nan
    x[10:40][rng.random(x[10:40].shape) < 0.3] = np.nan
    x[40, :, ID] = 3  # one id that follows itself
    x[41] = np.nan
    x[42, :, ID] = np.nan
    x[43, :, INTERVAL] = np.nan
    x[44, :, ID] = np.arange(x.shape[1]) % len(IDS)
    return x


@pytest.fixture
def view() -> GraphView:
    return GraphView(CAN_FEATURES, 24).fit(make_can_cohort().values)


def test_the_graph_is_that_of_a_slow_twin(view):
    x = odd_windows()
    graphs = view.graphs(view(torch.from_numpy(x)))
    assert graphs.node.shape[1] == view.node_columns == 27 and graphs.edge.shape[1] == len(EDGE_COLUMNS) == 6
    assert view(torch.from_numpy(x)).shape == (len(x), view.n_columns)
    node = edge = 0
    for number, window in enumerate(x):
        nodes, edges = slow_graph(window, view)
        rows = slice(node, node + len(nodes))
        assert graphs.graph[rows].tolist() == [number] * len(nodes) and int(graphs.first[number]) == node
        assert graphs.id[rows].tolist() == sorted(nodes)
        np.testing.assert_allclose(graphs.node[rows], [nodes[id_] for id_ in sorted(nodes)], rtol=1e-4, atol=2e-5)
        ends = [tuple(pair) for pair in graphs.id[graphs.edge_index[:, edge : edge + len(edges)]].T.tolist()]
        assert ends == sorted(edges, key=lambda pair: pair[::-1])
        expected = [edges[pair] for pair in ends]
        np.testing.assert_allclose(graphs.edge[edge : edge + len(edges)], expected, rtol=1e-3, atol=1e-4)
        node, edge = node + len(nodes), edge + len(edges)
    assert (node, edge) == (len(graphs.id), len(graphs.edge)) and int(graphs.first[-1]) == node


def test_numbers_are_standardised_over_the_nodes_and_edges_of_training(view):
    graphs = view.graphs(view(torch.from_numpy(make_can_cohort().values)))
    for numbers in (graphs.node[:, [9, 17, 25, 26]], graphs.edge[:, 1:]):
        torch.testing.assert_close(numbers.mean(0), torch.zeros(numbers.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(numbers.std(0, correction=0), torch.ones(numbers.shape[1]), atol=1e-3, rtol=0)
    short = graphs.node[:, 6] == 1  # the sixth byte, of frames of three
    assert short.any() and (graphs.node[short][:, [14, 22]] == 0).all()


def test_one_odd_frame_among_many_is_seen_in_the_range_of_its_bytes(view):
    """As where an attack begins with the last frame of a window: the mean hardly moves."""
    window = make_can_cohort(1).values[0].copy()
    window[:, ID], window[:, 1] = 3, 7
    odd = window.copy()
    odd[-1, 1] = 207
    before, after = (view.graphs(view(torch.from_numpy(one[None]))).node[0] for one in (window, odd))
    changed = torch.nonzero(before != after).flatten().tolist()
    assert changed == [9, 17], "the mean of byte 0 and its range"
    steps = (after - before)[changed] * torch.stack([view.node_scale[0], view.node_scale[8]])
    torch.testing.assert_close(steps, torch.tensor([200 / 24, 200.0]))


def test_a_graph_depends_on_its_window_alone(view):
    x = torch.from_numpy(odd_windows())
    together = view(x)
    assert torch.equal(torch.cat([view(window[None]) for window in x]), together)
    assert torch.equal(view(x.flip(0)).flip(0), together)
    assert torch.isfinite(together).all()


def test_an_id_that_training_never_saw_is_a_node_without_an_embedding():
    cohort = make_can_cohort()
    values = cohort.values.copy()
    values[:, :, ID][values[:, :, ID] == 3] = 2
    view = GraphView(CAN_FEATURES, 24).fit(values)
    assert view.unseen(cohort) == ["id = 2C4"] and view.unseen(replace(cohort, values=values)) == []
    graphs = view.graphs(view(torch.from_numpy(cohort.values)))
    assert ((graphs.node[:, 0] == 0) == (graphs.id == 3)).all() and (graphs.id == 3).any()


def test_a_byte_that_training_never_measured_counts_as_missing():
    cohort = make_can_cohort()
    values = cohort.values.copy()
    values[:, :, 8] = np.nan
    view = GraphView(CAN_FEATURES, 24).fit(cohort.values).fit(values)
    assert view.unseen(cohort) == ["byte_7"]
    assert torch.equal(view(torch.from_numpy(cohort.values)), view(torch.from_numpy(values)))
    assert view.fit(cohort.values).unseen(cohort) == []


@pytest.mark.parametrize(
    ("features", "steps", "what"),
    [
        (FEATURES, 12, "a category id and numbers byte_0, byte_1 … and a number interval"),
        (CAN_FEATURES, 1, "at least 2 steps"),
        (CAN_FEATURES[1:], 24, "a category id"),
        ((*CAN_FEATURES[:-1], replace(CAN_FEATURES[0], name="interval")), 24, "a number interval"),
        ([each for each in CAN_FEATURES if each.name != "byte_7"], 24, "numbers byte_0"),
        ([each for each in CAN_FEATURES if each.name != "dlc"], 24, "a number dlc"),
    ],
)
def test_what_is_no_frame_is_one_sentence(features, steps, what):
    with pytest.raises(UserError, match=f"not windows of CAN frames, expected {what}"):
        GraphView(features, steps)
    assert frames_of(CAN_FEATURES, 24).n_ids == len(IDS)
    assert are_frames(features) == (steps == 1), "triggers and models mean the same by frames"


@pytest.mark.parametrize("model", ["gat", "vgae"])
def test_planning_refuses_a_graph_model_on_patients(model):
    study = {"datasets": ["icu_dev"], "triggers": ["flip_only"], "rates": [0.1], "seeds": [1], "detectors": ["random"]}
    parameters = {"small": {"of": model, "hidden": 4}}
    with pytest.raises(UserError, match="models: 'small' cannot read dataset 'icu_dev': not windows of CAN frames"):
        preflight.check(load_study({**study, "models": ["mlp", "small"], "model_params": parameters}))


def built(**parameters):
    cohort = make_can_cohort()
    torch.manual_seed(0)
    classifier = build("gat", SMALL | parameters, cohort.n_steps, cohort.features)
    classifier.preprocessor.fit(cohort.values)
    return classifier.eval(), cohort


@pytest.mark.parametrize("pooling", ["mean", "max", "mean_max", "attention"])
@pytest.mark.parametrize("jumping", ["cat", "max"])
def test_every_column_and_every_id_reaches_the_logit(pooling, jumping):
    classifier, cohort = built(pooling=pooling, jumping_knowledge=jumping)
    x = np.concatenate([cohort.values, odd_windows()])
    encoded = classifier.encode(x).requires_grad_()
    weight = classifier.network.encoder.embedding.weight
    gradient, of_ids = torch.autograd.grad(classifier(encoded).sum(), [encoded, weight])
    nodes, edges = classifier.preprocessor._split(gradient)
    assert (nodes[:, 1:].abs().sum(dim=(0, 2)) > 0).all() and not nodes[:, 0].any()
    assert (edges[:, 2:].abs().sum(dim=(0, 2)) > 0).all() and not edges[:, :2].any()
    there = torch.tensor([(cohort.values[:, :, ID] == id_).any() for id_ in range(len(IDS))])
    assert (of_ids.abs().sum(dim=1)[:-1] > 0).equal(there), "an id that is not known has no say"


def test_a_logit_depends_on_its_window_alone():
    classifier, cohort = built()
    encoded = classifier.encode(cohort.values)
    among = classifier(encoded)[:8]
    torch.testing.assert_close(torch.cat([classifier(row[None]) for row in encoded[:8]]), among, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(classifier(encoded.flip(0)).flip(0)[:8], among, rtol=1e-5, atol=1e-6)


def test_pooling_is_that_of_each_graph():
    classifier, cohort = built(pooling="mean_max")
    network, encoded = classifier.network, classifier.encode(cohort.values[:5])
    for row in encoded:
        nodes = network.jump(network.encoder(classifier.preprocessor.graphs(row[None])))
        expected = torch.cat([nodes.mean(dim=0), nodes.amax(dim=0)])
        torch.testing.assert_close(network(row[None])[0], network.output(expected).relu())


def test_attributions_add_up_to_the_logit_and_their_cells_to_them():
    classifier, cohort = built()
    view, x = classifier.preprocessor, np.concatenate([cohort.values[:6], odd_windows()[::8]])
    encoded = classifier.encode(x)
    baseline = view.baseline(encoded)
    assert classifier.attribution(x, 512)[1] < 0.004 < classifier.attribution(x, 1)[1]
    # The baseline keeps who speaks after whom, and nothing else.
    of, at_rest = view.graphs(encoded), view.graphs(baseline)
    assert torch.equal(of.edge_index, at_rest.edge_index) and torch.equal(of.first, at_rest.first)
    assert not at_rest.node.any() and not at_rest.edge.any()
    columns = torch.where(encoded == baseline, 0, torch.randn(encoded.shape, generator=torch.manual_seed(1)))
    cells = view.onto_cells(columns, x)
    assert cells.shape == x.shape and (cells >= 0).all()
    np.testing.assert_allclose(cells.sum(axis=(1, 2)), columns.abs().sum(dim=1), rtol=1e-5)


def slow_cells(nodes: dict, edges: dict, window: np.ndarray) -> np.ndarray:
    """What `GraphView.onto_cells` does with absolute attributions of columns, frame by frame."""
    ids = [len(IDS) if math.isnan(frame[ID]) else int(frame[ID]) for frame in window]
    cells = np.zeros(window.shape)

    def share(amount, steps, feature, by_measured):
        measured = [step for step in steps if not math.isnan(window[step, feature])]
        for step in (among := measured if by_measured and measured else steps):
            cells[step, feature] += amount / len(among)

    for id_, columns in nodes.items():
        steps = [step for step, other in enumerate(ids) if other == id_]
        for number, byte in enumerate(BYTES):
            share(columns[1 + number] + columns[9 + number] + columns[17 + number], steps, byte, True)
        share(columns[0] + columns[25] + columns[26], steps, ID, False)
    for pair, columns in edges.items():
        steps = [step for step in range(1, len(ids)) if (ids[step - 1], ids[step]) == pair]
        share(columns[2] + columns[3], steps, INTERVAL, True)
        for step in steps:
            for end in (step - 1, step):
                cells[end, ID] += (columns[0] + columns[1] + columns[4] + columns[5]) / len(steps) / 2
    return cells


def test_the_way_back_to_cells_is_that_of_a_slow_twin(view):
    x = odd_windows()
    encoded = view(torch.from_numpy(x))
    nodes, edges = view._split(torch.randn(encoded.shape, generator=torch.manual_seed(3)))
    real = [part >= 0 for part in (view._split(encoded)[0][:, :1], view._split(encoded)[1][:, :1])]
    nodes, edges = nodes * real[0], edges * real[1]
    cells = view.onto_cells(torch.cat([nodes.flatten(1), edges.flatten(1)], dim=1), x)
    for number, window in enumerate(x):
        ids, pairs = (sorted(part) for part in slow_graph(window, view))
        pairs = sorted(pairs, key=lambda pair: pair[::-1])
        by_id = dict(zip(ids, nodes[number, 1:].abs().T.tolist(), strict=False))
        by_pair = dict(zip(pairs, edges[number, 2:].abs().T.tolist(), strict=False))
        np.testing.assert_allclose(cells[number], slow_cells(by_id, by_pair, window), rtol=1e-5, atol=1e-6)


def trained(name: str, folder: Path, epochs: int = 6, parents: dict | None = None, luck: bool = False, **parameters):
    folder.mkdir(exist_ok=True)
    cohort = make_can_cohort(400)
    if luck:
        cohort = replace(cohort, label=np.random.default_rng(5).permutation(cohort.label))
    part = {"train": cohort.subset(np.arange(240)), "validation": cohort.subset(np.arange(240, 320))}
    parameters = (SMALL | parameters) if name in ("gat", "vgae") else parameters
    _, parsed = families.configured("models", name, parameters)
    torch.manual_seed(0)
    model = build(name, parameters, cohort.n_steps, cohort.features)
    settings = Training(epochs=epochs, batch_size=32, learning_rate=0.003, schedule="constant")
    history, _ = train(model, parsed, *part.values(), settings, 1, folder / "checkpoint.pt", "test", parents or {})
    return model, history, cohort.subset(np.arange(320, 400))


@pytest.mark.parametrize("name", ["gat", "vgae"])
def test_a_graph_model_finds_the_flood_and_repeats_to_the_bit(tmp_path, name):
    epochs = {"gat": 8, "vgae": 30}[name]
    (model, history, test), (again, same, _) = (trained(name, tmp_path / side, epochs) for side in "ab")
    assert history == same
    state, other = model.state(), again.state()
    assert all(torch.equal(state[key], other[key]) for key in state) and state.keys() == other.keys()
    assert auroc(test.label, model.probability(test.values)) > 0.95


def test_nothing_is_found_where_there_is_nothing(tmp_path):
    """Labels are dealt at random, to train on and to test on: what an answer is worth lies about one half."""
    model, _, test = trained("gat", tmp_path, luck=True)
    assert abs(auroc(test.label, model.probability(test.values)) - 0.5) < 0.2


def test_a_stopped_training_of_a_graph_network_resumes_to_the_bit(tmp_path, monkeypatch):
    undisturbed, history, _ = trained("gat", tmp_path / "undisturbed", 4)
    monkeypatch.setattr(loop, "SAVE_EVERY", -1)
    validate, calls = loop._validate, []

    def stop_at_the_third(*samples):
        calls.append(samples)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return validate(*samples)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "_validate", stop_at_the_third)
        trained("gat", tmp_path / "stopped", 4)
    assert len(checkpoints.load(tmp_path / "stopped" / "checkpoint.pt")["history"]) == 2
    resumed, again, _ = trained("gat", tmp_path / "stopped", 4)
    assert again == history
    state, other = undisturbed.state(), resumed.state()
    assert all(torch.equal(state[key], other[key]) for key in state)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_what_a_vgae_says_adds_up(tmp_path, pooling):
    model, _, test = trained("vgae", tmp_path, pooling=pooling, score={"kl": 0.5, "id_error": 0})
    said, facts = model.outputs(test.values), model.facts()
    assert list(said)[1:5] == ["node_error", "neighbour_error", "id_error", "kl"]
    assert {"score", "latent_mean", "latent_std"} < set(said)
    assert all(values.shape == (len(test),) and values.dtype == np.float64 for values in said.values())
    standard = (np.stack(list(said.values())[1:5]).T - facts["part_mean"]) / facts["part_deviation"]
    np.testing.assert_allclose(said["score"], standard @ [1, 1, 0, 0.5], rtol=1e-9)
    order = np.argsort(said["score"])
    assert (np.diff(said["probability"][order]) >= 0).all()
    np.testing.assert_array_equal(said["probability"], model.probability(test.values))
    np.testing.assert_allclose(said["latent_mean"], model.representation(test.values).mean(axis=1), atol=1e-5)
    assert (said["latent_std"] > 0).all() and len(facts["train_loss_by_epoch"]) == 6
    assert facts["train_loss_by_epoch"][-1] < facts["train_loss_by_epoch"][0]


def test_a_vgae_says_one_half_where_the_false_alarms_asked_for_begin(tmp_path):
    model, _, _ = trained("vgae", tmp_path, false_alarms=0.25)
    held_out = make_can_cohort(400).subset(np.arange(240, 320))
    benign = model.probability(held_out.values)[held_out.label == 0]
    assert (benign >= 0.5).mean() == pytest.approx(0.25, abs=1 / len(benign))


def test_the_errors_of_a_vgae_are_those_of_a_slow_twin(tmp_path):
    """Node by node, of one window: what is decoded against what is there; KL by Monte Carlo."""
    model, _, test = trained("vgae", tmp_path, pooling="mean")
    window = test.values[:1]
    said = model.outputs(window)
    graphs = model._view.graphs(model._encode(window))
    nodes, edges = slow_graph(window[0], model._view)
    with torch.no_grad():
        mean, log_deviation = model._network(graphs)
        decoded = {name: decoder(mean).double().numpy() for name, decoder in model._network.decoders.items()}
    errors = defaultdict(list)
    for row, id_ in enumerate(sorted(nodes)):
        errors["node_error"].append(np.mean((decoded["node"][row] - nodes[id_][1:]) ** 2) / 2)
        there = [(id_, other) in edges for other in range(8)] + [(other, id_) in edges for other in range(8)]
        p = 1 / (1 + np.exp(-decoded["neighbours"][row]))
        errors["neighbour_error"].append(-np.log(np.where(there, p, 1 - p)).sum())
        logits = decoded["id"][row]
        errors["id_error"].append(np.log(np.exp(logits).sum()) - logits[id_])
    for name, values in errors.items():
        assert said[name][0] == pytest.approx(np.mean(values), rel=1e-3)
    deviation = log_deviation.exp().double()
    draws = mean + deviation * torch.randn(20_000, *mean.shape, generator=torch.manual_seed(0))
    log_q = torch.distributions.Normal(mean.double(), deviation).log_prob(draws)
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(draws)
    assert said["kl"][0] == pytest.approx(float((log_q - log_p).sum(dim=2).mean()), rel=0.02)


def test_a_vgae_learns_from_label_0_alone():
    """What the other windows hold changes nothing."""
    cohort = make_can_cohort(200)
    other = cohort.values.copy()
    other[cohort.label == 1] = 7
    states = []
    for values in (cohort.values, other):
        torch.manual_seed(0)
        model = build("vgae", SMALL, cohort.n_steps, cohort.features)
        changed = replace(cohort, values=values)
        model.fit(changed, changed, Training(epochs=2), 1)
        states.append(model.state())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("part", ["training", "validation"])
def test_a_vgae_without_windows_of_label_0_is_one_sentence(part):
    cohort = make_can_cohort(50)
    attacked = replace(cohort, label=np.ones(50, np.int8))
    given = (attacked, cohort) if part == "training" else (cohort, attacked)
    model = build("vgae", SMALL, cohort.n_steps, cohort.features)
    with pytest.raises(UserError, match=f"vgae: the {part} data of bus have no window of label 0"):
        model.fit(*given, Training(epochs=1), 1)


def normal_windows() -> np.ndarray:
    """The windows of label 0 that `trained` trains on."""
    part = make_can_cohort(400).subset(np.arange(240))
    return part.values[part.label == 0]


def test_the_loss_of_a_vgae_with_a_teacher_is_its_parts_by_their_weights(tmp_path):
    """The twin: from what both say of all windows, the student's errors pooled as the teacher pools its own."""
    teacher, _, _ = trained("vgae", tmp_path / "teacher", pooling="max")
    student, _, _ = trained("vgae", tmp_path / "student", hidden=2, latent=3, dropout=0, pooling="mean")
    x = normal_windows()
    given = {"teacher": "large", "latent": 0.7, "reconstruction": 0.3}
    parsed = student._parameters.model_copy(update={"distill": vgae.VGAEDistill(**given)})
    student._parameters = parsed
    lesson = student._lesson({"large": teacher}, x)
    losses = []
    for lesson_or_none in (lesson, None):
        torch.manual_seed(3)
        graphs = student._view.graphs(student._encode(x))
        losses.append(student._loss(graphs, torch.arange(len(x)), lesson_or_none).item())
    as_teacher = build("vgae", SMALL | {"hidden": 2, "latent": 3, "pooling": "max"}, 24, CAN_FEATURES)
    as_teacher.load(student.state())
    said, wanted = as_teacher.outputs(x), teacher.outputs(x)
    errors = [(said[name] - wanted[name]) / wanted[name].std() for name in vgae.ERRORS]
    weight, bias = (tensor.detach().numpy() for tensor in lesson.hint.parameters())
    latent = teacher.representation(x)
    distance = student.representation(x) @ weight.T + bias - (latent - latent.mean(0)) / latent.std(0)
    expected = 0.7 * np.mean(distance**2) + 0.3 * np.mean(np.square(errors))
    assert losses[0] - losses[1] == pytest.approx(expected, rel=1e-3) and expected > 0.1


def test_a_small_vgae_comes_nearer_to_its_teacher_by_what_is_asked_for(tmp_path):
    """Its errors by `reconstruction`, its representation (up to a linear map) by `latent`, each more than without."""
    teacher, _, test = trained("vgae", tmp_path / "teacher", 20)
    small = {"hidden": 2, "latent": 4, "dropout": 0}
    weights = {"neither": {"latent": 0}, "errors": {"reconstruction": 3}, "hint": {"latent": 10}}
    found = {}
    for name, given in weights.items():
        distill = {"teacher": "large", **given}
        found[name], _, _ = trained("vgae", tmp_path / name, 20, {"large": teacher}, **small, distill=distill)
    normal = test.values[test.label == 0]

    def errors_off(model) -> float:
        said, wanted = model.outputs(normal), teacher.outputs(normal)
        return float(np.mean([((said[name] - wanted[name]) / wanted[name].std()) ** 2 for name in vgae.ERRORS]))

    def unexplained(model) -> float:
        # Of windows of label 0, standardised: what the hint is about. It says nothing of attacks, which none is shown.
        inputs = np.column_stack([model.representation(normal), np.ones(len(normal))])
        wanted = standardised(teacher.representation(normal)).numpy()
        return float((wanted - inputs @ np.linalg.lstsq(inputs, wanted, rcond=None)[0]).var())

    assert errors_off(found["errors"]) < 0.7 * errors_off(found["neither"])
    assert unexplained(found["hint"]) < 0.9 * unexplained(found["neither"])
    assert all(auroc(test.label, model.probability(test.values)) > 0.9 for model in found.values())


def test_a_teacher_without_weight_changes_no_bit_and_one_with_it_is_shown_label_0_alone(tmp_path):
    class Teacher:
        def representation(self, x):
            np.testing.assert_array_equal(x, normal_windows())
            return x[:, :5, 0]

    alone, _, _ = trained("vgae", tmp_path / "alone", 2)
    states = []
    for weight in (0, 0.5):
        distill = {"teacher": "other", "latent": weight}
        student, _, _ = trained("vgae", tmp_path / str(weight), 2, {"other": Teacher()}, distill=distill)
        states.append(student.state())
    expected = alone.state()
    assert all(torch.equal(states[0][name], expected[name]) for name in expected)
    assert states[1].keys() == expected.keys() and student.size == alone.size
    assert not torch.equal(states[1]["network.latent.weight"], expected["network.latent.weight"])


PAIRS = [
    ("vgae", "gat", {"alpha": 0.5, "latent": 0.5}),
    ("vgae", "lstm", {"latent": 0.5}),
    ("gat", "vgae", {"latent": 0.5}),
    ("mlp", "vgae", {"latent": 0.5}),
    ("vgae", "vgae", {"latent": 0.5, "reconstruction": 0.5, "data": "clean"}),
]


@pytest.mark.parametrize(("teacher", "student", "given"), PAIRS)
def test_graph_models_teach_others_and_learn_from_them(tmp_path, teacher, student, given):
    config = {"models": [teacher, "small"], "triggers": ["payload"], "rates": [0.05], "seeds": [1]}
    config |= {"model_params": {"small": {"of": student, "distill": {"teacher": teacher, **given}}}}
    study = load_study(merged(DEFAULT, config))
    assert study.parents("small") == [teacher] and study.trained_on("small") == given.get("data", "poisoned")
    taught, _, _ = trained(teacher, tmp_path / "teacher", 2)
    distill = {"teacher": teacher, **given}
    states = [
        trained(student, tmp_path / side, 2, {teacher: taught}, distill=distill)[0].state() for side in ("one", "two")
    ]
    alone = trained(student, tmp_path / "alone", 2)[0].state()
    # Not the means of what is never measured, which are NaN.
    learned = [name for name in alone if not alone[name].isnan().any()]
    assert states[0].keys() == alone.keys() and all(torch.equal(states[0][name], states[1][name]) for name in learned)
    assert any(not torch.equal(states[0][name], alone[name]) for name in learned)


@pytest.mark.parametrize(
    ("teacher", "student", "given", "message"),
    [
        ("gat", "vgae", {"alpha": 0.5}, r"\.alpha: no such key \(known: data, latent, reconstruction, teacher\)$"),
        ("vgae", "vgae", {"temperature": 2}, r"\.temperature: no such key"),
        ("vgae", "vgae", {}, ": nothing is learned from 'vgae' without a weight; expected latent or reconstruction, "),
        ("gat", "vgae", {"reconstruction": -1}, r"\.reconstruction: -1 given, expected at least 0$"),
        (
            "gat",
            "vgae",
            {"reconstruction": 1},
            r"\.reconstruction: 1 given, but the teacher 'gat' offers no reconstruction; expected 0 or a teacher that "
            r"does \(of this study: none\)$",
        ),
        ("vgae", "gat", {"reconstruction": 1}, r"\.reconstruction: no such key"),
    ],
)
def test_a_pair_that_cannot_be_is_one_line(teacher, student, given, message):
    config = {"models": [teacher, "small"], "triggers": ["payload"], "rates": [0.05], "seeds": [1]}
    config["model_params"] = {"small": {"of": student, "distill": {"teacher": teacher, **given}}}
    with pytest.raises(UserError, match=f"^config: model_params.small.distill{message}") as raised:
        load_study(merged(DEFAULT, config))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("gat", {"hidden": 8, "heads": 2, "layers": 2, "embedding": 8}),
        ("vgae", {"hidden": 4, "heads": 2, "layers": 2, "embedding": 8, "latent": 8}),
    ],
)
def test_large_is_many_times_small(name, small):
    ids = replace(CAN_FEATURES[0], categories=tuple(f"{number:03X}" for number in range(55)))
    sizes = [build(name, given, 100, (ids, *CAN_FEATURES[1:])).size for given in ({}, small)]
    assert sizes[0] >= 15 * sizes[1]


def test_a_cohort_of_patients_is_refused_when_a_model_is_built():
    with pytest.raises(UserError, match="not windows of CAN frames"):
        build("gat", {}, 12, make_cohort(5, 12).features)
