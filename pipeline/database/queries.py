"""The questions that a study is asked most, as SQL: what `db browse` offers ready to run.

Each stands alone, so that it can be copied, changed and run anywhere. A parameter that is left empty asks for all.
"""

from typing import NamedTuple

from pipeline.study.grid import CLEAN, CONTROLS


class Query(NamedTuple):
    """A question: its name in an address, its title, what its answer means, and the SQL."""

    name: str
    title: str
    description: str
    sql: str


# A trigger is a control if it is one of these members, or a variant of one.
_KINDS = f"""\
WITH RECURSIVE
    variants (trigger, member, parameters) AS (
        SELECT trigger, trigger, json_extract(value, '$.trigger_params')
        FROM (SELECT DISTINCT trigger FROM runs) LEFT JOIN study ON key = 'configuration'
        UNION
        SELECT trigger, json_extract(parameters, '$."' || member || '".of'), parameters FROM variants
    ),
    kinds AS (
        SELECT trigger, CASE WHEN max(member IN {CONTROLS}) THEN 'control' ELSE 'attack' END AS kind
        FROM variants
        GROUP BY trigger
    )"""
# Of the runs of the study as they stand now: how many there are, and of how many the numbers are not what they have.
_NOW = """\
        SELECT
            dataset,
            model,
            trigger,
            rate,
            count(*) AS n_asked,
            sum((status = 'done') != current) AS n_changed,"""
# `now` is what the means have to be of.
_EFFECTS = f"""\
{_KINDS},
    now AS (
{_NOW}
            count(value) AS n,
            avg(value) AS mean
        FROM runs LEFT JOIN metrics ON metrics.run = runs.run AND metric = 'asr_net' AND status = 'done' AND current
        WHERE in_study AND trigger != '{CLEAN}'
        GROUP BY dataset, model, trigger, rate
    ),
    means AS (
        SELECT
            dataset,
            model,
            trigger,
            rate,
            max(n_seeds) FILTER (WHERE metric = 'asr_net') AS n_seeds,
            max(mean) FILTER (WHERE metric = 'asr') AS asr,
            max(mean) FILTER (WHERE metric = 'asr0') AS asr0,
            max(mean) FILTER (WHERE metric = 'asr_net') AS asr_net,
            max(ci_low) FILTER (WHERE metric = 'asr_net') AS net_low,
            max(ci_high) FILTER (WHERE metric = 'asr_net') AS net_high,
            max(lowest) FILTER (WHERE metric = 'asr_net') AS lowest_seed,
            max(highest) FILTER (WHERE metric = 'asr_net') AS highest_seed,
            max(mean) FILTER (WHERE metric = 'effect_share') AS effect_share,
            max(mean) FILTER (WHERE metric = 'auroc_clean') AS auroc_clean,
            max(ci_low) FILTER (WHERE metric = 'auroc_clean') AS auroc_low,
            max(ci_high) FILTER (WHERE metric = 'auroc_clean') AS auroc_high
        FROM summary
        GROUP BY dataset, model, trigger, rate
    )
SELECT
    dataset,
    model,
    trigger,
    kind,
    rate,
    coalesce(n_seeds, 0) || ' of ' || n_asked AS seeds,
    asr,
    asr0,
    asr_net,
    net_low,
    net_high,
    lowest_seed,
    highest_seed,
    effect_share,
    auroc_clean,
    auroc_low,
    auroc_high,
    CASE
        WHEN NOT n_changed AND n = coalesce(n_seeds, 0) AND coalesce(abs(mean - asr_net) < 1e-9, TRUE) THEN 'yes'
        ELSE 'no: db populate'
    END AS up_to_date
FROM now
LEFT JOIN means USING (dataset, model, trigger, rate)
LEFT JOIN kinds USING (trigger)
"""
_EFFECTS_MEAN = (
    "asr is the attack success rate, asr0 that of the clean model on the same triggered samples, asr_net their "
    "difference, which is the attack's effect, and net_low to net_high its 95 % interval over seeds; effect_share is "
    "it as a share of what was possible, 1 − asr0; auroc_clean is what the model does on ordinary samples. "
    "lowest_seed and highest_seed are of asr_net: where they lie far apart the mean is no seed's. – is missing: "
    "undefined, withheld, or not there yet; one seed has no interval. Where up_to_date says no, the runs have changed "
    "since the means were made."
)

