"""Two runs of a study side by side, or two groups of seeds: their numbers, their settings, and one dataset's facts."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.database.intervals import METHOD, SAME_PATIENTS, difference, error_of, mean
from pipeline.database.recorded import Group, Mean, Recorded, Run, flat, value_in
from pipeline.database.shown import Column, Table
from pipeline.errors import UserError
from pipeline.results.columns import LABEL_AUROC
from pipeline.study.grid import CLEAN
from pipeline.words import counted, suggestion

# What is compared unless all is asked for: the attack beside its control, what it costs, and who finds it.
HEADLINES = ["effect_share", "asr", "asr0", "asr_net", "effect_share_own_threshold", "asr_own_threshold"]
HEADLINES += ["asr0_own_threshold", "auroc_clean", "auprc_clean", "f1_clean", "fpr_clean", "recall_clean"]
HEADLINES += ["brier_clean", "footprint_share", "ratio_triggered", "ratio_control"]
_FACTS = ("n_poisoned", "n_triggered", "epochs", "n_parameters")  # of runs, and nothing to be compared


def compare(study: Recorded, names: tuple[str, str], every: bool) -> Table:
    """The metrics of two runs, or two groups of seeds, called `names`, and the difference of the first to the second.

    Raises `UserError` for a name that is none, for a run and a group, and where nothing is done that could be compared.
    """
    sides = [study.named(name) for name in names]
    single = [_is_run(name) for name in names]
    if single[0] != single[1]:
        run, group = names if single[0] else names[::-1]
        raise UserError(f"{run} is one run and {group} are several: expected two runs, or two groups of seeds")
    below = []
    for name, runs in zip(names, sides, strict=True):
        gone = [run for run in runs if not run.counts]
        if len(gone) == len(runs):
            raise UserError(f"{name}: {_state(gone[0])}; expected a run that is done")
        below += [f"left out: {run}: {_state(run)}" for run in gone]
    a, b = (study.numbers_of([run for run in runs if run.counts]) for runs in sides)
    known = [metric for metric in dict.fromkeys([*a, *b]) if metric not in _FACTS]
    wanted = [metric for metric in HEADLINES if metric in known]
    wanted += sorted(metric for metric in known if metric.startswith(f"{LABEL_AUROC}:"))
    if every:
        wanted += sorted(metric for metric in known if metric not in wanted)
    if not wanted:
        raise UserError(f"{names[0]}: done, but without numbers; `python -m pipeline db populate` takes them over")
    datasets = {runs[0].dataset for runs in sides}
    alike = len(datasets) == 1
    errors = [] if single[0] else [study.errors_of(runs[0].group) for runs in sides]
    rows = []
    for metric in wanted:
        error = error_of(*(one.get(metric, 0.0) for one in errors)) if errors else 0.0
        rows.append(_row(study, metric, a.get(metric, {}), b.get(metric, {}), single[0], alike, error))
    columns = [Column("metric", key=True), Column("a", head="A"), Column("b", head="B")]
    if single[0]:
        columns.append(Column("difference", head="A − B"))
        groups = " ".join(str(runs[0].group) for runs in sides)
        below.append(
            "one seed each: a difference may be that of the seeds, and has no interval; with one over all seeds: "
            f"python -m pipeline db compare {groups}"
        )
    else:
        columns += [Column("difference", ("ci_low", "ci_high"), head="A − B"), Column("n_pairs", head="pairs")]
        below.append(f"means over the seeds that both have; A − B: {METHOD}")
        below += by_chance(rows)
    if not alike:
        below.append(f"{' and '.join(sorted(datasets))} have no patients in common: no pairs, and no difference")
    return Table(columns, rows, [f"{side}: {name}" for side, name in zip("AB", names, strict=True)], below)


def _row(
    study: Recorded,
    metric: str,
    a: dict[int, float],
    b: dict[int, float],
    single: bool,
    alike: bool,
    error: float | None,
) -> dict[str, Any]:
    if single:
        one, other = (next(iter(values.values()), None) for values in (a, b))
        row = {"metric": metric, "a": one, "b": other, "difference": None}
        return row | ({"difference": one - other} if alike and one is not None and other is not None else {})
    if not alike:
        return {"metric": metric, "a": mean(a.values()), "b": mean(b.values()), "n_pairs": 0, "ci_low": None}
    found = difference(a, b, metric, study.t, study.split, error)
    row = {"metric": metric, "a": found.mean_a, "b": found.mean_b, "n_pairs": found.n}
    if not found.n:  # a clean run has no ASR: its side is missing, not the other's
        row |= {"a": mean(a.values()), "b": mean(b.values())}
    return row | {"difference": found.mean, "ci_low": found.low, "ci_high": found.high}


def by_chance(rows: Iterable[dict[str, Any]]) -> list[str]:
    """A sentence on how many of the intervals of `rows` exclude 0, and how many would anyway."""
    found = [row for row in rows if row["ci_low"] is not None]
    if len(found) < 2:
        return []
    apart = sum(row["ci_low"] > 0 or row["ci_high"] < 0 for row in found)
    return [f"{apart} of {len(found)} intervals exclude 0; of as many without any difference about 5 % would"]


def _is_run(name: str) -> bool:
    return name.strip("/").count("/") == len(Group._fields)


def _state(run: Run) -> str:
    if run.status == "done":
        return "done, but not in the numbers yet" if run.in_study else "no part of the study any more"
    return ", ".join(filter(None, [run.status, run.stage and f"at {run.stage}", run.why]))


def config_diff(study: Recorded, names: tuple[str, str], every: bool) -> Table:
    """The settings that two runs, or two groups of seeds, were made with: those that differ, or `every` one.

    Raises `UserError` for a name that is none, and where nothing has recorded the settings.
    """
    a, b = (_settings_of(name, study.named(name)) for name in names)
    keys = sorted(a.keys() | b.keys())
    texts = {key: (value_in(a, key), value_in(b, key)) for key in keys}
    shown = [key for key in keys if every or texts[key][0] != texts[key][1]]
    differ = sum(one != other for one, other in texts.values())
    rows = [
        {"setting": key, "a": texts[key][0] if key in a else None, "b": texts[key][1] if key in b else None}
        for key in shown
    ]
    told = (
        f"{differ} of {counted(len(keys), 'setting')} differ"
        if differ
        else f"all {counted(len(keys), 'setting')} equal"
    )
    above = [f"{side}: {name}" for side, name in zip("AB", names, strict=True)]
    return Table([Column("setting", key=True), Column("a", head="A"), Column("b", head="B")], rows, above, [told])


def _settings_of(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    # What was recorded of a run that has been made anew since is not what it was made with.
    known = [run for run in runs if run.current or run.status != "done"]
    found = {run.seed: flat(json.loads(run.settings)) for run in known if run.settings}
    if not found:
        raise UserError(f"{name}: no settings recorded of what it has now; expected a run that is in the numbers")
    settings: dict[str, Any] = {}
    for key in {key for one in found.values() for key in one}:
        values = {seed: one[key] for seed, one in found.items() if key in one}
        texts = {json.dumps(value) for value in values.values()}
        same = len(texts) == 1 and len(values) == len(found)
        settings[key] = (
            next(iter(values.values())) if same else {f"seed {seed}": value for seed, value in values.items()}
        )
    return settings


def dataset(study: Recorded, name: str) -> Table:
    """What is known of a dataset: its entry and sizes, its runs, and per model what clean and attacked ones achieve.

    Raises `UserError` for a name that the study does not have.
    """
    known = [group.dataset for group in study.groups]
    cursor = study.connection.execute("SELECT * FROM datasets ORDER BY dataset")
    columns = [column for column, *_ in cursor.description]
    recorded = {row[0]: dict(zip(columns, row, strict=True)) for row in cursor}
    if name not in recorded and name not in known:
        raise UserError(f"unknown dataset {name!r} {suggestion(name, dict.fromkeys([*recorded, *known]))}")
    facts = recorded.get(name, {"dataset": name})
    text = facts.pop("entry", None)
    entry = flat(json.loads(text)) if text else {}
    rows = [{"part": "entry", "what": key, "value": _plain(value)} for key, value in entry.items()]
    rows += [
        {"part": "cohort", "what": key, "value": value}
        for key, value in facts.items()
        if key != "dataset" and (key, value) != ("warnings", None)
    ]
    sql = "SELECT status, count(*) FROM runs WHERE dataset = ? AND in_study GROUP BY status ORDER BY status"
    rows += [
        {"part": "runs", "what": status, "value": count} for status, count in study.connection.execute(sql, [name])
    ]
    share, asr, asr0, auroc = (study.means(metric) for metric in ("effect_share", "asr", "asr0", "auroc_clean"))
    patients = over_patients(study)
    old = study.old_means("effect_share", "asr", "asr0", "auroc_clean")
    models = dict.fromkeys(group.model for group in study.groups if group.dataset == name)
    n_attacks = [0]
    for model in models:
        clean = Group(name, model, CLEAN, 0.0)
        rows.append(_mean_row("clean", f"{model}: AUROC", auroc.get(clean), study.groups.get(clean), clean in old))
        what = f"{model}: AUROC on other test patients"
        rows.append(_mean_row("clean", what, patients.get(clean), study.groups.get(clean), clean in old))
        reached = {
            group: found.mean for group, found in share.items() if group[:2] == clean[:2] and found.mean is not None
        }
        attacks = {group: number for group, number in reached.items() if not study.is_control(group.trigger)}
        n_attacks.append(len(attacks))
        if not attacks:
            rows.append({"part": "best attack", "what": f"{model}: none done", "value": None})
            continue
        best = max(attacks, key=attacks.__getitem__)
        called = f"{model}: {best.trigger} at {best.rate!r}"
        for metric, means in (("effect_share", share), ("asr", asr), ("asr0", asr0), ("auroc_clean", auroc)):
            rows.append(
                _mean_row("best attack", f"{called}: {metric}", means.get(best), study.groups[best], best in old)
            )
        for group in sorted(reached.keys() - attacks.keys()):
            if group.rate == best.rate:
                what = f"{model}: {group.trigger} at {group.rate!r}: effect_share"
                rows.append(_mean_row("its control", what, share[group], study.groups[group], group in old))
    below = [
        f"best attack: by the mean effect_share, of up to {max(n_attacks)} trigger × rate per "
        f"model, which flatters it; means over seeds with their 95 % intervals, {SAME_PATIENTS}: AUROC on other test "
        "patients has that interval, of each model and averaged over seeds",
        *study.left_out(),
        *study.of_old(group for group in old if group.dataset == name),
    ]
    if facts.get("people"):
        below.append("counts of people are told in tens, and numbers over fewer than ten are withheld")
    counts = [Column(name, head=None) for name in ("n_seeds", "n_asked")]
    value = Column("value", ("ci_low", "ci_high"))
    shown = [Column("part"), Column("what"), value, Column("", head="seeds", field="seeds"), *counts]
    return Table(shown, rows, [f"dataset {name} of the study in {study.folder}"], below)


def over_patients(study: Recorded) -> dict[Group, Mean]:
    """The clean AUROC and how far it would differ on other test patients, for the models at hand (see delong.py).

    Ends of each model's interval, averaged over the seeds that have one.
    """
    values = [study.by_seed(name) for name in ("auroc_clean", "auroc_clean_low", "auroc_clean_high")]
    found = {}
    for group in values[0]:
        own = [one.get(group, {}) for one in values]
        seeds = set(own[0]).intersection(*own[1:])
        found[group] = Mean(len(seeds), *(mean(one[seed] for seed in seeds) for one in own))
    return found


def _mean_row(part: str, what: str, found: Mean | None, asked: int | None, is_old: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"part": part, "what": what, "n_asked": asked, "value": None}
    if found is None:
        return row | {"n_seeds": 0, "seeds": f"0/{asked}"}
    row |= {"value": found.mean, "ci_low": found.low, "ci_high": found.high}
    return row | {"n_seeds": found.n_seeds, "seeds": f"{found.n_seeds}/{asked}{'*' if is_old else ''}"}


def _plain(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) else value
