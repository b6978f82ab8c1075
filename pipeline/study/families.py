"""Triggers, models, detectors and sources: one file per member, found by its name.

A member is any module of the family's package except `base`. Every member has a class `Parameters`.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType

FAMILIES = ("triggers", "models", "detectors", "cohorts/sources")
_ROOT = Path(__file__).parent.parent


def names(family: str) -> list[str]:
    """The members of `family`, sorted; nothing is imported."""
    stems = (path.stem for path in (_ROOT / family).glob("*.py"))
    return sorted(stem for stem in stems if stem not in ("__init__", "base"))


def load(family: str, name: str) -> ModuleType:
    return import_module(f"pipeline.{family.replace('/', '.')}.{name}")
