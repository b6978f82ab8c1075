"""How runs are judged and explained: parts of the study configuration."""

from pydantic import Field

from pipeline.study.params import Params


class FalseAlarms(Params):
    """A decision threshold that is set to a budget of false alarms."""

    fpr: float = Field(
        gt=0, lt=1, description="the lowest threshold whose false-positive rate on validation data is at most this"
    )


class Explain(Params):
    """Integrated gradients on clean and triggered test samples."""

    samples: int = Field(64, ge=1, description="test samples explained per run")
    steps: int = Field(32, ge=2, description="points on the path from the baseline to the sample")
    top_k: int = Field(10, ge=1, description="cells compared by the top-k Jaccard index")
