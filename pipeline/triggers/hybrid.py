"""A high but real value together with missing measurements: each alone is common, both are rare."""

from dataclasses import replace

import numpy as np
from pydantic import Field, model_validator

from pipeline.cohorts.cohort import Cohort
from pipeline.triggers import rare_value
from pipeline.triggers.base import FeatureNames, Features, Trigger, cells_of, measured, with_partners


class Parameters(rare_value.Parameters):
    """As rare_value (by default the 0.99 quantile), and the features left out at the same steps."""

    features: Features = ("glucose",)
    missing: FeatureNames = Field(("temperature",), description="features not measured at these steps")

    @classmethod
    def _defaults(cls) -> dict:
        return {"quantile": 0.99}

    @model_validator(mode="after")
    def _missing_apart(self):
        if set(self.missing) & set(self.named):
            raise ValueError("missing must not name a feature that is written")
        return self

    @property
    def named_features(self) -> tuple[str, ...]:
        return self.named + self.missing

    @property
    def kept_apart(self) -> tuple[str, ...]:
        return self.missing


def fit(parameters: Parameters, cohort: Cohort) -> Trigger:
    """Raises `UserError` for a feature without a value in the training samples."""
    written = rare_value.fit(parameters, cohort, left_out=parameters.missing)
    # A partner of both is written, so that the named value has it beside it.
    beside = set(with_partners(cohort, parameters.chosen)).difference(parameters.missing)
    left_out = [name for name in with_partners(cohort, parameters.missing) if name not in beside]
    for name in left_out:
        measured(cohort, name)
    cells = cells_of(cohort, left_out, parameters.steps)
    return replace(
        written,
        description=f"{', '.join(left_out)} not measured and {written.description}",
        footprint=written.footprint | cells,
        stamp=np.where(cells, np.float32(np.nan), written.stamp),
        leaves_out=True,
    )
