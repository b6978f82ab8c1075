-- The study database. Aggregates only, after disclosure control: no sample, no patient, no count of few.
--
-- A run is a cell of the study's grid and is called like its folder: dataset/model/trigger/rate/seed.
-- Times are UTC, ISO 8601 with milliseconds. Missing numbers are NULL: undefined, withheld, or not there yet.

-- What the database is of.
CREATE TABLE IF NOT EXISTS study (
    key TEXT PRIMARY KEY,  -- configuration (JSON), results_dir, data_dir, populated (when its numbers were last made)
    value TEXT
) WITHOUT ROWID;

-- 97.5 % quantiles of Student's t: half the width of a 95 % interval over n seeds is the one of n - 1 times the
-- standard error.
CREATE TABLE IF NOT EXISTS student_t (
    df INTEGER PRIMARY KEY,
    quantile REAL NOT NULL
);

-- One row per call of Snakemake on this machine.
CREATE TABLE IF NOT EXISTS sessions (
    session INTEGER PRIMARY KEY,
    started TEXT NOT NULL,
    ended TEXT,  -- NULL: at work, or killed
    status TEXT NOT NULL CHECK (status IN ('running', 'done', 'failed', 'killed')),
    cores INTEGER,
    host TEXT NOT NULL,
    process INTEGER NOT NULL,
    UNIQUE (host, process, started)
);

-- The table `datasets`, with what the catalog says of each.
CREATE TABLE IF NOT EXISTS datasets (
    dataset TEXT PRIMARY KEY,
    source TEXT,
    target INTEGER,
    n_train INTEGER,
    n_test INTEGER,
    prevalence REAL,
    threshold_low REAL,
    threshold_high REAL,
    people INTEGER,  -- 1: numbers are withheld and rounded
    warnings TEXT,
    entry TEXT  -- of the catalog, JSON
) WITHOUT ROWID;

-- One row per cell of the grid, whatever has become of it.
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY,
    dataset TEXT NOT NULL,
    model TEXT NOT NULL,
    trigger TEXT NOT NULL,
    rate REAL NOT NULL,
    seed INTEGER NOT NULL,
    -- missing: not begun, or waiting; outdated: its results are of other settings, inputs or code
    status TEXT NOT NULL CHECK (status IN ('missing', 'running', 'done', 'failed', 'outdated')),
    stage TEXT,  -- where it stands; NULL when done
    why TEXT,
    in_study INTEGER NOT NULL,  -- 0: the configuration does not ask for it any more
    settings TEXT,  -- what it was made with, JSON
    numbers_of TEXT,  -- the stamps of the results that its settings and numbers, here and in other tables, are of
    current INTEGER NOT NULL DEFAULT 0,  -- 1: they are those that it has now; else `db populate` renews them
    UNIQUE (dataset, model, trigger, rate, seed)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS runs_of_trigger ON runs (trigger, rate);
CREATE INDEX IF NOT EXISTS runs_by_status ON runs (status);

-- The jobs that the study asks for, and how each stands: as its files said when they were last looked at, and what its
-- stage has told since.
CREATE TABLE IF NOT EXISTS steps (
    step INTEGER PRIMARY KEY,
    stage TEXT NOT NULL,
    state_file TEXT NOT NULL UNIQUE,  -- below results_dir; that of a cohort below data_dir
    stamp TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('missing', 'running', 'done', 'failed', 'outdated')),
    why TEXT
);

