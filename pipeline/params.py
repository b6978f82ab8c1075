"""The base of every typed, frozen set of parameters."""

from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    """Frozen; an unknown key is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")
