"""What the database of one study has recorded, as the questions need it: its runs, their numbers, the means over seeds.

A number counts where its run is done, the study asks for it, and the number is of what the run has now: of the same
settings, inputs and code. Whatever does not count is counted, and said.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from math import fsum
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.database import intervals
from pipeline.database.shown import MISSING
from pipeline.errors import UserError
from pipeline.results.columns import ALL_AUROC, DRIFT, LABEL_AUROC, LABEL_TPR, SHARES
from pipeline.study.grid import CLEAN, CONTROLS, format_rate
from pipeline.study.places import NOT_MEASURED
from pipeline.study.variants import resolved
from pipeline.words import counted, suggestion

_NOT_DONE = ("missing", "running", "failed", "outdated")
_HAIR = 1e-9  # by which a mean of the same numbers may differ
_IN_LABEL = {LABEL_AUROC: "auroc"} | {name: column for column, name in LABEL_TPR.items()}
_GROUP = "dataset, model, trigger, rate"
_TARGET = "json_extract(settings, '$.trigger.target')"  # of clean runs there is none
COUNTS = "status = 'done' AND in_study AND current"
_EXPLAINED = (*SHARES, *DRIFT)


class Group(NamedTuple):
    """What is averaged over seeds."""

    dataset: str
    model: str
    trigger: str
    rate: float

    def __str__(self) -> str:
        return "/".join([*self[:3], format_rate(self.rate)])


class Run(NamedTuple):
    """A row of the table `runs`."""

    dataset: str
    model: str
    trigger: str
    rate: float
    seed: int
    status: str
    stage: str | None
    why: str | None
    in_study: int
    current: int
    settings: str | None

    @property
    def group(self) -> Group:
        return Group(*self[:4])

    @property
    def counts(self) -> bool:
        return self.status == "done" and bool(self.in_study and self.current)

    def __str__(self) -> str:
        return f"{self.group}/{self.seed}"


class Mean(NamedTuple):
    """A row of the table `summary`: over the seeds that were done when it was made."""

    n_seeds: int
    mean: float | None
    low: float | None
    high: float | None


class Recorded:
    """The study whose results lie in `folder`, read through `connection`, which stays the caller's."""

    def __init__(self, connection: sqlite3.Connection, folder: Path):
        self.connection, self.folder = connection, folder
        # The connection sees one moment, so what is asked twice is the same.
        self.by_seed, self.means = cache(self._by_seed), cache(self._means)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """The study's; empty where nothing has recorded it."""
        found = self.connection.execute("SELECT value FROM study WHERE key = 'configuration'").fetchone()
        return json.loads(found[0]) if found and found[0] else {}

    @property
    def split(self) -> str | None:
        return self.configuration.get("split")

    @cached_property
    def groups(self) -> dict[Group, int]:
        """All that the study asks for, in order, and over how many seeds."""
        sql = f"SELECT {_GROUP}, count(*) FROM runs WHERE in_study GROUP BY {_GROUP} ORDER BY {_GROUP}"
        seeds = len(self.configuration.get("seeds", []))
        return {Group(*key): max(count, seeds) for *key, count in self.connection.execute(sql)}

    def runs(self, group: Group) -> list[Run]:
        """The runs of `group`, by seed, also those that the study does not ask for any more."""
        where = " AND ".join(f"{name} = ?" for name in Group._fields)
        sql = f"SELECT {', '.join(Run._fields)} FROM runs WHERE {where} ORDER BY seed"
        return [Run._make(row) for row in self.connection.execute(sql, group)]

    def named(self, name: str) -> list[Run]:
        """The run called dataset/model/trigger/rate/seed, or the runs of dataset/model/trigger/rate.

        Raises `UserError` for another name, with the nearest that there is.
        """
        parts = name.strip("/").split("/")
        fields = (*Group._fields, "seed")
        if len(parts) not in (len(fields) - 1, len(fields)):
            raise UserError(
                f"{name!r}: expected a run, dataset/model/trigger/rate/seed, or those of all seeds, "
                "dataset/model/trigger/rate"
            )
        where = "1"
        given: list[Any] = []
        for field, part in zip(fields, parts, strict=False):
            sql = f"SELECT DISTINCT {field} FROM runs WHERE {where} ORDER BY 1"
            known = {str(value): value for (value,) in self.connection.execute(sql, given)}
            if field == "rate":
                part = _as_rate(part)
            if part not in known:
                before = "/".join(parts[: len(given)])
                raise UserError(
                    f"{name!r}: no {field} {part!r}{f' of {before}' if before else ''} {suggestion(part, known)}"
                )
            where, given = f"{where} AND {field} = ?", [*given, known[part]]
        sql = f"SELECT {', '.join(Run._fields)} FROM runs WHERE {where} ORDER BY seed"
        return [Run._make(row) for row in self.connection.execute(sql, given)]

    def numbers_of(self, runs: Sequence[Run]) -> dict[str, dict[int, float]]:
        """All metrics of `runs`, those of one group, by seed: the runs', their detectors' and of their attributions."""
        found: dict[str, dict[int, float]] = {}
        for run in runs:
            name = [str(run)]
            rows = list(self.connection.execute("SELECT metric, value FROM metrics WHERE run = ?", name))
            made = json.loads(run.settings) if run.settings else {}
            in_label = f"label_{made.get('trigger', {}).get('target')}"
            sql = f"SELECT detector, scope, {', '.join(['auroc', *LABEL_TPR])} FROM detections WHERE run = ?"
            for detector, scope, auroc, *tpr in self.connection.execute(sql, name):
                if scope == "all":
                    rows.append((f"{ALL_AUROC}:{detector}", auroc))
                elif scope == in_label:
                    rows += zip(
                        (f"{of}:{detector}" for of in (LABEL_AUROC, *LABEL_TPR.values())), (auroc, *tpr), strict=True
                    )
            sql = f"SELECT {', '.join(_EXPLAINED)} FROM explanations WHERE run = ?"
            for row in self.connection.execute(sql, name):
                rows += zip(_EXPLAINED, row, strict=True)
            for metric, value in rows:
                if value is not None:
                    found.setdefault(metric, {})[run.seed] = value
        return found

    @cached_property
    def t(self) -> dict[int, float]:
        return intervals.quantiles(self.connection)

    @cached_property
    def metrics(self) -> list[str]:
        """The names of all that has a mean over seeds."""
        return [name for (name,) in self.connection.execute("SELECT DISTINCT metric FROM summary ORDER BY metric")]

    @cached_property
    def cohorts(self) -> dict[str, str]:
        """What each dataset's cohort was last made by: where it is another stamp, the patients are others."""
        sql = "SELECT dataset, stamp FROM jobs WHERE stage = 'sample_dev' AND status = 'done' ORDER BY job"
        return dict(self.connection.execute(sql).fetchall())

    def rounded(self) -> list[str]:
        """A sentence where numbers are of people."""
        (people,) = self.connection.execute("SELECT count(*) FROM datasets WHERE people").fetchone()
        told = "counts of people are told in tens, and so are shares of them; what rests on fewer than ten is withheld"
        return [told] if people else []

    def refuse_unknown(self, metric: str) -> None:
        if metric not in self.metrics:
            known = f"{suggestion(metric, self.metrics)}" if self.metrics else "(no run has numbers yet)"
            raise UserError(f"metric: unknown {metric!r} {known}; expected one of the table summary")

    def is_control(self, trigger: str) -> bool:
        """Whether `trigger` is, or is a variant of, what attacks are compared with."""
        return self.member(trigger) in CONTROLS

    def member(self, trigger: str) -> str:
        """Which of the family `trigger` is, or is a variant of."""
        return resolved(self.configuration.get("trigger_params", {}), trigger)[0]

    def _numbers(self, metric: str) -> tuple[str, list[str]]:
        """A query for `metric` of each run, as `run` and `value`, and what it takes.

        Of a detector (`detection_auroc_in_label:…`) over the training samples with the label that the attack wants.
        """
        name, _, detector = metric.partition(":")
        if detector and name == ALL_AUROC:
            return "SELECT run, auroc AS value FROM detections WHERE detector = ? AND scope = 'all'", [detector]
        if detector and name in _IN_LABEL:
            return (
                f"SELECT run, {_IN_LABEL[name]} AS value FROM detections JOIN runs USING (run) "
                f"WHERE detector = ? AND scope = 'label_' || {_TARGET}"
            ), [detector]
        if metric in _EXPLAINED:
            return f"SELECT run, {metric} AS value FROM explanations", []
        return "SELECT run, value FROM metrics WHERE metric = ?", [metric]

    def _by_seed(self, metric: str) -> dict[Group, dict[int, float]]:
        """`metric` of every run that has it and counts, by group and seed."""
        numbers, given = self._numbers(metric)
        sql = (
            f"SELECT {_GROUP}, seed, value FROM ({numbers}) JOIN runs USING (run) WHERE {COUNTS} AND value IS NOT NULL"
        )
        found: dict[Group, dict[int, float]] = {}
        for row in self.connection.execute(sql, given):
            own = found.get(row[:4])
            if own is None:
                own = found[Group(*row[:4])] = {}
            own[row[4]] = row[5]
        return found

    def _means(self, metric: str) -> dict[Group, Mean]:
        """The mean of `metric` over the seeds of each group of the study, with its interval."""
        sql = f"SELECT {_GROUP}, n_seeds, mean, ci_low, ci_high FROM summary WHERE metric = ?"
        rows = self.connection.execute(sql, [metric])
        found = {Group(*row[:4]): Mean(*row[4:]) for row in rows}
        return {group: mean for group, mean in found.items() if group in self.groups}

    def old_means(self, *metrics: str) -> set[Group]:
        """The groups whose mean of one of `metrics` is not that of the runs that are done now, or may not be."""
        sql = f"SELECT DISTINCT {_GROUP} FROM runs WHERE in_study AND (status = 'done') <> current"
        old = {Group(*key) for key in self.connection.execute(sql)}
        for metric in metrics:
            values = self.by_seed(metric)
            for group, told in self.means(metric).items():
                now = values.get(group, {}).values()
                mean = fsum(now) / len(now) if now else 0.0
                off = abs(mean - (told.mean or 0.0)) > _HAIR * max(1.0, abs(mean))
                if len(now) != told.n_seeds or (now and off):
                    old.add(group)
        return old

    def errors(self, metric: str) -> dict[Group, float | None]:
        """How far rounding can have moved the mean of `metric`, where it can; None: nobody can say."""
        rows = self.connection.execute(f"SELECT {_GROUP}, error FROM rounding WHERE metric = ?", [metric])
        return {Group(*key): error for *key, error in rows}

    def errors_of(self, group: Group) -> dict[str, float | None]:
        """The same of every metric of `group`."""
        where = " AND ".join(f"{name} = ?" for name in Group._fields)
        return dict(self.connection.execute(f"SELECT metric, error FROM rounding WHERE {where}", group))

    def against_clean(self, metric: str) -> dict[Group, intervals.Difference]:
        """`metric` of each group less that of the clean runs of the same dataset, model and seeds."""
        values, errors, found = self.by_seed(metric), self.errors(metric), {}
        for group, mine in values.items():
            if group.trigger != CLEAN:
                clean = group._replace(trigger=CLEAN, rate=0.0)
                error = intervals.error_of(errors.get(group, 0.0), errors.get(clean, 0.0))
                found[group] = intervals.difference(mine, values.get(clean, {}), metric, self.t, self.split, error)
        return found

    def asked(self) -> int:
        """How many runs the study asks for: as its configuration says, and at least those that are recorded."""
        one = self.configuration
        (recorded,) = self.connection.execute("SELECT count(*) FROM runs WHERE in_study").fetchone()
        if not one:
            return recorded
        sizes = {name: len(one[name]) for name in ("datasets", "models", "triggers", "rates", "seeds")}
        per_model = (1 + sizes["triggers"] * sizes["rates"]) * sizes["seeds"]
        return max(recorded, sizes["datasets"] * sizes["models"] * per_model)

    def left_out(self) -> list[str]:
        """Sentences on the runs that count for nothing, so that nobody takes half a study for a whole one."""
        (older,) = self.connection.execute("SELECT count(*) FROM runs WHERE NOT in_study").fetchone()
        sql = "SELECT status, count(*) FROM runs WHERE in_study GROUP BY status"
        states, asked, lines = Counter(dict(self.connection.execute(sql))), self.asked(), []
        states["missing"] += asked - states.total()
        if asked > states["done"]:
            parts = ", ".join(f"{states[name]} {name}" for name in _NOT_DONE if states[name])
            lines.append(f"{asked - states['done']} of {counted(asked, 'run')} of the study are left out: {parts}")
        sql = "SELECT count(*) FROM runs WHERE status = 'done' AND in_study AND NOT current"
        (new,) = self.connection.execute(sql).fetchone()
        if new:
            lines.append(f"{counted(new, 'run')} done, but not in the numbers yet: {self.populate} adds them")
        if older:
            lines.append(f"{counted(older, 'run')} that the study does not ask for any more: left out")
        return lines

    def of_old(self, old: Iterable[Group]) -> list[str]:
        """A sentence where there are `old_means`."""
        count = len(list(old))
        if not count:
            return []
        return [f"{counted(count, 'mean')} marked *: not of the runs that are done now; {self.populate} renews them"]

    @property
    def populate(self) -> str:
        """What to call for numbers of what is done now."""
        return f"`python -m pipeline db populate --results-dir {self.folder}`, with the study's own settings,"


