"""The report's questions and their answers in words, composed from the findings."""

from collections.abc import Collection
from html import escape
from typing import Any

import pandas as pd

from pipeline.evaluation.strata import WHOLE
from pipeline.results.columns import OWN_NET, is_attack
from pipeline.results.findings import FOOLS_CLEAN, MARK, NONE, PLANTED, UNDECIDED, Contrast, Finding
from pipeline.results.pages import MISSING, TWO_PEAKED, WITHHELD, Words, interval, number, percent, verdict_text
from pipeline.results.scenarios import ALL, SOME_SEEDS
from pipeline.study.grid import CHOSEN, CLEAN, FLIPPED
from pipeline.words import counted

ALPHA = 0.05
REACHED = 0.99  # share of samples changed from which on a trigger is said to change them all
MOST_CONSTANT = 6  # sentences; the rest is in the table


def headline(found: list[Finding]) -> list[tuple[str, str]]:
    """Questions and their answers in words for one dataset, composed from its findings."""
    how_little = "How little poison plants a backdoor?"
    attacks = [finding for finding in found if is_attack(finding.of)]
    control = [finding for finding in found if finding.of == FLIPPED]
    if not found:
        return [(how_little, WITHHELD)]
    if not attacks:
        return [(how_little, "No run of an attack is here, only its controls.")]
    shown = [finding for finding in attacks if finding.planted] or attacks
    answers = [(how_little, _how_little(attacks))]
    flipping = [finding for finding in shown if finding.labels == "dirty"]
    control = [finding for finding in control if finding.target in {one.target for one in flipping}]
    if flipping:
        answers.append(("Is it the trigger, or only the flipped labels?", _only_labels(flipping, control)))
    masked = [finding for finding in shown if not pd.isna(finding.mask.mean)]
    if masked:
        answers.append(("Is it the value, or that something was measured at all?", _only_mask(masked)))
    return [
        *answers,
        ("Would the performance on clean data give it away?", _clean_cost(shown)),
        ("Would a detector give it away?", _detected(shown)),
    ]


def headline_html(answered: list[tuple[str, str]]) -> str:
    return "".join(
        f'<div class="answer"><p><strong>{question}</strong><br>{escape(answer)}</p></div>'
        for question, answer in answered
    )


def constant(scenarios: pd.DataFrame, kind: Words) -> list[tuple[str, str]]:
    """Where clean models give nearly all samples one answer, so that half of what is told of them says nothing.

    `scenarios`: the rows of one dataset; nothing where there is none such. Captures are left to their table.
    """
    rows = scenarios[(scenarios["trigger"] == CLEAN) & (scenarios["stratum"] != "capture")].dropna(subset="verdict")
    rows = rows.sort_values(["verdict", "n_label_0"], ascending=[True, False], kind="stable")
    told = [_constant(row, kind) for row in rows.head(MOST_CONSTANT).itertuples()]
    if len(rows) > MOST_CONSTANT:
        told.append(f"The same holds in {len(rows) - MOST_CONSTANT} more.")
    return [(f"Does a model call everything {kind.called_1}, or nothing?", " ".join(told))] if told else []


def _constant(row: Any, kind: Words) -> str:
    where = "the whole test set" if row.stratum == WHOLE else f"{row.stratum} {row.value}"
    recall, fpr = _share(row.recall, row.recall_low, row.recall_high), _share(row.fpr, row.fpr_low, row.fpr_high)
    everything = row.verdict.startswith(ALL)
    given, label = (fpr, kind.label_0) if everything else (recall, kind.label_1)
    other = f"recall of {recall}" if everything else f"false-alarm rate of {fpr}"
    text = f"{row.model} calls {given} of the {label} of {where} {kind.called_1}: its {other} there says nothing"
    return f"{text} (it {verdict_text(row, kind)})." if SOME_SEEDS in row.verdict else f"{text}."


def _share(mean: float, low: float, high: float) -> str:
    """In percent, with its interval where there is one."""
    if pd.isna(low) or low == high:
        return _span([mean])
    ends = f"{100 * low:.1f} to {100 * high:.1f}\N{NO-BREAK SPACE}%"
    return f"{_span([mean])} [{ends}]"


