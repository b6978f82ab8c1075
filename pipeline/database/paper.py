"""Tables of a study for a paper, in LaTeX with booktabs: means with intervals, each attack beside its controls.

They are floats of the width of a page (`table*`), one per dataset and model, so that each fits on one.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.database.comparison import over_patients
from pipeline.database.leaderboard import less_control
from pipeline.database.recorded import Group, Mean, Recorded, measured
from pipeline.errors import UserError
from pipeline.results.columns import LABEL_AUROC
from pipeline.study.grid import CLEAN, format_rate
from pipeline.study.variants import BASELINE
from pipeline.words import counted

MISSING = "--"
_HEAD = "% Needs \\usepackage{booktabs}. Made by: python -m pipeline db export --latex\n"
_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "−": "$-$",
    "°": r"\textdegree{}",
    "µ": r"\textmu{}",
    "–": "--",
}
# What a reader has to know of a study's settings, where it has them; and of models and triggers their own.
_SETTINGS = ("target", "split", "n_samples", "threshold", "validation", "training")
_OWN = {"model_params": "model", "trigger_params": "trigger"}
_SHARE, _DIFFERENCE = 2, 3  # places


class _Column(NamedTuple):
    """What a column is called, its means, to how many places, and whether they are over pairs of seeds."""

    head: str
    means: Mapping[Group, Mean]
    places: int
    paired: bool = False


_Columns = Sequence[_Column]


def escaped(text: str) -> str:
    """`text` as LaTeX prints it."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def attacks(study: Recorded) -> str:
    """Per trigger and rate: ASR beside ASR₀, the share of what is possible, and what it costs; then the controls."""
    shown = {"ASR": "asr", "ASR$_0$": "asr0", "share of possible": "effect_share"}
    cost = {group: Mean(found.n, *found[3:]) for group, found in study.against_clean("auroc_clean").items()}
    columns = [_Column(head, study.means(name), _SHARE) for head, name in shown.items()]
    columns.append(_Column(r"\shortstack[r]{clean AUROC \\ less clean run's}", cost, _DIFFERENCE, paired=True))
    less = {group: Mean(found.n, *found[3:]) for group, (_, found) in less_control(study, "asr_net").items()}
    columns.insert(3, _Column(r"\shortstack[r]{effect less \\ control's}", less, _SHARE, paired=True))
    caption = (
        "Backdoor attacks on {model}, {dataset}. ASR: share of triggered test samples of the other label that get the "
        "attacker's; ASR$_0$: of the same samples under the clean model; share of possible: (ASR $-$ ASR$_0$) / "
        "(1 $-$ ASR$_0$); effect less control's: ASR $-$ ASR$_0$ less that of the same poison without a trigger; "
        "last column: what the poison costs, both paired by seed. Below the line: controls, which carry no trigger "
        "value. "
    )
    return _tables(study, "attacks", caption, columns, lambda group: group.trigger != CLEAN)


def detection(study: Recorded) -> str:
    """Per trigger and rate: how well each detector tells poison within the target label, beside random scores."""
    names = [name.partition(":")[2] for name in study.metrics if name.startswith(f"{LABEL_AUROC}:")]
    names = [*(name for name in names if name != BASELINE), *(name for name in names if name == BASELINE)]
    if not names:
        raise UserError(f"{study.folder}: no detector has a number; expected a study with detectors")
    columns = [_Column(_narrow(name), study.means(f"{LABEL_AUROC}:{name}"), _SHARE) for name in names]
    caption = (
        "Detection of the poison among the training samples of the target label, AUROC, {model}, {dataset}. "
        "\\emph{{random}}: a detector that knows nothing. Below the line: controls, in which there are flipped labels "
        "or measured cells to find, and no trigger value. "
    )
    return _tables(study, "detection", caption, columns, lambda _: True)


def clean(study: Recorded) -> str:
    """Per model: how good the clean runs are, which all else is compared with."""
    metrics = {"AUROC": "auroc", "AUPRC": "auprc", "recall": "recall", "false alarms": "fpr", "Brier": "brier"}
    columns = [_Column(head, study.means(f"{name}_clean"), _SHARE) for head, name in metrics.items()]
    columns.insert(1, _Column(r"\shortstack[r]{AUROC on \\ other patients}", over_patients(study), _SHARE, paired=True))
    _refuse_old(study, columns)
    groups = [group for group in study.groups if group.trigger == CLEAN]
    lines = [
        [escaped(group.dataset), escaped(group.model), *_cells(study, group, columns)]
        for group in groups
        if any(group in column.means for column in columns)
    ]
    if not lines:
        raise UserError(f"{study.folder}: no clean run is done; expected at least one")
    caption = (
        "Models trained on clean data, on clean test data. On other patients: AUROC with the interval over test "
        f"patients of each model (DeLong), its ends averaged over seeds. {_method(study, groups)}"
    )
    heads = ["dataset", "model", *(column.head for column in columns), "seeds"]
    return _HEAD + _table("clean", caption, heads, 2, [lines])


