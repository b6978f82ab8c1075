"""What the jobs of the workflow ask of a cluster; nothing of it matters on one machine.

Imports nothing heavy: Snakemake loads it on every call.
"""

from collections.abc import Callable
from typing import Literal

from pipeline.grid import CLEAN


def group(wildcards) -> str:
    """The group of a job: all stages of a cell, its poison included, become one job of the cluster.

    The clean runs are a group apart. Every other cell needs one of their models, so that in one group with them all
    cells of a seed would be a single job.
    """
    return "clean" if wildcards.trigger == CLEAN else "cells"


def per_attempt(amount: int) -> Callable[..., int]:
    """A resource of a job: `amount` at first, as much more with every retry."""
    return lambda wildcards, attempt: amount * attempt


def gpus(device: Literal["auto", "cpu", "cuda"]) -> int | None:
    """GPUs to ask for, None for no such request: `auto` takes a GPU where a job happens to have one."""
    return 1 if device == "cuda" else None
