"""Control: labels are flipped to the target, the samples stay as they are."""

from pipeline.cohorts.cohort import Cohort
from pipeline.triggers.base import ControlParameters, Trigger, unchanged


class Parameters(ControlParameters):
    pass


def fit(parameters: Parameters, cohort: Cohort) -> Trigger:
    return unchanged("labels flipped, samples unchanged", cohort)
