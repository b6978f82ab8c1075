"""How a metric changes with one parameter of the grid or the settings, everything else told apart."""

import json
from collections.abc import Sequence
from typing import Any

from pipeline.database.intervals import SAME_PATIENTS, Estimate, bounds_of, over_seeds, shared
from pipeline.database.recorded import COUNTS, Group, Recorded, differing, flat, measured, other_cohorts
from pipeline.database.shown import Column, Table
from pipeline.errors import UserError
from pipeline.study.grid import CLEAN
from pipeline.study.variants import BASELINE, SECTIONS

_OWN_CONTROL = {"asr": "asr0", "asr_own_threshold": "asr0_own_threshold"}


def sweep(studies: Sequence[Recorded], param: str, metric: str) -> Table:
    """`metric` by the values of `param`: a row per value and whatever else differs; nothing but seeds is averaged.

    Raises `UserError` for a metric that no run has, and for a `param` that does not vary, with those that do.
    """
    for study in studies:
        study.refuse_unknown(metric)
    several = len(studies) > 1
    rows, below, in_settings = [], [], param not in (*Group._fields, "seed")
    for study in studies:
        old = set() if param == "seed" else study.old_means(metric)
        found = _by_setting(study, param, metric) if in_settings else _by_key(study, param, metric)
        controls = _controls(study, metric, by_seed=param == "seed")
        for row in found:
            group = Group(*(row[name] for name in Group._fields))
            row |= {"study": str(study.folder), "current": int(group not in old)}
            row["kind"] = "control" if study.is_control(group.trigger) else "attack"
            row["seeds"] = f"{row['n_seeds']}/{row['n_asked']}{'*' if group in old else ''}"
            row["control"] = controls.get((group, row["value"]) if param == "seed" else group)
        rows += found
        said = [*study.left_out(), *study.of_old(old)]
        below += [f"{study.folder}: {line}" if several else line for line in said]
    values = {json.dumps(row["value"]) for row in rows}
    if len(values) < 2:
        known = f"{param} is {next(iter(values))} in all runs" if values else f"unknown {param!r}"
        raise UserError(f"sweep: {known}; expected one of those that vary: {', '.join(_varying(studies)) or 'none'}")
    others = [name for name in ("study", *Group._fields) if name != param and (name != "study" or several)]
    tied = [name for name in others if in_settings and _goes_with(name, rows)]
    first = [name for name in others if name not in tied]
    rows.sort(key=lambda row: (*(row[name] for name in first), _in_order(row["value"]), *(row[name] for name in tied)))
    for row in rows:
        if isinstance(row["value"], list | dict | bool):
            row["value"] = json.dumps(row["value"])
    columns = [
        *[Column(name, key=True) for name in first],
        Column(param, field="value", key=True),
        *[Column(name, key=True) for name in tied],
        Column("kind"),
        *[Column("", head="seeds", field="seeds")] * (param != "seed"),
        *[Column(name, head=None) for name in ("n_seeds", "n_asked", "current")],
        Column("mean", ("ci_low", "ci_high"), head=metric),
        Column("control", head="" if any(row["control"] is not None for row in rows) else None),
    ]
    above = [f"beside {param}: {line}" for line in differing(studies, but=param)] if several else []
    above += other_cohorts(studies)
    how = [_how(param, metric), *studies[0].rounded()]
    if tied:
        how.append(f"{param} differs only where the {' and the '.join(tied)} does: so may anything else about these")
    return Table(columns, rows, above, how + below)


def _goes_with(name: str, rows: Sequence[dict[str, Any]]) -> bool:
    """Whether the key `name` alone says what the value is, and is not the same everywhere."""
    values: dict[Any, set[str]] = {}
    for row in rows:
        values.setdefault(row[name], set()).add(json.dumps(row["value"]))
    return len(values) > 1 and all(len(found) == 1 for found in values.values())


def _by_key(study: Recorded, param: str, metric: str) -> list[dict[str, Any]]:
    """A row per group, or per run where seeds are what is looked at."""
    if param == "seed":
        return [
            {**group._asdict(), "value": seed, "n_seeds": 1, "n_asked": 1, "mean": value}
            for group, values in study.by_seed(metric).items()
            for seed, value in values.items()
            if group in study.groups
        ]
    return [
        {**group._asdict(), "value": getattr(group, param), "n_seeds": mean.n_seeds, "n_asked": study.groups[group]}
        | {"mean": mean.mean, "ci_low": mean.low, "ci_high": mean.high}
        for group, mean in study.means(metric).items()
    ]