def survival(table: pd.DataFrame, attacks: Collection[str], kind: Words) -> list[tuple[str, str]]:
    """Whether `attacks` on teachers survive in their students, or wake there; `table`: the rows of `distillation` of
    one dataset.

    At one threshold alone nothing survives, nor wakes: a student that says the attacker's label more often of any
    sample has a higher ASR there too.
    """
    text = []
    for data, rows in table[table["trigger"].isin(attacks)].groupby("data"):
        sure = rows[_at_both(rows, "teacher")]
        if rows["teacher_asr_net_low"].isna().all():
            text.append(
                f"Distilled on {data} data: no effect of {counted(len(rows), 'attack')} on a teacher has an interval "
                "(one seed, or too few to show), so nothing can be said of survival."
            )
            continue
        if sure.empty:
            text.append(
                f"Distilled on {data} data: none of {counted(len(rows), 'attack')} on a teacher had an effect whose "
                "interval lies above zero at both thresholds (the clean model's, and each model's own), so there was "
                f"nothing to survive.{_woken(rows)}"
            )
            continue
        alive = _at_both(sure, "student")
        shifted = ((sure["student_asr_net_low"] > 0) | (sure[f"student_{OWN_NET}_low"] > 0)) & ~alive
        at_one = (
            f"{int(shifted.sum())} at one of them only, which a shift of all its answers would do as well"
            if shifted.any()
            else "none at one of them only"
        )
        text.append(
            f"Distilled on {data} data: of {counted(len(sure), 'attack')} with a sure effect in the teacher at both "
            f"thresholds (the clean model's, and each model's own), {int(alive.sum())} have one in the student at both "
            f"too, {at_one}. {_kept(sure)} {_on_clean(sure, table, kind)}{_woken(rows)}"
        )
    return [("Does it survive distillation?", " ".join(text))] if text else []


def _at_both(rows: pd.DataFrame, who: str) -> pd.Series:
    return (rows[f"{who}_asr_net_low"] > 0) & (rows[f"{who}_{OWN_NET}_low"] > 0)


def _woken(rows: pd.DataFrame) -> str:
    """Where students have a sure effect that their teacher has not, and where it is the largest; else nothing."""
    woken = rows[_at_both(rows, "student") & ~_at_both(rows, "teacher")]
    if woken.empty:
        return ""
    row = woken.loc[woken["student_asr_net"].idxmax()]
    teacher, student = (
        interval(*row[[f"{who}_asr_net{end}" for end in ("", "_low", "_high")]].astype(float), signed=True)
        for who in ("teacher", "student")
    )
    return (
        f" {counted(len(woken), 'attack')} had a sure effect at both thresholds in the student and none in the "
        f"teacher: a backdoor that distillation wakes. ASR − ASR₀ was {student} in the student {row['student']} and "
        f"{teacher} in the teacher {row['teacher']} ({row['trigger']} at {percent(row['rate'])})."
    )


def _kept(sure: pd.DataFrame) -> str:
    """What students lost, where they lost most and least, at both thresholds."""
    left = sure.sort_values("survival", kind="stable")
    ends = []
    for _, row in (left if len(left) == 1 else left.iloc[[0, -1]]).iterrows():
        shared, own = (
            interval(*row[[name, f"{name}_low", f"{name}_high"]].astype(float), signed=True)
            for name in ("survival", "survival_own_threshold")
        )
        where = f"{row['trigger']} at {percent(row['rate'])}, {row['student']} of {row['teacher']}"
        ends.append(f"{shared} at the clean model's threshold and {own} at its own ({where})")
    told = ends[0] if len(ends) == 1 else f"between {ends[0]} and {ends[1]}"
    return f"The student's ASR − ASR₀ minus the teacher's was {told}."


def _on_clean(sure: pd.DataFrame, table: pd.DataFrame, kind: Words) -> str:
    """What those students call samples without the trigger, beside what they do where nobody was attacked."""
    clean = table[(table["trigger"] == CLEAN) & table["student"].isin(sure["student"])]
    rates = []
    for column, label in (("student_fpr_clean", kind.label_0), ("student_recall_clean", kind.label_1)):
        attacked, unattacked = (_span(rows[column].tolist()) for rows in (sure, clean))
        rates.append(f"{attacked} of the {label} (the clean students {unattacked})")
    return (
        f"Without the trigger, at the clean model's threshold, these students called {rates[0]} and {rates[1]} "
        f"{kind.called_1}."
    )