def _as_rate(text: str) -> str:
    """A rate as folders call it: 0.050 is 0.05."""
    try:
        return format_rate(float(text))
    except ValueError:
        return text


def flat(content: Any, path: str = "") -> dict[str, Any]:
    """The settings in `content`, parsed JSON, by dotted names; lists, and mappings of nothing, are values."""
    if not isinstance(content, dict) or not content:
        return {path: content}
    found: dict[str, Any] = {}
    for name, item in content.items():
        found |= flat(item, f"{path}.{name}" if path else name)
    return found


def other_cohorts(studies: Sequence[Recorded]) -> list[str]:
    """A sentence for each dataset of which `studies` have not all the same cohort."""
    stamps: dict[str, set[str]] = {}
    for study in studies:
        for dataset, stamp in study.cohorts.items():
            stamps.setdefault(dataset, set()).add(stamp)
    return [
        f"warning: not the same cohort of {dataset}: other patients, so differences between the studies are theirs too"
        for dataset, found in sorted(stamps.items())
        if len(found) > 1
    ]


def measured(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What in a study's `configuration` numbers depend on, by dotted names."""
    return flat({name: item for name, item in configuration.items() if name not in NOT_MEASURED})


def value_in(settings: Mapping[str, Any], key: str) -> str:
    """A setting as JSON; – where there is none, which is not null."""
    return json.dumps(settings[key], ensure_ascii=False) if key in settings else MISSING


def differing(studies: Sequence[Recorded], but: str = "") -> list[str]:
    """What of the settings of `studies` differs, a line each, without the key `but`."""
    settings = [measured(study.configuration) for study in studies]
    lines = []
    for key in sorted({key for one in settings for key in one} - {but}):
        values: dict[str, list[str]] = {}
        for study, one in zip(studies, settings, strict=True):
            values.setdefault(value_in(one, key), []).append(str(study.folder))
        if len(values) > 1:
            lines.append(f"{key}: " + "; ".join(f"{value} ({', '.join(where)})" for value, where in values.items()))
    return lines
