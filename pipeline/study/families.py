"""Triggers, models, detectors and sources: one file per member, found by its name.

A member is any module of the family's package except `base`. Every member has a class `Parameters`.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

FAMILIES = ("triggers", "models", "detectors", "cohorts/sources")
_ROOT = Path(__file__).parent.parent


def names(family: str) -> list[str]:
    """The members of `family`, sorted; nothing is imported."""
    stems = (path.stem for path in (_ROOT / family).glob("*.py"))
    return sorted(stem for stem in stems if stem not in ("__init__", "base"))


def load(family: str, name: str) -> ModuleType:
    return import_module(f"pipeline.{family.replace('/', '.')}.{name}")


def configured(family: str, name: str, given: Mapping[str, Any]) -> tuple[ModuleType, Any]:
    """The member called `name`, or of which it is a variant (`of` among `given`), and its parameters."""
    parameters = dict(given)
    module = load(family, parameters.pop("of", name))
    return module, module.Parameters.model_validate(parameters)
