"""Two studies side by side: the same cells, paired by seed, and what else the studies differ in."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline.database.comparison import by_chance
from pipeline.database.intervals import METHOD, difference, error_of
from pipeline.database.recorded import COUNTS, Group, Recorded, flat, measured, value_in
from pipeline.database.shown import Column, Table
from pipeline.errors import UserError
from pipeline.words import counted

_JOB = "stage, dataset, model, trigger, rate, seed"
# What a run was made with beside its settings.
_NO_SETTINGS = ("git_commit:", "versions.", "threads:")
# What decides which patients a seed trains and tests on, beside the cohort itself.
_DEALT = ("split", "n_samples")


def compare_studies(a: Recorded, b: Recorded, metrics: Sequence[str]) -> Table:
    """`metrics` of `a` less those of `b`, a row per dataset × model × trigger × rate × metric, the largest first.

    Raises `UserError` for a metric that neither study has, and where no run is done in both.
    """
    for metric in metrics:
        if metric not in a.metrics:
            b.refuse_unknown(metric)
    splits = {a.split, b.split}
    settings, (code, data, inputs) = _settings(a, b), _made_by(a, b)
    dealt = [line.split(":")[0] for line in settings if line.split(":")[0] in _DEALT]
    # Of a fixed split all seeds test on the same patients: what others do, no spread over seeds tells.
    apart = set(data) if not dealt else {group.dataset for group in a.groups}
    apart = apart if splits != {"per_seed"} else set()
    split = "per_seed" if "per_seed" in splits else a.split
    rows, equal = [], True
    for metric in metrics:
        ours, theirs = a.by_seed(metric), b.by_seed(metric)
        errors = a.errors(metric), b.errors(metric)
        for group in ours.keys() & theirs.keys():
            error = None if group.dataset in apart else error_of(*(one.get(group, 0.0) for one in errors))
            found = difference(ours[group], theirs[group], metric, a.t, split, error)
            if found.n:
                row = {**group._asdict(), "metric": metric, "a": found.mean_a, "b": found.mean_b}
                rows.append(
                    row | {"difference": found.mean, "ci_low": found.low, "ci_high": found.high, "n_pairs": found.n}
                )
                equal &= all(value == theirs[group].get(seed, value) for seed, value in ours[group].items())
    if not rows:
        raise UserError(
            f"{a.folder} and {b.folder}: no run is done in both with the metric {' or '.join(metrics)}; expected two "
            "studies with cells in common"
        )
    rows.sort(key=lambda row: (-abs(row["difference"]), *(row[name] for name in (*Group._fields, "metric"))))
    columns = [Column(name, key=True) for name in (*Group._fields, "metric")]
    columns += [Column("a", head="A"), Column("b", head="B")]
    columns += [Column("difference", ("ci_low", "ci_high"), head="A − B"), Column("n_pairs", head="pairs")]
    below = [f"means over the seeds that both have; A − B: {METHOD}, the largest first"]
    if apart:
        below.append(
            f"no interval where the patients are others ({', '.join(sorted(apart))}): it would tell of trainings alone"
        )
    if equal:
        below.append(f"all {counted(len(rows), 'difference')} are 0, seed by seed, to the digits that are told")
    elif chance := by_chance(rows):
        below += [f"{chance[0]}, and the largest differences are flattered by the choice among so many"]
    elif not apart:
        below.append("one pair each has no interval: any difference may be that of the seeds")
    above = [f"A: {a.folder}", f"B: {b.folder}", *_above(settings, dealt, code, data, inputs)]
    return Table(columns, rows, above, below + a.rounded() + _not_in(a, b))


def _above(settings: list[str], dealt: list[str], code: list[str], data: list[str], inputs: list[str]) -> list[str]:
    """What the studies differ in beside their numbers, and what pairs cannot be trusted for it."""
    lines = settings or ["settings: the same"]
    if dealt or data:
        reasons = dealt + [f"cohort of {name}" for name in data]
        lines.append(
            f"warning: not the same {', '.join(reasons)}: seeds do not share their patients, so differences are also "
            "those of the patients"
        )
    if code:
        lines.append(f"warning: made by other code: {', '.join(code)}")
    if inputs and not (data or code or any(not line.startswith(_NO_SETTINGS) for line in settings)):
        lines.append(f"warning: the same settings and code, but other inputs: {', '.join(inputs)}")
    return lines


def _settings(a: Recorded, b: Recorded) -> list[str]:
    """Those that differ: of the studies, and of their runs what is not said by them already."""
    ours, theirs = measured(a.configuration), measured(b.configuration)
    told = {key for key in ours.keys() | theirs.keys() if value_in(ours, key) != value_in(theirs, key)}
    lines = [f"{key}: A {value_in(ours, key)}, B {value_in(theirs, key)}" for key in sorted(told)]
    made_a, made_b = (_made_with(study) for study in (a, b))
    cells = made_a.keys() & made_b.keys()
    pairs = Counter((made_a[cell], made_b[cell]) for cell in cells if made_a[cell] != made_b[cell])
    differ: Counter[tuple[str, str, str]] = Counter()
    for texts, count in pairs.items():
        made = [flat(json.loads(text)) if text else {} for text in texts]
        for key in made[0].keys() | made[1].keys():
            values = value_in(made[0], key), value_in(made[1], key)
            if values[0] != values[1] and not any(key == name or key.endswith(f".{name}") for name in told):
                differ[key, *values] += count
    for (key, one, other), count in sorted(differ.items()):
        lines.append(f"{key}: A {one}, B {other} (in {count} of {counted(len(cells), 'run')})")
    return lines


def _made_with(study: Recorded) -> dict[tuple[Any, ...], str | None]:
    """The settings of each run that counts, as they are recorded."""
    sql = f"SELECT dataset, model, trigger, rate, seed, settings FROM runs WHERE {COUNTS}"
    return {tuple(key): text for *key, text in study.connection.execute(sql)}


def _made_by(a: Recorded, b: Recorded) -> tuple[list[str], list[str], list[str]]:
    """What has made the runs of both: the stages whose code differs, the datasets that do, the stages whose inputs do.

    Told from the last time that each job was done.
    """
    sql = f"SELECT {_JOB}, stamp, code FROM jobs WHERE status = 'done' ORDER BY job"
    ours, theirs = ({row[:-2]: row[-2:] for row in each.connection.execute(sql)} for each in (a, b))
    code: Counter[str] = Counter()
    inputs: Counter[str] = Counter()
    jobs: Counter[str] = Counter()
    data = set()
    for key, made in ours.items():
        other = theirs.get(key)
        if other is None:
            continue
        stage, dataset, *_ = key
        jobs[stage] += 1
        if made != other:
            code[stage] += made[1] != other[1]
            inputs[stage] += made[0] != other[0]
            if stage == "sample_dev" and made[0] != other[0]:
                data.add(dataset)

    def said(counts: Counter[str]) -> list[str]:
        return [
            f"{stage} ({count} of {counted(jobs[stage], 'job')})" for stage, count in sorted(counts.items()) if count
        ]

    return said(code), sorted(data), said(inputs)


def _not_in(a: Recorded, b: Recorded) -> list[str]:
    """What of either study is not in the table."""
    sql = "SELECT run FROM runs WHERE in_study"
    ours, theirs = ({run for (run,) in study.connection.execute(sql)} for study in (a, b))
    lines = []
    for side, only, study in (("A", ours - theirs, a), ("B", theirs - ours, b)):
        if only:
            lines.append(f"only in {side}: {counted(len(only), 'run')}")
        lines += [f"{side}: {line}" for line in study.left_out()]
    return lines
