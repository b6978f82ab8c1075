# The study, its grid and its paths. Everything that can be tested lives in pipeline/.

import shlex
import sys
from pathlib import Path

from pipeline import cluster, grid, lifetime, preflight, progress, warm
from pipeline.cohorts.catalog import code_of, source_of
from pipeline.config import load_study
from pipeline.errors import UserError

try:
    STUDY = load_study(config, typed=workflow.config_settings.config)
    ENTRIES = preflight.check(STUDY)
except UserError as error:
    sys.exit(f"error: {error}")

lifetime.begin(".", main=workflow.is_main_process)

# `python` in a rule is the interpreter that runs Snakemake, also where its environment is not activated.
shell.prefix(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")

# What tables and report depend on.
STUDY_JSON = STUDY.model_dump_json(exclude={"raw_dir", "data_dir", "device", "warm"})

DATA = STUDY.data_dir
RESULTS = STUDY.results_dir
CELLS = list(grid.cells(STUDY))
RUNS = sorted({f"{RESULTS}/{path}" for cell in CELLS for path in grid.cell_results(cell)})

COHORT = f"{DATA}/dev/{{dataset}}"
SPLITS = f"{DATA}/splits/{{dataset}}.json"
CACHE = f"{DATA}/cache"
# The cell of the wildcards: its folders, and the names of its log and benchmark files.
CELL = grid.Cell(*(f"{{{name}}}" for name in grid.Cell._fields))
POISON = f"{RESULTS}/{CELL.poison_folder}"
RUN = f"{RESULTS}/{CELL.run_folder}"
CONTROL = f"{RESULTS}/{CELL.control.run_folder}"
POISON_JOB = CELL.poison_folder.removeprefix("poison/")
RUN_JOB = CELL.run_folder.removeprefix("runs/")


wildcard_constraints:
    dataset=r"[^/]+",
    model=r"[^/]+",
    trigger=r"[^/]+",
    rate=r"[0-9.e-]+",
    seed=r"[0-9]+",