def _by_setting(study: Recorded, param: str, metric: str) -> list[dict[str, Any]]:
    """A row per group and value of `param`: seeds of a group that were made with other values are not averaged."""
    means, errors, rows = study.means(metric), study.errors(metric), []
    numbers = study.by_seed(metric)
    values: dict[Group, dict[str, list[int]]] = {}
    for group, seed, settings in _settings(study):
        if param in settings:
            values.setdefault(group, {}).setdefault(json.dumps(settings[param]), []).append(seed)
    for group, by_value in values.items():
        for text, seeds in by_value.items():
            row = {**group._asdict(), "value": json.loads(text), "n_asked": study.groups.get(group, 0)}
            found: Estimate | None
            if len(by_value) == 1:
                found = Estimate(*means[group]) if group in means else None
            else:
                found = over_seeds(
                    [numbers[group][seed] for seed in seeds if seed in numbers.get(group, {})],
                    study.t,
                    bounds=bounds_of(metric),
                    test_to_train=shared(metric, study.split),
                    error=errors.get(group, 0.0),
                )
            if found is not None and found.n:
                row |= {"n_seeds": found.n, "mean": found.mean, "ci_low": found.low, "ci_high": found.high}
                rows.append(row)
    return rows


def _settings(study: Recorded) -> list[tuple[Group, int, dict[str, Any]]]:
    """What each run that counts was made with, by dotted names, and by their ends where these mean one thing."""
    known: dict[str | None, dict[str, Any]] = {}
    sql = f"SELECT {', '.join(Group._fields)}, seed, settings FROM runs WHERE {COUNTS}"
    found = []
    for *key, seed, text in study.connection.execute(sql):
        if text not in known:
            own = flat(json.loads(text)) if text else {}
            # What the study says of members of families is of these alone; of its own each run knows it itself.
            shared = {
                name: value
                for name, value in measured(study.configuration).items()
                if name.partition(".")[0] not in SECTIONS.values()
            }
            known[text] = _with_ends(shared | own)
        found.append((Group(*key), seed, known[text]))
    return found


def _with_ends(settings: dict[str, Any]) -> dict[str, Any]:
    """`settings`, also by what their names end with: training.epochs as epochs, if it is the only one."""
    ends: dict[str, list[Any]] = {}
    for name, value in settings.items():
        parts = name.split(".")
        for place in range(1, len(parts)):
            ends.setdefault(".".join(parts[place:]), []).append(value)
    return {end: values[0] for end, values in ends.items() if len(values) == 1} | settings


def _varying(studies: Sequence[Recorded]) -> list[str]:
    keys = [[*group] for study in studies for group in study.groups]
    found = [name for place, name in enumerate(Group._fields) if len({key[place] for key in keys}) > 1]
    found += ["seed"] * any(count > 1 for study in studies for count in study.groups.values())
    values: dict[str, set[str]] = {}
    for study in studies:
        for _, _, settings in _settings(study):
            for name, value in settings.items():
                values.setdefault(name, set()).add(json.dumps(value))
    names = sorted(name for name, distinct in values.items() if len(distinct) > 1)
    return [*found, *(name for name in names if not any(other.endswith(f".{name}") for other in names))]


def _controls(study: Recorded, metric: str, by_seed: bool) -> dict[Any, float | None]:
    """What `metric` is held against: the mean of each group or, by group and seed, of each run."""
    name, _, detector = metric.partition(":")
    other = _OWN_CONTROL.get(metric, f"{name}:{BASELINE}" if detector else metric)
    values: dict[Any, float | None]
    if by_seed:
        values = {(group, seed): value for group, own in study.by_seed(other).items() for seed, value in own.items()}
    else:
        values = {group: mean.mean for group, mean in study.means(other).items()}
    if other != metric:
        return values

    def clean(key: Any) -> Any:
        group = key[0] if by_seed else key
        control = group._replace(trigger=CLEAN, rate=0.0)
        return (control, key[1]) if by_seed else control

    return {key: values.get(clean(key)) for key in values if clean(key) != key}


def _how(param: str, metric: str) -> str:
    name, _, detector = metric.partition(":")
    control = "the clean runs of the same model"
    if metric in _OWN_CONTROL:
        control = f"{_OWN_CONTROL[metric]}, the clean model on the same triggered samples"
    elif detector:
        control = "random scores"
    elif name.startswith(("asr", "effect_share")):
        clean_model = "is the clean model's" if name.startswith("asr0") else "is against the clean model already"
        control = f"none: {metric} {clean_model}"
    over = (
        "one run each, which has no interval"
        if param == "seed"
        else f"mean over seeds with its 95 % interval, {SAME_PATIENTS}"
    )
    return f"{metric}: {over}. Control: {control}"


def _in_order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, before words."""
    if isinstance(value, int | float):
        return (0, value, "")
    return (1, 0.0, json.dumps(value))