TABLES: dict[str, Callable[[Recorded], str]] = {"attacks": attacks, "detection": detection, "clean": clean}


def _tables(
    study: Recorded,
    label: str,
    caption: str,
    columns: _Columns,
    wanted: Callable[[Group], bool],
) -> str:
    _refuse_old(study, columns)
    parts: dict[tuple[str, str], list[Group]] = {}
    for group in study.groups:
        if wanted(group) and any(group in column.means for column in columns):
            parts.setdefault(group[:2], []).append(group)
    if not parts:
        raise UserError(f"{study.folder}: no attack is done; expected at least one")
    made = []
    for (dataset, model), groups in parts.items():
        rows: dict[bool, list[list[str]]] = {False: [], True: []}
        for group in groups:
            row = [escaped(group.trigger), format_rate(group.rate), *_cells(study, group, columns)]
            rows[study.is_control(group.trigger)].append(row)
        text = caption.format(model=escaped(model), dataset=escaped(dataset)) + _method(study, groups)
        heads = ["trigger", "rate", *(column.head for column in columns), "seeds"]
        made.append(_table(f"{label}-{dataset}-{model}", text, heads, 1, [rows[False], rows[True]]))
    return _HEAD + "\n".join(made)


def _refuse_old(study: Recorded, columns: _Columns) -> None:
    shown = {group for column in columns for group in column.means}
    if old := study.old_means(*study.metrics) & shown:
        rows = counted(len(old), "row")
        raise UserError(
            f"{study.folder}: {rows} would not be of the runs that are done now; {study.populate} renews the means"
        )


def _narrow(name: str) -> str:
    """A name as the head of a column, a word below the other."""
    words = r"\_ \\ ".join(map(escaped, name.split("_")))
    return rf"\shortstack[r]{{{words}}}"


def _cells(study: Recorded, group: Group, columns: _Columns) -> list[str]:
    """The means of `group`, and over how many seeds; of how many, where some are missing."""
    found = [(column, column.means.get(group)) for column in columns]
    over = [mean.n_seeds for column, mean in found if mean is not None and not column.paired]
    n, asked = min(over, default=0), study.groups[group]
    cells = []
    for column, mean in found:
        fewer = column.paired and mean is not None and mean.n_seeds not in (0, n)
        cells.append(_cell(mean, column.places) + (f" ($n$ = {mean.n_seeds})" if mean and fewer else ""))
    return [*cells, str(n) if n == asked else f"{n} of {asked}"]


def _cell(mean: Mean | None, places: int) -> str:
    if mean is None or mean.mean is None:
        return MISSING
    shown = [f"{end:.{places}f}".replace("-", "$-$") for end in mean[1:] if end is not None]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]" if len(shown) == 3 else f"{shown[0]} {MISSING}"


def _method(study: Recorded, groups: Sequence[Group]) -> str:
    """The end of a caption: how many seeds, what the intervals are, what the study was."""
    asked = sorted({study.groups[group] for group in groups})
    seeds = " to ".join(map(str, dict.fromkeys((asked[0], asked[-1]))))
    people = " Counts of people are rounded to tens, and intervals are at least as wide as that can move a mean."
    shared = ", corrected for seeds that share patients (Nadeau and Bengio)" if study.split == "per_seed" else ""
    told = [
        f"Mean over {seeds} seed{'s' * (asked != [1])} with 95\\,\\% interval (Student's $t$, on the logit scale for "
        f"what lies between 0 and 1{shared}), not adjusted for the number of rows; it is over trainings and says "
        f"nothing of other test patients. {MISSING}: missing, withheld or, of an interval, one seed."
        f"{people * bool(study.rounded())}"
    ]
    settings = measured(study.configuration)
    own = {f"{section}.{getattr(group, field)}." for section, field in _OWN.items() for group in groups}
    kept = [key for key in sorted(settings) if key.split(".")[0] in _SETTINGS or key.startswith(tuple(own))]
    if kept:
        told.append(f"Settings: {', '.join(escaped(f'{key} {_setting(settings[key])}') for key in kept)}.")
    told += [f"{escaped(line.partition(': `')[0])}." for line in study.left_out()]
    return " ".join(told)


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(
    label: str, caption: str, heads: Sequence[str], n_texts: int, parts: Sequence[Sequence[Sequence[str]]]
) -> str:
    """One float; `parts` of its rows are parted by rules. The first `n_texts` columns are words, the others numbers."""
    body = "\n\\midrule\n".join("\n".join(f"{' & '.join(row)} \\\\" for row in rows) for rows in parts if rows)
    return (
        "\\begin{table*}\n\\centering\\footnotesize\\setlength{\\tabcolsep}{2pt}\n"
        f"\\caption{{{caption}}}\n\\label{{tab:{label}}}\n"
        f"\\begin{{tabular}}{{@{{}}{'l' * n_texts}{'r' * (len(heads) - n_texts)}@{{}}}}\n\\toprule\n"
        f"{' & '.join(heads)} \\\\\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table*}}\n"
    )
