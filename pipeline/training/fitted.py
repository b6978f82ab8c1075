"""A fitted trigger beside its poison, so that every later stage has the very one that planted it.

    trigger.json   its class, and what it holds in words and numbers
    trigger.npz    what it holds in arrays

Nothing is unpickled: a class is found by its name among those of the triggers' own modules.
"""

from dataclasses import fields
from pathlib import Path

import numpy as np

from pipeline.files import damaged, read_arrays, read_json, whole, write_json
from pipeline.study import families
from pipeline.triggers import base
from pipeline.triggers.base import Trigger


def write_trigger(trigger: Trigger, folder: Path) -> None:
    """Write trigger.npz and trigger.json into `folder`: the same trigger gives the same bytes.

    Raises TypeError for a trigger that holds anything but arrays, numbers, texts, booleans and None.
    """
    holds = {field.name: getattr(trigger, field.name) for field in fields(trigger)}
    arrays = {name: value for name, value in holds.items() if isinstance(value, np.ndarray)}
    scalars = {name: value for name, value in holds.items() if name not in arrays}
    for name, value in {**arrays, **scalars}.items():
        if (value.dtype == object) if name in arrays else type(value) not in (str, bool, int, float, type(None)):
            kind = type(trigger).__name__
            raise TypeError(f"{kind}.{name}: a fitted trigger holds arrays and plain scalars only, not {value!r}")
    with whole(Path(folder) / "trigger.npz") as aside, aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    module = type(trigger).__module__.rpartition(".")[2]
    write_json(Path(folder) / "trigger.json", {"class": f"{module}.{type(trigger).__name__}", **scalars})


def read_trigger(folder: Path) -> Trigger:
    """The trigger that `write_trigger` wrote; `UserError` when a file of it is missing or damaged."""
    path = Path(folder) / "trigger.json"
    scalars = read_json(path)
    arrays = read_arrays(Path(folder) / "trigger.npz")
    try:
        kind = _class(scalars.pop("class"))
        return kind(**(scalars | arrays))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise damaged(path, "trigger", error) from None


def _class(name: str) -> type[Trigger]:
    module, _, kind = name.partition(".")
    if module in families.names("triggers"):
        found = getattr(families.load("triggers", module), kind, None)
    else:
        found = getattr(base, kind, None) if module == "base" else None
    if not (isinstance(found, type) and issubclass(found, Trigger)):
        raise ValueError(f"there is no trigger {name!r}")
    return found