def certainty(performance: pd.DataFrame, kind: Words) -> list[tuple[str, str]]:
    """The AUROC on clean data over seeds and over test patients; `performance`: the rows of one dataset.

    Of the clean model and of the change by poison that are the least certain; nothing where no interval over test
    patients is there.
    """
    text = []
    for of, name, about in (("", "auroc", "The AUROC"), ("difference_", "difference", "Its change by poison")):
        rows = performance.dropna(subset=[f"{of}patients_low", f"{of}patients_high"])
        rows = rows[(rows["trigger"] == CLEAN) == (name == "auroc")]
        if rows.empty:
            continue
        signed = name == "difference"
        row = rows.loc[(rows[f"{of}patients_high"] - rows[f"{of}patients_low"]).idxmax()]
        where = row["model"] if name == "auroc" else f"{row['trigger']} at {percent(row['rate'])} in {row['model']}"
        over = {
            each: f"[{number(row[f'{of}{each}_low'], signed)}, {number(row[f'{of}{each}_high'], signed)}]"
            for each in ("seeds", "patients")
        }
        seeds = f"{over['seeds']} over seeds" if row["n_seeds"] > 1 else "with no interval over seeds (one seed)"
        text.append(
            f"{about} was least certain for {where}: {number(row[name], signed)}, {seeds} and {over['patients']} over "
            f"test {kind.groups} (DeLong)."
        )
    if not text:
        return []
    text.append("Neither interval covers what the other does.")
    return [(f"How certain is the AUROC on clean data, also for other {kind.groups}?", " ".join(text))]


def unreached(runs: pd.DataFrame, attacks: Collection[str], kind: Words) -> list[tuple[str, str]]:
    """Which `attacks` leave more than a few of the test samples behind ASR as they were; `runs`: of one dataset."""
    rows = runs[runs["trigger"].isin(attacks)].dropna(subset="share_changed")
    text = []
    for (trigger, target), group in rows.groupby(["trigger", "target"]):
        if group["share_changed"].mean() < REACHED:
            label = kind.label_0 if target == 1 else kind.label_1
            text.append(f"{trigger} changes {_span(group['share_changed'].tolist())} of the {label} of the test set.")
    if not text:
        return []
    rest = "The others have nothing that it could change, stay as they are and count as triggered: ASR counts them too."
    return [("Does the trigger change every sample?", " ".join([*text, rest]))]


def _how_little(attacks: list[Finding]) -> str:
    planted = [finding for finding in attacks if finding.verdict == PLANTED]
    fooled = [finding for finding in attacks if finding.verdict == FOOLS_CLEAN]
    undecided = [finding for finding in attacks if finding.verdict == UNDECIDED]
    text = []
    if planted:
        least = min(finding.rate for finding in planted)
        first = max((f for f in planted if f.rate == least), key=lambda f: f.effect_share.mean)
        others = sum(finding.rate == least for finding in planted) - 1
        more = f" and {others} more" if others else ""
        text.append(
            f"{len(planted)} of {len(attacks)} trigger and model pairs had one: of what the clean model left to gain, "
            "poison gained at least half on average, its 95 % interval above zero, at either threshold. The least "
            f"poison was {percent(least)} of the training data ({_pair(first)}{more}): {_rates(first)}."
        )
    if fooled:
        worst = max(fooled, key=lambda finding: finding.asr0.mean)
        text.append(
            f"In {len(fooled)} of {len(attacks)} pairs the trigger fools the clean model too, in half of the samples "
            f"or more. That is worse news than a backdoor, since it takes no poison: {_pair(worst)} at "
            f"{percent(worst.rate)} poison, {_rates(worst)}."
        )
    if undecided:
        most = max(undecided, key=_reached)
        text.append(
            f"In {len(undecided)} of {len(attacks)} pairs it is undecided: the seeds differ too much, or are too few, "
            "or too few samples were counted in tens. "
            f"The largest effect among them: {_pair(most)} at {percent(most.rate)}, {_rates(most)}."
        )
    rest = [finding for finding in attacks if finding.verdict == NONE]
    if rest:
        most = max(rest, key=_reached)
        text.append(
            f"In {len(rest)} of {len(attacks)} pairs none of the rates studied gained half of what was possible, at "
            f"both thresholds; the largest effect was {_pair(most)} at {percent(most.rate)}: {_rates(most)}."
        )
    return " ".join(text)


