"""The base of every typed, frozen set of parameters."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Params(BaseModel):
    """Frozen; an unknown key is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def located(text: str) -> str:
    """The path that `text` stands for: `~`, $NAME and ${NAME} replaced, without `./` and `//`.

    Applied again it changes nothing. Raises ValueError where a variable or user is not known, and for names that
    Snakemake or a stage's command line would take for something else.
    """
    given = json.dumps(text, ensure_ascii=False)
    try:
        path = Template(text).substitute({name: value for name, value in os.environ.items() if value})
    except KeyError as error:
        raise ValueError(f"{given} given, but the environment has no variable {error.args[0]}") from None
    except ValueError:
        path = text
    path = os.path.expanduser(path)
    if path.startswith("~"):
        raise ValueError(f"{given} given, but there is no such user to find the home folder of")
    if path.startswith("-") or any(letter in "{}$" or letter < " " for letter in path):
        raise ValueError(
            f"{given} given, expected a path without braces and line breaks, no - in front, and $ only before the "
            "name of a variable of the environment"
        )
    return str(Path(path))


ModelName = Annotated[str, Field(min_length=1, json_schema_extra={"x-names": "models"})]
"""A parameter of a model that names another model of the study, which is trained first.

It has to be given: its default, such as "", is no name. Planning finds it by its mark in the schema (`Study.parents`).
"""

ModelNames = Annotated[
    tuple[str, ...], Field(min_length=1, json_schema_extra={"x-names": "models", "uniqueItems": True})
]
"""The same for several models."""


def trained_on(parameters: Mapping[str, Any]) -> Literal["clean", "poisoned"]:
    """What a model with these `parameters`, as given, is trained on: a `dormant` one is, and `distill` may say so."""
    if parameters.get("dormant") is not None:
        return "clean"
    return (parameters.get("distill") or {}).get("data", "poisoned")


Location = Annotated[str, Field(min_length=1), AfterValidator(located)]
"""A file or folder in a configuration."""