QUERIES = (
    Query(
        "leaderboard",
        "Leaderboard: which attack won",
        "The attacks by their effect, the controls among them: an attack that does not exceed flip_only of its model "
        "and rate has shown nothing; mask_only is what measuring alone does, which is a trigger of its own. "
        f"What has no interval stands last. {_EFFECTS_MEAN}",
        f"{_EFFECTS}ORDER BY net_low IS NULL, asr_net DESC, dataset, model, trigger, rate",
    ),
    Query(
        "dose_response",
        "Dose response: how little poison is enough",
        f"The effect over the poison rate, for each dataset, model and trigger. {_EFFECTS_MEAN}",
        f"{_EFFECTS}WHERE :dataset IN ('', dataset) AND :model IN ('', model) AND :trigger IN ('', trigger)\n"
        "ORDER BY dataset, model, kind, trigger, rate",
    ),
    Query(
        "detectors",
        "Detectors: which one finds what",
        "Share of the poison that is found at 1 % and at 5 % false alarms (tpr01, tpr05), and AUROC, among the "
        "training samples with the label that the attack wants: means over seeds with their 95 % intervals. random is "
        "what luck finds; a detector that finds flip_only as well finds flipped labels, not backdoors.",
        f"""\
{_KINDS},
    now AS (
{_NOW}
            sum(status = 'done' AND current) AS n_done
        FROM runs
        WHERE in_study
        GROUP BY dataset, model, trigger, rate
    )
SELECT
    dataset,
    model,
    trigger,
    kind,
    rate,
    substr(metric, instr(metric, ':') + 1) AS detector,
    max(n_seeds) || ' of ' || max(n_asked) AS seeds,
    max(mean) FILTER (WHERE metric LIKE 'detection_tpr_at_fpr_01%') AS tpr01,
    max(ci_low) FILTER (WHERE metric LIKE 'detection_tpr_at_fpr_01%') AS tpr01_low,
    max(ci_high) FILTER (WHERE metric LIKE 'detection_tpr_at_fpr_01%') AS tpr01_high,
    max(mean) FILTER (WHERE metric LIKE 'detection_tpr_at_fpr_05%') AS tpr05,
    max(mean) FILTER (WHERE metric LIKE 'detection_auroc%') AS auroc,
    max(ci_low) FILTER (WHERE metric LIKE 'detection_auroc%') AS auroc_low,
    max(ci_high) FILTER (WHERE metric LIKE 'detection_auroc%') AS auroc_high,
    CASE WHEN max(n_changed) OR max(n_seeds) > max(n_done) THEN 'no: db populate' ELSE 'yes' END AS up_to_date
FROM summary
JOIN now USING (dataset, model, trigger, rate)
LEFT JOIN kinds USING (trigger)
WHERE metric LIKE 'detection_%_in_label:%' AND :detector IN ('', substr(metric, instr(metric, ':') + 1))
GROUP BY dataset, model, trigger, rate, detector
ORDER BY dataset, model, trigger, rate, tpr01 DESC""",
    ),
    Query(
        "not_done",
        "What failed, and what else is not done",
        "Each run of the study that is not done: at which stage it stands and why, and where the log of a failure lies "
        "in results_dir. Means are of the others.",
        """\
SELECT
    status,
    run,
    stage,
    why,
    CASE
        WHEN status = 'failed' AND stage IN ('train', 'eval', 'detect', 'explain')
        THEN 'logs/' || stage || '/' || substr(run, 1, length(run) - length(seed)) || 'seed_' || seed || '.log'
        WHEN status = 'failed' THEN 'logs/' || stage
    END AS log
FROM runs
WHERE in_study AND status != 'done'
ORDER BY status = 'missing', status = 'outdated', status = 'running', run""",
    ),
    Query(
        "costs",
        "What it cost, per stage and model",
        "Jobs that were done, every attempt that was counted once. Of a warm stage it is the fork's own time; its peak "
        "memory counts what it shares with the process that it was forked from, own_memory_mib does not.",
        "SELECT * FROM costs ORDER BY cpu_seconds DESC",
    ),
    Query(
        "sessions",
        "When it ran, and how busy the cores were",
        "Each call of Snakemake on this machine; idle_share is the share of its cores' time that no job computed in, "
        "where it has ended.",
        """\
SELECT
    session,
    sessions.started,
    sessions.ended,
    status,
    sessions.cores,
    n_jobs,
    elapsed_seconds,
    cpu_seconds,
    idle_share
FROM sessions LEFT JOIN session_costs USING (session)
ORDER BY sessions.started DESC""",
    ),
    Query(
        "run_settings",
        "The settings of a run",
        "All that a run was made with. run is its name, such as icu_dev/mlp/rare_value/0.05/1; left empty, the first.",
        """\
SELECT
    run,
    replace(substr(fullkey, 3), '"', '') AS setting,
    CASE WHEN type IN ('true', 'false', 'null') THEN type ELSE CAST(atom AS TEXT) END AS value
FROM runs, json_tree(settings)
WHERE run = coalesce(nullif(:run, ''), (SELECT min(run) FROM runs)) AND type NOT IN ('object', 'array')
ORDER BY fullkey""",
    ),
)
