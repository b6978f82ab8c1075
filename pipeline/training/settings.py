"""How models are trained: a section of the study configuration."""

from typing import Literal

from pydantic import Field, model_validator

from pipeline.study.params import Params


class Training(Params):
    """How every model of the study is trained, and the weights of which epoch are kept."""

    select: Literal["last", "best"] = Field(
        "last", description="the epoch whose weights are kept: the last, or the one of the best validation AUROC"
    )
    epochs: int = Field(12, ge=1, description="passes over the training data")
    patience: int | None = Field(
        None, ge=1, description="with select: best, epochs without a better validation AUROC before training stops"
    )
    batch_size: int = Field(256, ge=1)
    learning_rate: float = Field(1e-3, gt=0, description="of the first step")
    schedule: Literal["linear", "constant"] = Field(
        "linear", description="the learning rate over the epochs: falling to zero in a straight line, or as it is"
    )
    weight_decay: float = Field(0.01, ge=0)
    class_weights: bool = Field(False, description="weigh the rarer class up by the ratio of the class sizes")

    @model_validator(mode="after")
    def _patience_has_a_use(self):
        if self.patience is not None and self.select == "last":
            raise ValueError("patience needs select: best; the last epoch is trained to the end")
        return self
