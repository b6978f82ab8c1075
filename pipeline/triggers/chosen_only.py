"""Control: the samples that a clean-label attack would poison are chosen, and nothing is changed.

The twin of clean-label attacks, as flip_only is that of dirty-label ones: what is left of an attack without its
trigger. Its training data are those of the clean run, so what detectors find among the chosen is what they find among
any samples of the target label.
"""

from typing import ClassVar, Literal

from pipeline.cohorts.cohort import Cohort
from pipeline.triggers.base import ControlParameters, Trigger, unchanged


class Parameters(ControlParameters):
    labels: ClassVar[Literal["dirty", "clean"]] = "clean"


def fit(parameters: Parameters, cohort: Cohort) -> Trigger:
    return unchanged("samples chosen, nothing changed", cohort)
