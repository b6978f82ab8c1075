"""The folder that a study is run in, beside that of the project: what is read, what code runs, what git leaves alone.

Imports nothing heavy: Snakemake loads it on every call.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.files import ROOT, found

if TYPE_CHECKING:
    from pipeline.study.config import Study

CONFIG = "config/config.yaml"
# What of data_dir is ours; beside them may lie files that are not made and belong into git.
_MADE = ("dev", "splits", "cache", "states")
# What of a study no number depends on, and no stamp.
NOT_MEASURED = {"raw_dir", "data_dir", "results_dir", "catalog", "warm", "tracking", "tracking_uri"}


def study_file() -> Path:
    """The configuration that every study starts from: this folder's, or else the project's, which is said."""
    path = found(CONFIG)
    if not Path(CONFIG).exists():
        print(f"no {CONFIG} in {Path.cwd()}: the project's is read, {path}", file=sys.stderr)
    return path


def use_this_code() -> None:
    """Have whatever this process starts run this Python and the code of this project, in any folder.

    Raises `UserError` where the project's own path has what search paths or Snakemake take for something else.
    """
    if any(letter in "{}:" or letter < " " for letter in str(ROOT)):
        raise UserError(f"the project lies in {str(ROOT)!r}, expected a folder without braces, colons and line breaks")
    searched = {"PATH": Path(sys.executable).parent, "PYTHONPATH": ROOT}
    for name, first in searched.items():
        os.environ[name] = os.pathsep.join([str(first), *filter(None, [os.environ.get(name)])])
    os.environ["PYTHONSAFEPATH"] = "1"  # not that of a folder called pipeline where the study is run


def written_to(study: "Study") -> list[Path]:
    """The folders that `study` is written to, all that is in them its own; none of a data_dir that is read-only."""
    data = Path(study.data_dir)
    writable = not data.exists() or os.access(data, os.W_OK | os.X_OK)
    return [Path(study.results_dir), *(data / name for name in _MADE if writable)]
