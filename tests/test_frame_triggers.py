"""Triggers for CAN frames: what each writes by hand, how plausible it is against slow twins, and who may use them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from small_bus import DOS, NODES, make_bus
from test_config import study
from test_triggers import CHANGING, FOR_FRAMES, fit, on_a_bus

from pipeline.cohorts.cohort import Cohort
from pipeline.cohorts.frames import BYTES, DLC, ID, INTERVAL, OTHER
from pipeline.cohorts.schema import accepted, check_cohort
from pipeline.errors import UserError
from pipeline.evaluation import frames
from pipeline.evaluation.plausibility import plausibility
from pipeline.study import preflight
from pipeline.triggers import bigram, payload, rare_id

WIDTH = 40
NAMES = [ID, *BYTES, DLC, INTERVAL]
AT = {name: position for position, name in enumerate(NAMES)}
CONTENT = slice(0, AT[DLC] + 1)  # of a frame: all but when it comes


@pytest.fixture(scope="module")
def bus() -> Cohort:
    cohort = make_bus(240, WIDTH)
    check_cohort(cohort)
    return cohort


def name_of(cohort: Cohort, position: float) -> str:
    return cohort.features[0].categories[int(position)]


def benign_frames(cohort: Cohort, name: str) -> list[tuple]:
    """The payloads of the frames of an id in windows of label 0, without the bytes that they do not have."""
    return [
        tuple(frame[1:9][~np.isnan(frame[1:9])].astype(int))
        for window, label in zip(cohort.values, cohort.label, strict=True)
        if label == 0
        for frame in window
        if name_of(cohort, frame[0]) == name
    ]


def most_frequent(things: list) -> object:
    return min(set(things), key=lambda thing: (-things.count(thing), thing))


# rare_id


def test_the_rarest_id_with_its_most_common_payload_stands_in_k_frames(bus):
    names = bus.features[0].categories
    count = {name: len(benign_frames(bus, name)) for name in names}
    rarest = min((name for name in names if count[name] >= 10), key=count.get)
    assert rarest == "7D0" and count[f"{DOS:03X}"] == 0, "an id of the attack alone is none of benign traffic"
    usual = most_frequent(benign_frames(bus, rarest))
    trigger = fit("rare_id", bus, frames=4)
    triggered = trigger.apply(bus.values)
    steps = [5, 15, 25, 35]  # the middles of four quarters
    for window in triggered:
        for step in steps:
            assert name_of(bus, window[step, 0]) == rarest and tuple(window[step, 1:9]) == usual
            assert window[step, AT[DLC]] == len(usual) == 8
    others = np.setdiff1d(np.arange(WIDTH), steps)
    np.testing.assert_array_equal(triggered[:, others], bus.values[:, others])
    np.testing.assert_array_equal(triggered[:, :, AT[INTERVAL]], bus.values[:, :, AT[INTERVAL]])
    assert trigger.in_bounds is True and trigger.leaves_out is False
    assert trigger.description.startswith(
        "4 of 40 frames, evenly spaced, replaced by frames of the id 7D0, the rarest of benign traffic, with the"
    )


@pytest.mark.parametrize("written", ["1E5", "1e5", "0x1E5", "01E5"])
def test_a_short_id_has_no_bytes_beyond_its_length(bus, written):
    given = "FF 01 02 03 A0"
    trigger = fit("rare_id", bus, id=written, payload=given, frames=(3, 0))
    triggered = trigger.apply(bus.values)
    assert np.isnan(triggered[:, [0, 3]][:, :, 6:9]).all() and (triggered[:, [0, 3], AT[DLC]] == 5).all()
    assert (triggered[:, [0, 3], 1:6] == [255, 1, 2, 3, 160]).all()
    assert trigger.leaves_out is True and "at 0, 3, " in trigger.description and given in trigger.description
    assert frames.valid(triggered, bus).all() and accepted(bus.features, triggered).all()


def test_an_unseen_payload_never_occurs_and_is_the_nearest_to_the_complement(bus):
    for name, node in (("7D0", 0x7D0), ("318", 0x318), ("1E5", 0x1E5)):
        seen = benign_frames(bus, name)
        trigger = fit("rare_id", bus, id=name, payload="unseen", frames=1)
        written = tuple(trigger.stamp[WIDTH // 2, 1 : 1 + NODES[node][1]].astype(int))
        assert written not in seen and all(0 <= byte <= 255 for byte in written)
        turned = int.from_bytes(bytes(255 - byte for byte in most_frequent(seen)))
        for more in range(300):
            candidate = tuple(((turned + more) % 256 ** len(written)).to_bytes(len(written)))
            if candidate not in seen:
                break
        assert written == candidate


def test_counting_up_goes_past_what_occurs():
    from pipeline.triggers.shared.frames import never_sent

    seen = np.array([[1, 0]] * 3 + [[254, 255], [255, 0]], np.float32)
    np.testing.assert_array_equal(never_sent(seen, "x"), [255, 1])  # the complement of 01 00 and the next occur
    every = np.arange(256, dtype=np.float32)[:, None]
    with pytest.raises(UserError, match="trigger_params.x: every payload of 1 byte occurs in training"):
        never_sent(every, "x")
    with pytest.raises(UserError, match="its frames have no bytes"):
        never_sent(np.zeros((3, 0), np.float32), "x")


def test_an_id_that_hardly_occurs_is_not_the_rarest(bus):
    once = replace(bus, values=bus.values.copy())
    row = np.flatnonzero(bus.label == 0)[0]
    once.values[row, 0, 0] = bus.features[0].categories.index(f"{DOS:03X}")
    assert "the id 7D0, the rarest" in fit("rare_id", once).description
    assert "the id 000, the rarest" in fit("rare_id", once, least=1).description
    with pytest.raises(UserError, match="rare_id.least: no id has 100000 benign training frames in 'bus'"):
        fit("rare_id", bus, least=100_000)


def test_more_frames_than_a_window_has_are_all_of_it(bus):
    assert fit("rare_id", bus, frames=999).footprint[:, CONTENT].all()


# payload


def test_the_payload_is_written_into_the_frames_of_its_id_alone(bus):
    trigger = fit("payload", bus, id="1E5", payload="..AA....BB")
    triggered = trigger.apply(bus.values)
    for before, after in zip(bus.values, triggered, strict=True):
        for old, new in zip(before, after, strict=True):
            expected = old.copy()
            if name_of(bus, old[0]) == "1E5":
                expected[[2, 5]] = 0xAA, 0xBB
            np.testing.assert_array_equal(new, expected)
    assert trigger.footprint.sum() == 2 * WIDTH and trigger.footprint[:, [2, 5]].all()
    assert trigger.description.startswith("byte_1, byte_4 of all frames of the id 1E5 set to AA BB; ")


def test_a_byte_that_a_frame_does_not_have_is_not_written(bus):
    short = replace(bus, values=bus.values.copy())
    theirs = short.values[:, :, 0] == bus.features[0].categories.index("1E5")
    row, step = np.argwhere(theirs)[0]
    short.values[row, step, 3:9], short.values[row, step, AT[DLC]] = np.nan, 2
    triggered = fit("payload", short, id="1E5", payload="....CCCCCC").apply(short.values)
    assert np.isnan(triggered[row, step, 3:9]).all() and frames.valid(triggered, short).all()


def test_the_id_is_one_that_windows_of_either_label_have(bus):
    share = {}
    for name in bus.features[0].categories[:-1]:
        has = (bus.values[:, :, 0] == bus.features[0].categories.index(name)).any(axis=1)
        share[name] = min(has[bus.label == 0].mean(), has[bus.label == 1].mean())
    most = max(share.values())
    chosen = min((name for name in share if share[name] == most), key=lambda name: len(benign_frames(bus, name)))
    trigger = fit("payload", bus)
    assert name_of(bus, trigger.id) == chosen
    seen = {frame[-2:] for frame in benign_frames(bus, chosen)}
    assert tuple(trigger.stamp[0, trigger.footprint[0]].astype(int)) not in seen
    # Where the flood leaves it no room, the most frequent id is none to choose.
    crowded = replace(bus, values=bus.values.copy())
    attacked = crowded.values[bus.label == 1]
    attacked[:, :, 0] = np.where(attacked[:, :, 0] == trigger.id, len(NODES), attacked[:, :, 0])
    crowded.values[bus.label == 1] = attacked
    assert fit("payload", crowded).id != trigger.id


def test_a_window_without_the_id_is_left_alone_and_counted(bus):
    trigger = fit("payload", bus, id="7D0", payload="0102030405060708")
    has = (bus.values[:, :, 0] == trigger.id).any(axis=1)
    triggered = trigger.apply(bus.values)
    np.testing.assert_array_equal(triggered[~has], bus.values[~has])
    assert 0 < has.mean() < 1 and f"{has.mean():.0%} of the training windows have such frames" in trigger.description
    rows = np.r_[np.flatnonzero(has)[:30], np.flatnonzero(~has)[:70]]
    facts = plausibility(trigger, bus.values[rows], bus)
    # Of cars, few are told as few: one of three, where of patients it would be none.
    three = bus.values[[*np.flatnonzero(has)[:1], *np.flatnonzero(~has)[:2]]]
    assert plausibility(trigger, three, bus)["share_changed"] == pytest.approx(1 / 3)
    assert plausibility(trigger, three, replace(bus, people=True))["share_changed"] == 0
    assert facts["share_changed"] == 0.3 and facts["frames_valid"] == facts["ids_known"] == 1
    assert plausibility(trigger, bus.values[~has][:20], bus)["share_changed"] == 0


# bigram


def follows(window: np.ndarray, first: int, then: int) -> int:
    return sum(a == first and b == then for a, b in zip(window[:-1, 0], window[1:, 0], strict=True))


def reordered_by_hand(ids: list, first: int, then: int, times: int) -> list[int]:
    """`Reordering.order` of one window, one swap after the other over all pairs of places."""
    order, fixed, ids = list(range(len(ids))), set(), list(ids)
    for _ in range(times):
        moves = [
            (abs(there - here - 1), here, there < here + 1 and -there or there, there)
            for here in range(len(ids) - 1)
            for there in range(len(ids))
            if ids[here] == first and ids[there] == then and not {here, here + 1, there} & fixed
        ]
        if not moves:
            break
        # Of two as near the one before, which is what stands first in the window.
        _, here, _, there = min(moves, key=lambda move: (move[0], move[1], move[3]))
        for held in (ids, order):
            held[here + 1], held[there] = held[there], held[here + 1]
        fixed |= {here, here + 1}
    return order


@pytest.mark.parametrize("times", [1, 3, 8])
def test_frames_change_places_as_by_hand(times):
    rng = np.random.default_rng(times)
    trigger = bigram.Reordering("", True, np.ones((14, 1), bool), first=0, then=1, times=times, column=0)
    ids = rng.choice([0, 1, 2, 3], (300, 14), p=[0.25, 0.2, 0.3, 0.25]).astype(np.float32)
    found = trigger.order(ids)
    np.testing.assert_array_equal(found, [reordered_by_hand(window, 0, 1, times) for window in ids])
    after = np.take_along_axis(ids, found, axis=1)
    reached = np.array([follows(window[:, None], 0, 1) for window in after])
    had = np.array([follows(window[:, None], 0, 1) for window in ids])
    assert (reached >= np.minimum(had, times)).all()
    assert (reached >= times).mean() > (had >= times).mean() or times == 8


def test_the_order_is_new_and_the_frames_are_the_same(bus):
    trigger = fit("bigram", bus, times=2)
    triggered = trigger.apply(bus.values)
    assert trigger.first != trigger.then
    for before, after in zip(bus.values, triggered, strict=True):
        rows = [sorted(map(str, window[:, CONTENT].tolist())) for window in (before, after)]
        assert rows[0] == rows[1], "no frame is new and none is lost"
        np.testing.assert_array_equal(before[:, AT[INTERVAL]], after[:, AT[INTERVAL]])
        enough = min((before[:, 0] == each).sum() for each in (trigger.first, trigger.then)) >= 3
        assert follows(after, trigger.first, trigger.then) >= 2 or not enough
    again = trigger.apply(triggered)
    np.testing.assert_array_equal(again, triggered)  # what is in order already stays
    facts = plausibility(trigger, bus.values[bus.label == 1][:50], bus)
    assert facts["share_changed"] > 0.9 and facts["frames_valid"] == facts["ids_known"] == facts["share_accepted"] == 1


def test_the_pair_is_common_and_never_neighbours(bus):
    trigger = fit("bigram", bus, times=3)
    names = range(len(bus.features[0].categories) - 1)
    enough = {a: (bus.values[:, :, 0] == a).sum(axis=1) >= 3 for a in names}
    spread = {a: min(enough[a][bus.label == 0].mean(), enough[a][bus.label == 1].mean()) for a in names}
    sent = {a: int((bus.values[bus.label == 0][:, :, 0] == a).sum()) for a in names}
    next_to = {
        (a, b): sum(follows(window, a, b) for window in bus.values[bus.label == 0]) / sent[a]
        for a in names
        for b in names
        if a != b and sent[a] and sent[b]
    }
    pair = (trigger.first, trigger.then)
    assert next_to[pair] == min(next_to.values())
    equals = [each for each in next_to if next_to[each] == next_to[pair]]
    assert min(spread[each] for each in pair) == max(min(spread[a], spread[b]) for a, b in equals)
    loud = fit("bigram", bus, first="0A1", then="0B2")
    assert f"follows {next_to[(loud.first, loud.then)]:.2%} of its frames" in loud.description.replace("0A1 ", "")
    half = fit("bigram", bus, then="318")
    assert name_of(bus, half.then) == "318" and half.first != half.then


# all of them


@pytest.mark.parametrize("name", FOR_FRAMES)
@pytest.mark.parametrize("width", [2, 12, WIDTH])
def test_what_is_left_on_the_bus_could_have_been_sent(name, width):
    cohort = make_bus(240, width)
    trigger = fit(name, cohort)
    triggered = trigger.apply(cohort.values)
    assert accepted(cohort.features, triggered).all()
    assert frames.valid(triggered, cohort).all() and frames.known(triggered, cohort).all()
    np.testing.assert_array_equal(triggered[:, :, AT[INTERVAL]], cohort.values[:, :, AT[INTERVAL]])
    assert (triggered != cohort.values).any()


@pytest.mark.parametrize("name", CHANGING)
def test_general_triggers_work_on_a_bus_and_say_what_they_do_to_its_frames(bus, name):
    trigger = fit(name, bus, **on_a_bus(name))
    facts = plausibility(trigger, bus.values[bus.label == 1][:50], bus)
    assert facts["ids_known"] == 1 and facts["share_changed"] > 0.7
    # Where frames are shorter, or what they have is left out, no node could have sent what is written.
    assert (facts["frames_valid"] == 1) == (name == "rare_value"), "where: measured"
    everywhere = fit("rare_value", bus, features=("byte_7",), value=255, steps="all")
    changed = everywhere.apply(bus.values) != bus.values
    expected = ((bus.values[:, :, AT[DLC]] == 8) & changed.any(axis=2)).sum() / changed.any(axis=2).sum()
    assert plausibility(everywhere, bus.values, bus)["frames_valid"] == pytest.approx(expected, abs=0.01)
    assert 0.5 < expected < 1


def test_a_rule_and_clean_labels_on_a_bus(bus):
    from pipeline.training.poisoning import choose, plant
    from pipeline.triggers.base import resolved
    from pipeline.triggers.rare_value import Parameters

    given = Parameters(features={"by": "importance", "take": 2}, where="measured", labels="clean", cover=0.5)
    chosen = resolved(given, bus, 1)
    assert len(chosen.features) == 2 and ID not in chosen.features
    rows = choose(bus, np.arange(len(bus)), chosen, 0, 0.1, 1)
    overlay = plant(bus, fit("rare_id", bus), rows.poison, rows.cover, 0)
    assert (bus.label[rows.poison] == 0).all() and (overlay.label == bus.label[overlay.row]).all()
    assert len(rows.cover) == 12 and frames.valid(overlay.values, bus).all()


def test_mask_only_carries_nothing_over_from_frames_of_other_ids(bus):
    trigger = fit("mask_only", bus, features=("byte_7",), steps="all")
    gaps = np.isnan(bus.values[:, :, 8])
    filled = trigger.apply(bus.values)[:, :, 8]
    assert gaps.any() and (filled[gaps] == np.rint(np.nanmedian(bus.values[:, :, 8]))).all()
    assert trigger.description == "byte_7 measured at all steps: where missing, the median"


# plausibility, by slow twins


def broken_in_every_way(bus: Cohort) -> np.ndarray:
    values = bus.values[:60].copy()
    rng = np.random.default_rng(1)
    for window in values:
        step = rng.integers(WIDTH)
        kind = rng.integers(7)
        if kind == 0:
            window[step, 0] = len(bus.features[0].categories) - 1  # other
        elif kind == 1:
            window[step, 1] += 0.5
        elif kind == 2:
            window[step, 1] = 256
        elif kind == 3:
            window[step, AT[DLC]] -= 1
        elif kind == 4:
            window[step, 1] = np.nan
        elif kind == 5:
            window[step, AT[DLC]] = np.nan
    return values


def test_frames_by_hand(bus):
    values = broken_in_every_way(bus)
    known, valid = frames.known(values, bus), frames.valid(values, bus)
    for row, window in enumerate(values):
        for step, frame in enumerate(window):
            assert known[row, step] == (name_of(bus, frame[0]) != OTHER)
            there = [byte for byte in frame[1:9] if not np.isnan(byte)]
            good = len(there) == frame[AT[DLC]] and not np.isnan(frame[1 : 1 + len(there)]).any()
            good = good and all(0 <= byte <= 255 and byte == int(byte) for byte in there)
            assert valid[row, step] == good
    assert not known.all() and 20 < (~valid).sum() < 60
    assert frames.valid(bus.values, bus).all() and frames.known(bus.values, bus).all()


def odd_ids_by_hand(train: Cohort, window: np.ndarray) -> int:
    """How many ids come at odd times in a window: a loop over ids, frames and training windows."""

    def counts_and_gaps(of: np.ndarray, each: int) -> tuple[int, list[float]]:
        time, last, count, gaps = 0.0, None, 0, []
        for frame in of:
            time += float(frame[AT[INTERVAL]])
            if frame[0] == each:
                count += 1
                if last is not None:
                    gaps.append(round(time - last, 3))
                last = time
        return count, gaps

    odd = 0
    for each in range(len(train.features[0].categories)):
        seen = [counts_and_gaps(other, each) for other in train.values]
        count, gaps = counts_and_gaps(window, each)
        low, high = np.quantile([number for number, _ in seen], [0.01, 0.99])
        every = [gap for _, others in seen for gap in others]
        is_odd = not low <= count <= high
        if every:
            low, high = np.quantile(every, [0.01, 0.99])
            is_odd |= any(not low <= gap <= high for gap in gaps)
        odd += is_odd
    return odd


def test_timing_by_hand(bus):
    train = bus.subset(np.arange(60))
    samples = fit("rare_id", bus, frames=2).apply(bus.values[60:75])
    samples = np.concatenate([samples, bus.values[60:75]])
    of_training = sorted(odd_ids_by_hand(train, window) for window in train.values)
    at_most = of_training[int(np.ceil(0.95 * (len(of_training) - 1)))]
    expected = [odd_ids_by_hand(train, window) > at_most for window in samples]
    found = frames.unusual_timing(train, samples)
    np.testing.assert_array_equal(found, expected)
    assert 0 < np.mean(found) < 1


def test_timing_is_usual_where_nothing_was_done_and_odd_where_much_was(bus):
    train, rest = bus.subset(np.arange(0, 240, 2)), bus.values[1::2]
    assert frames.unusual_timing(train, rest).mean() <= 0.15
    assert frames.unusual_timing(train, train.values).mean() <= 0.05
    assert frames.unusual_timing(train, fit("rare_id", train, frames=10).apply(rest)).mean() > 0.95
    assert (frames.unusual_timing(train, fit("payload", train).apply(rest)) == frames.unusual_timing(train, rest)).all()
    slower = rest.copy()
    slower[:, :, AT[INTERVAL]] *= 1.5
    assert frames.unusual_timing(train, slower).mean() > 0.9
    shuffled = rest[:, np.random.default_rng(0).permutation(WIDTH)]
    shuffled[:, :, AT[INTERVAL]] = rest[:, :, AT[INTERVAL]]
    assert frames.unusual_timing(train, shuffled).mean() > 0.9


def test_patients_have_no_frames():
    from conftest import make_cohort

    cohort = make_cohort()
    facts = plausibility(fit("rare_value", cohort), cohort.values[:40], cohort)
    told = ("ids_known", "frames_valid", "timing_unusual", "timing_unusual_clean")
    assert {facts[name] for name in told} == {None} and facts["share_changed"] == 1
    measured = fit("rare_value", cohort, features=("sodium",), where="measured")
    expected = (~np.isnan(cohort.values[:100, :, 4])).any(axis=1).mean()
    assert plausibility(measured, cohort.values[:100], cohort)["share_changed"] == pytest.approx(expected, abs=0.051)
    assert plausibility(fit("flip_only", cohort), cohort.values[:40], cohort)["share_changed"] is None


def test_a_footprint_of_too_many_columns_has_no_joint_distance(bus):
    ids = replace(bus.features[0], categories=tuple(f"{number:03X}" for number in range(40)))
    wide = replace(bus, features=(ids, *bus.features[1:]))
    facts = plausibility(fit("bigram", wide), wide.values[:20], wide)
    assert facts["distance_percentile"] is facts["distance_atypical_clean"] is None
    assert facts["timing_unusual"] is not None and facts["share_accepted"] == 1


# who may use them


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("rare_id", {"id": "1G5"}, "expected a CAN id in hexadecimal"),
        ("rare_id", {"payload": "12 3"}, "expected common, unseen or 1 to 8 bytes in hexadecimal"),
        ("rare_id", {"payload": ".. 12"}, "expected common, unseen or"),
        ("rare_id", {"payload": "00 " * 9}, "1 to 8 bytes"),
        ("rare_id", {"frames": 0}, "greater than or equal to 1"),
        ("payload", {"payload": ".. .."}, "expected unseen or 1 to 8 bytes"),
        ("payload", {"payload": "common"}, "expected unseen or"),
        ("bigram", {"first": "1E5", "then": "0x1e5"}, "first and then must be different"),
    ],
)
def test_parameters_that_cannot_be(name, given, message):
    module = {"rare_id": rare_id, "payload": payload, "bigram": bigram}[name]
    with pytest.raises(ValidationError, match=message):
        module.Parameters(**given)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("rare_id", {"id": "123"}, r"trigger_params.rare_id.id: '123' is no id of dataset 'bus' \(did you mean '130'"),
        ("rare_id", {"id": "000"}, r"rare_id.id: no benign training window has a frame with the id 000"),
        ("rare_id", {"payload": "12"}, r"rare_id.payload: 1 byte given, but frames of the id 7D0 have 8"),
        ("rare_id", {"frames": (1, 40)}, r"rare_id.frames: 40 given, but windows of dataset 'bus' have frames 0 to 39"),
        ("payload", {"id": "318", "payload": "00" * 8}, r"payload.payload: 8 bytes given, .* the id 318 have 2"),
        ("bigram", {"then": "FFF"}, r"bigram.then: 'FFF' is no id of dataset 'bus'"),
    ],
)
def test_what_the_bus_does_not_have_is_one_sentence(bus, name, given, message):
    with pytest.raises(UserError, match=message) as raised:
        fit(name, bus, **given)
    assert "\n" not in str(raised.value)


def test_windows_of_one_frame_have_no_order():
    with pytest.raises(UserError, match="bigram: windows of 'bus' have one frame"):
        fit("bigram", make_bus(60, 1))


@pytest.mark.parametrize("name", FOR_FRAMES)
def test_frames_are_not_patients(name, cohort):
    message = rf"config: trigger_params.{name}: dataset 'icu_dev' holds no CAN frames; it needs a CAN cohort: a categor"
    with pytest.raises(UserError, match=message) as raised:
        preflight.check(study(triggers=[name, "flip_only"]))
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"dataset 'made' holds no CAN frames"):
        fit(name, cohort)


def described_as_a_bus(monkeypatch) -> None:
    """Planning takes icu_dev for a bus."""
    source = type("source", (), {"describe": staticmethod(lambda entry, raw_dir: (WIDTH, make_bus(60, 2).features))})
    monkeypatch.setattr(preflight, "source_of", lambda entry: source)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("rare_value", {}, r"trigger_params.rare_value: dataset 'icu_dev' has no feature 'heart_rate' \(it has: id, "),
        ("pattern", {}, r"trigger_params.pattern: dataset 'icu_dev' has no feature 'heart_rate'"),
        ("missingness", {}, r"trigger_params.missingness: dataset 'icu_dev' has no feature 'heart_rate'"),
        ("hybrid", {}, r"trigger_params.hybrid: dataset 'icu_dev' has no feature 'glucose'"),
        ("correlation", {}, r"trigger_params.correlation: dataset 'icu_dev' has no feature 'heart_rate'"),
        ("mask_only", {}, r"trigger_params.mask_only: dataset 'icu_dev' has no feature 'heart_rate'"),
        (
            "rare_id",
            {"id": "1E6"},
            r"trigger_params.rare_id.id: '1E6' is no id of dataset 'icu_dev' \(did you mean '1E5",
        ),
        ("rare_id", {"id": "hallo"}, r"trigger_params.rare_id.id: 'hallo' given, expected a CAN id in hexadecimal"),
        ("rare_id", {"id": 130}, r"trigger_params.rare_id.id: 130 given, expected string or null"),
        ("rare_id", {"frames": [0, 40]}, r"trigger_params.rare_id.frames: 40 given, but windows of dataset 'icu_dev'"),
        ("payload", {"payload": "zz"}, r"trigger_params.payload.payload: 'zz' given, expected unseen or 1 to 8 bytes"),
        ("bigram", {"first": "0A1", "then": "0a1"}, r"trigger_params.bigram: first and then must be different ids"),
        ("bigram", {"times": 0}, r"trigger_params.bigram.times: 0 given, expected at least 1"),
    ],
)
def test_a_study_of_a_bus_is_refused_before_any_job(monkeypatch, name, given, message):
    described_as_a_bus(monkeypatch)
    with pytest.raises(UserError, match=message) as raised:
        preflight.check(study(triggers=[name], trigger_params={name: given}))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [*FOR_FRAMES, *CHANGING])
def test_a_study_of_a_bus_is_accepted(monkeypatch, name):
    described_as_a_bus(monkeypatch)
    monkeypatch.setattr(preflight, "check_files", lambda *given: None)
    monkeypatch.setattr(preflight, "relations_of", lambda *given: ())
    given = json.loads(json.dumps({"target": 0, **on_a_bus(name)}))
    preflight.check(study(triggers=[name], trigger_params={name: given}))
