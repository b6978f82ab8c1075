"""Measurements of the project: `make bench`."""

import os

# Before NumPy loads: one thread, as in every job of the workflow.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
