"""What the jobs of the workflow ask of whoever runs them: an order, and of a cluster a group, memory, time and GPUs.

Imports nothing heavy: Snakemake loads it on every call.
"""

from collections.abc import Callable
from typing import Literal

from pipeline.study.grid import CLEAN


def group(wildcards) -> str:
    """The group of a job: all stages of a cell, its poison included, become one job of the cluster.

    The clean runs are a group apart. Every other cell needs one of their models, so that in one group with them all
    cells of a seed would be a single job.
    """
    return "clean" if wildcards.trigger == CLEAN else "cells"


def priority(wildcards, rulename) -> int:
    """Of the jobs that are ready, the higher first: clean runs, which all others wait for, then whole cells.

    So that a study which is stopped half-way has results of half its cells. A workflow that takes this one in as a
    module may have put a prefix before the rule's name.
    """
    stages = ("poison", "train", "eval", "detect", "explain")
    return stages.index(rulename.rpartition("_")[2]) + (len(stages) if wildcards.trigger == CLEAN else 0)


def per_attempt(amount: int) -> Callable[..., int]:
    """A resource of a job: `amount` at first, as much more with every retry."""
    return lambda wildcards, attempt: amount * attempt


def gpus(device: Literal["auto", "cpu", "cuda"]) -> int | None:
    """GPUs to ask for, None for no such request: `auto` takes a GPU where a job happens to have one."""
    return 1 if device == "cuda" else None
