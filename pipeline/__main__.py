"""`python -m pipeline COMMAND …`: the stages of the workflow, and commands around it.

A call is served by the warm server where there is one (jobs/warm.py), else by this process (front.py).
"""

import os

# Before anything can load NumPy: one thread per job, the workflow runs as many jobs as there are cores.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import sys  # noqa: E402

from pipeline.jobs import lifetime, warm  # noqa: E402

if __name__ == "__main__":
    status = warm.call(sys.argv[1:])
    if status is None:
        from pipeline.study import code

        lifetime.end_with_snakemake()
        code.drop_old_bytecode()

        from pipeline.front import main

        status = main(sys.argv[1:])
    sys.exit(status)