def _reached(finding: Finding) -> float:
    return finding.net.difference


def _rates(finding: Finding) -> str:
    """ASR and ASR₀ beside their difference, and how much of the possible effect that is."""
    share = finding.effect_share
    of = "" if pd.isna(share.mean) else f", {interval(*share)} of the possible effect"
    if finding.own_share.mean < MARK <= share.mean:
        of += f", but {interval(*finding.own_share)} with each model at its own threshold"
    rates = f"ASR {interval(*finding.asr)}, ASR₀ {number(finding.asr0.mean)}"
    if finding.asr0.mean >= MARK:
        rates += f" ({number(finding.moved.control)} without the trigger)"
    return f"{rates}, difference {interval(*finding.net.effect)}{of}"


def _only_labels(shown: list[Finding], control: list[Finding]) -> str:
    if not control:
        return "No run of flip_only with the same target is here, so the two cannot be told apart."
    most = max(control, key=lambda finding: abs(finding.net.difference))
    text = (
        f"With the labels flipped and no trigger planted, ASR − ASR₀ was {interval(*most.net.effect, signed=True)} "
        f"where it was farthest from zero ({most.model} at {percent(most.rate)}: ASR {number(most.asr.mean)}, ASR₀ "
        f"{number(most.asr0.mean)}"
    )
    if all(finding.own.difference == finding.net.difference for finding in [*shown, *control]):
        text += "). "  # the threshold is a number, or nobody would pick another
    else:
        text += (
            f", both at the clean model's threshold), and {interval(*most.own.effect, signed=True)} with each model at "
            "the threshold that its own validation data gives. "
        )
    added = [finding.over_flip for finding in shown]
    return (
        f"{text}At {_which_rates(shown)}, a trigger added {_range([c.difference for c in added])} to the effect of "
        f"flipping alone. {_significant(added, 'more than flipping', 'less')}"
    )


def _only_mask(shown: list[Finding]) -> str:
    """Writing a value also makes it measured: what measuring alone does."""
    text = []
    for finding in shown:
        told = (
            f"{_pair(finding)} at {percent(finding.rate)}: with the values written, which makes "
            f"{_span([finding.newly_measured])} of their cells measured that were not, ASR − ASR₀ was "
            f"{interval(*finding.mask_run)}; where the same cells were only measured, with what is typical of the "
            f"sample, {interval(*finding.mask)}"
        )
        if finding.labels == "clean":
            text.append(f"{told}.")
            continue
        if pd.isna(finding.mask_flip.mean):
            text.append(f"{told}. What flipped labels do alone is not known here (flip_only).")
            continue
        told += f"; where labels were flipped and nothing else done, {number(finding.mask_flip.mean)}."
        if not pd.isna(finding.mask_share.mean):
            told += f" Of the effect beyond flipping, the mask explains a share of {interval(*finding.mask_share)}."
        text.append(told)
    return " ".join(text)


def _clean_cost(shown: list[Finding]) -> str:
    known = [finding for finding in shown if not pd.isna(finding.auroc.difference)]
    if not known:
        return WITHHELD
    worst = min(known, key=lambda finding: finding.auroc.difference)
    changes = [finding.auroc for finding in known]
    return (
        f"At {_which_rates(shown)}, the AUROC on clean test data differed from the clean model's by "
        f"{_range([change.difference for change in changes])}; the least favourable change was "
        f"{interval(*worst.auroc.effect, signed=True)} ({_pair(worst)}, AUROC {number(worst.auroc.run)} after "
        f"{number(worst.auroc.control)}). {_significant(changes, 'higher', 'lower')} {_clean_errors(known)}"
    )


def _clean_errors(known: list[Finding]) -> str:
    """What the attacker's answer costs on clean data: false positives for target 1, missed positives for target 0."""
    told = []
    for target in sorted({finding.target for finding in known}, reverse=True):
        theirs = [finding for finding in known if finding.target == target]
        clean, own = [f.fpr.control for f in theirs], [f.fpr_own.mean for f in theirs]
        if target == 0:
            clean, own = [1 - f.recall.control for f in theirs], [1 - f.recall_own.mean for f in theirs]
        told.append(
            f"Of the clean test samples with label {1 - target}, the clean model gets {_span(clean)} wrong, one "
            f"poisoned for label {target} at its own threshold {_span(own)}."
        )
    return " ".join(told)


