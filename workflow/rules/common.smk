# The study, its grid and its paths. Everything that can be tested lives in pipeline/.

import json
import sys
from pathlib import Path

from pipeline.database import sessions, tracking
from pipeline.jobs import cluster, lifetime, warm
from pipeline.study import costs, grid, places, preflight, progress
from pipeline.jobs.clock import Clock
from pipeline.cohorts.catalog import source_of
from pipeline.study.config import load_study
from pipeline.errors import UserError
from pipeline.files import found, read_yaml
from pipeline.study.stamps import NOT_MEASURED, REPORT_NOTEBOOK, Stamps, cohort_stamps

CLOCK = Clock()

try:
    places.use_this_code()
    # Snakemake has read them, but takes the last of two equal keys.
    for path in workflow.configfiles:
        read_yaml(path)
    STUDY = load_study(config, typed=workflow.config_settings.config)
    ENTRIES = preflight.check(STUDY)
    COHORTS = cohort_stamps(STUDY, ENTRIES)
except UserError as error:
    sys.exit(f"error: {error}")

lifetime.begin()

# What tables and report depend on.
STUDY_JSON = STUDY.model_dump_json(exclude=NOT_MEASURED)
COHORTS_JSON = json.dumps({name: made.text() for name, made in COHORTS.items()})

DATA = STUDY.data_dir
RESULTS = STUDY.results_dir
CELLS = list(grid.cells(STUDY))
STAMPS = Stamps(STUDY, COHORTS)
RUNS = sorted({f"{RESULTS}/{path}" for cell in CELLS for path in grid.cell_results(STUDY, cell)})

COHORT = f"{DATA}/dev/{{dataset}}"
SPLITS = f"{DATA}/splits/{{dataset}}.json"
CACHE = f"{DATA}/cache"
# The cell of the wildcards: its folders, and the names of its log and benchmark files.
CELL = grid.Cell(*(f"{{{name}}}" for name in grid.Cell._fields))
POISON = f"{RESULTS}/{CELL.poison_folder}"
RUN = f"{RESULTS}/{CELL.run_folder}"
CONTROL = f"{RESULTS}/{CELL.control.run_folder}"
# What all stages that compute with a model ask for.
COMPUTING = {"mem_mb": cluster.per_attempt(4000), "gpu": cluster.gpus(STUDY.device)}


wildcard_constraints:
    dataset=r"[^/]+",
    model=r"[^/]+",
    trigger=r"[^/]+",
    rate=r"[0-9.e-]+",
    seed=r"[0-9]+",
