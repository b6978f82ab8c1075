"""Named variants: entries of `model_params` and its like that say of which member they are, and what differs.

`mlp_wide: {of: mlp, hidden: [512, 256]}` is a model like any other, under its own name. A variant may be one of another
variant, and starts from what the study says of that. A model's may also have keys of `training`.
"""

import re
from collections.abc import Mapping
from typing import Any

from pipeline.errors import UserError
from pipeline.study import families
from pipeline.words import suggestion

# A family's list in the grid, and the section with its members' parameters and its variants.
SECTIONS = {"models": "model_params", "triggers": "trigger_params", "detectors": "detector_params"}
# It stands in paths, figures, command lines and CSV files, where some words and all digits become something else.
NAME = r"(?!(?i:na|nan|none|null|true|false|yes|no|on|off)$)[A-Za-z][A-Za-z0-9_.-]{0,63}"
BASELINE = "random"  # the detector that knows nothing, which all others are compared with
_TAKEN = ("sample_id", "label", "role")  # columns beside the scores of detectors
CLEAN = "none"  # the trigger of clean runs, which is nobody's to name


def members(family: str) -> list[str]:
    """The members of `family` that a study may name."""
    return [name for name in families.names(family) if name != CLEAN]


def resolved(entries: Mapping[str, Mapping[str, Any]], name: str) -> tuple[str, dict[str, Any]]:
    """The member that `name` is or is a variant of, and all that `entries` say of it: its own keys before others'.

    `check` has seen the entries, or a circle never ends.
    """
    own = dict(entries.get(name, {}))
    if "of" not in own:
        return name, own
    member, below = resolved(entries, own.pop("of"))
    return member, merged(below, own)


def merged(below: Any, above: Any) -> Any:
    """`above` laid over `below` as Snakemake does it: mappings key by key, anything else as a whole."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    return {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}


def check(config: Mapping[str, Any]) -> None:
    """`UserError` for a variant whose name or `of` cannot be; what is no mapping is left to the schema."""
    for family, section in SECTIONS.items():
        entries = config.get(section, {})
        if not isinstance(entries, Mapping):
            continue
        for name, entry in entries.items():
            if isinstance(entry, Mapping):
                _check_entry(family, section, entries, name)


def _check_entry(family: str, section: str, entries: Mapping[str, Any], name: Any) -> None:
    key, known = f"config: {section}.{name}", members(family)
    if "of" not in entries[name]:
        if name not in known:
            hint = suggestion(name, known)
            raise UserError(f"{key}: no such key {hint}; a variant says what it is of, such as of: {known[0]}")
        return
    of = entries[name]["of"]
    if not isinstance(of, str):
        raise UserError(f"{key}.of: {of!r} given, expected the name of a member or variant")
    if name in (*known, CLEAN):
        raise UserError(f"{key}.of: {of!r} given, but {name!r} is itself one of the {family}; expected another name")
    if not isinstance(name, str) or not re.fullmatch(NAME, name) or (family == "detectors" and name in _TAKEN):
        raise UserError(
            f"{key}: expected a name for a variant of at most 64 letters a to z, digits, _ . and -, a letter first, "
            "and no word such as none, true or label"
        )
    chain = [name]
    while isinstance(entries.get(of), Mapping) and "of" in entries[of]:
        chain.append(of)
        of = entries[of]["of"]
        if of in chain:
            raise UserError(f"{key}.of: a circle, {' of '.join([*chain, of])}; expected a member in the end")
    if family == "detectors" and of == BASELINE:
        raise UserError(f"{key}.of: {of!r} is the baseline of all detectors; expected another, or change {of!r} itself")
    if of not in known:
        asked = f"{section}.{chain[-1]}.of"
        others = [other for other in (*known, *map(str, entries)) if other != chain[-1]]
        raise UserError(f"config: {asked}: unknown {of!r} {suggestion(of, dict.fromkeys(others))}")