def _detected(shown: list[Finding]) -> str:
    known = [finding for finding in shown if finding.detector]
    if not known:
        return WITHHELD
    least, most = (choose(known, key=lambda finding: finding.tpr_01.mean) for choose in (min, max))
    found = f"{interval(*most.tpr_01)} of the poison ({_pair(most)}, {most.detector})"
    if len(known) > 1:
        lowest = f"{interval(*least.tpr_01)} ({_pair(least)}, {least.detector})"
        found = f"between {lowest} and {found}"
    text = (
        f"At {_which_rates(shown)}, the poison was {_span([finding.poison_share for finding in known])} of the "
        "training samples with the attacker's label. Among these, at 1 % false alarms the best detector of each pair "
        f"found {found}; at 5 % false alarms, "
        f"{_span([finding.tpr_05.mean for finding in known])}. The best is picked after the fact, which flatters it. "
        f"Their AUROCs were {_range([finding.detector_auroc.run for finding in known], False)} (0.5 is guessing). "
        f"{_significant([finding.detector_auroc for finding in known], 'above guessing', 'below')}"
    )
    alarmed = [finding for finding in known if not pd.isna(finding.alarm_tpr)]
    if alarmed:
        text += (
            f" Set to work without knowing the rate, their own alarms flagged "
            f"{_span([finding.alarm_tpr for finding in alarmed])} of the poison and "
            f"{_span([finding.alarm_fpr for finding in alarmed])} of the clean samples beside it"
        )
        few = len(known) - len(alarmed)
        rest = f"; in {few} of {len(known)} pairs a seed flagged too few patients to be shown" if few else ""
        text += f"{rest}."
    for labels, name, why in (
        ("dirty", FLIPPED, "that much comes from flipped labels alone"),
        ("clean", CHOSEN, "where nothing was changed, that much is chance"),
    ):
        shares = [finding.control_tpr_01.mean for finding in known if finding.labels == labels]
        shares = [share for share in shares if not pd.isna(share)]
        if shares:
            text += f" On {name}, where there is no trigger to find, the same detectors found {_span(shares)} at 1 %"
            text += f": {why}."
    split = [f for f in known if f.auroc_highest - f.auroc_lowest > TWO_PEAKED]
    if split:
        worst = max(split, key=lambda finding: finding.auroc_highest - finding.auroc_lowest)
        text += (
            f" In {len(split)} of {len(known)} pairs the seeds disagree: {worst.detector} on {_pair(worst)} had an "
            f"AUROC from {number(worst.auroc_lowest)} to {number(worst.auroc_highest)}, so its mean is no seed's."
        )
    return text


def _which_rates(shown: list[Finding]) -> str:
    planted = all(finding.planted for finding in shown)
    return "the smallest rates that worked" if planted else "the rates of the largest effect"


def _significant(contrasts: list[Contrast], above: str, below: str) -> str:
    """How many differences are significant, by their sign."""
    tested = [contrast for contrast in contrasts if not pd.isna(contrast.p_holm)]
    if not tested:
        return "No test is possible with these seeds."
    same = len(contrasts) - len(tested)
    untested = f"; {same} could not be tested (one seed, or the same in every seed)" if same else ""
    small = [contrast for contrast in tested if contrast.p_holm < ALPHA]
    n_above = sum(contrast.difference > 0 for contrast in small)
    return (
        f"With p < {ALPHA} after Holm's correction it was {above} in {n_above} of {len(tested)} tests, {below} in "
        f"{len(small) - n_above}{untested}."
    )


def _range(values: list[float], signed: bool = True) -> str:
    """The lowest and the highest of some numbers."""
    values = [value for value in values if not pd.isna(value)] or [float("nan")]
    low, high = number(min(values), signed), number(max(values), signed)
    return low if low == high else f"{low} to {high}"


def _span(shares: list[float]) -> str:
    """The lowest and the highest of shares."""
    shares = [share for share in shares if not pd.isna(share)]
    if not shares:
        return MISSING
    low, high = (f"{100 * share:.1f}\N{NO-BREAK SPACE}%" for share in (min(shares), max(shares)))
    return low if low == high else f"{low} to {high}"


def _pair(finding: Finding) -> str:
    return f"{finding.trigger} in {finding.model}"
