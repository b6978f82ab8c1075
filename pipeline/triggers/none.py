"""Control: nothing is changed and nobody is poisoned."""

from pipeline.cohorts.cohort import Cohort
from pipeline.triggers.base import ControlParameters, Trigger, unchanged


class Parameters(ControlParameters):
    pass


def fit(parameters: Parameters, cohort: Cohort) -> Trigger:
    return unchanged("no poison", cohort)