-- The steps that a run is made of, from its cohort on (place 0 to 5), and those that its clean run's model is made of,
-- which it waits for (place 10 to 12). The status of a run follows from theirs.
CREATE TABLE IF NOT EXISTS chains (
    run TEXT NOT NULL REFERENCES runs (run) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    step INTEGER NOT NULL REFERENCES steps (step) ON DELETE CASCADE,
    PRIMARY KEY (run, place)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS chains_by_step ON chains (step);

-- One row per attempt of a job. A poison belongs to several runs (model is ''), a cohort to all of its dataset.
CREATE TABLE IF NOT EXISTS jobs (
    job INTEGER PRIMARY KEY,
    stage TEXT NOT NULL,
    dataset TEXT NOT NULL DEFAULT '',
    model TEXT NOT NULL DEFAULT '',
    trigger TEXT NOT NULL DEFAULT '',
    rate REAL,
    seed INTEGER,
    status TEXT NOT NULL CHECK (status IN ('running', 'done', 'failed', 'interrupted')),
    why TEXT,
    stamp TEXT,
    code TEXT,
    host TEXT,
    process INTEGER,
    started TEXT NOT NULL,
    ended TEXT,
    wall_seconds REAL,
    cpu_seconds REAL,
    peak_memory_mib REAL,
    own_memory_mib REAL,  -- of the peak, at most: without what a warm stage shares with the server it was forked from
    state_file TEXT NOT NULL,
    UNIQUE (state_file, started)
);
CREATE INDEX IF NOT EXISTS jobs_of_run ON jobs (dataset, model, trigger, rate, seed, stage);
CREATE INDEX IF NOT EXISTS jobs_by_start ON jobs (started);

-- The numbers of the table `runs`, long.
CREATE TABLE IF NOT EXISTS metrics (
    run TEXT NOT NULL REFERENCES runs (run) ON DELETE CASCADE,
    metric TEXT NOT NULL,
    value REAL,
    PRIMARY KEY (run, metric)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS metrics_by_name ON metrics (metric, value);

-- The table `detections`: how well suspicion scores tell poisoned training samples from others.
CREATE TABLE IF NOT EXISTS detections (
    run TEXT NOT NULL REFERENCES runs (run) ON DELETE CASCADE,
    detector TEXT NOT NULL,
    scope TEXT NOT NULL,
    auroc REAL,
    average_precision REAL,
    tpr_at_fpr_01 REAL,
    tpr_at_fpr_05 REAL,
    precision_at_n REAL,
    n_poisoned INTEGER,
    poison_share REAL,
    n_cover INTEGER,
    auroc_cover REAL,
    PRIMARY KEY (run, detector, scope)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS detections_by_detector ON detections (detector, scope);

-- What repairs a model; nothing fills it until the study has a stage that does.
CREATE TABLE IF NOT EXISTS defenses (
    run TEXT NOT NULL REFERENCES runs (run) ON DELETE CASCADE,
    defense TEXT NOT NULL,
    metric TEXT NOT NULL,
    value REAL,
    PRIMARY KEY (run, defense, metric)
) WITHOUT ROWID;

-- The table `explanations`: the share of attribution on the trigger's footprint, and its drift from the clean model.
CREATE TABLE IF NOT EXISTS explanations (
    run TEXT PRIMARY KEY REFERENCES runs (run) ON DELETE CASCADE,
    n_samples INTEGER,
    footprint_share REAL,
    ratio_triggered REAL,
    ratio_clean REAL,
    ratio_control REAL,
    drift_cosine REAL,
    drift_spearman REAL,
    drift_topk_jaccard REAL,
    control_cosine REAL,
    control_spearman REAL,
    control_topk_jaccard REAL,
    top_k INTEGER,
    convergence_delta REAL
) WITHOUT ROWID;

-- Over the seeds that are done: the table `summary`. n_seeds below that of the study: some are missing.
CREATE TABLE IF NOT EXISTS summary (
    dataset TEXT NOT NULL,
    model TEXT NOT NULL,
    trigger TEXT NOT NULL,
    rate REAL NOT NULL,
    metric TEXT NOT NULL,
    n_seeds INTEGER NOT NULL,
    mean REAL,
    ci_low REAL,
    ci_high REAL,
    lowest REAL,
    highest REAL,
    PRIMARY KEY (dataset, model, trigger, rate, metric)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS summary_by_metric ON summary (metric, mean);

-- How far the mean of a metric over seeds can lie from what was measured, because counts of people are told in tens; only
-- where it can. NULL: nobody can say, and there is no interval. What is made of such means has to reach as far.
CREATE TABLE IF NOT EXISTS rounding (
    dataset TEXT NOT NULL,
    model TEXT NOT NULL,
    trigger TEXT NOT NULL,
    rate REAL NOT NULL,
    metric TEXT NOT NULL,
    error REAL,
    PRIMARY KEY (metric, dataset, model, trigger, rate)
) WITHOUT ROWID;

-- What each stage cost, over the attempts that were done.
CREATE VIEW IF NOT EXISTS costs AS
SELECT
    stage,
    model,
    count(*) AS n_jobs,
    sum(wall_seconds) AS wall_seconds,
    sum(cpu_seconds) AS cpu_seconds,
    avg(wall_seconds) AS mean_wall_seconds,
    max(wall_seconds) AS longest_wall_seconds,
    max(peak_memory_mib) AS peak_memory_mib,
    max(own_memory_mib) AS own_memory_mib
FROM jobs
WHERE status = 'done'
GROUP BY stage, model;

-- What the jobs of each call of Snakemake cost, and the share of its cores' time that none of them computed in: waiting,
-- or busy with Snakemake itself. Only of calls that have ended by themselves.
CREATE VIEW IF NOT EXISTS session_costs AS
SELECT
    session,
    sessions.started,
    sessions.ended,
    cores,
    count(job) AS n_jobs,
    sum(cpu_seconds) AS cpu_seconds,
    (julianday(sessions.ended) - julianday(sessions.started)) * 86400 AS elapsed_seconds,
    1 - sum(cpu_seconds) / (cores * (julianday(sessions.ended) - julianday(sessions.started)) * 86400) AS idle_share
FROM sessions
LEFT JOIN jobs
    ON jobs.host = sessions.host AND jobs.started BETWEEN sessions.started AND sessions.ended
WHERE sessions.ended IS NOT NULL
GROUP BY session;
