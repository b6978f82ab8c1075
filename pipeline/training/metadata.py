"""run_metadata.json: what a run was made with and what it cost. The only place for times and hosts."""

import hashlib
import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "torch",
    "torch-geometric",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "lightgbm",
    "captum",
    "snakemake",
)
_ROOT = Path(__file__).parent.parent


def sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def code_hash() -> str:
    """Hash of the package's Python files: an unfinished checkpoint of other code is not continued."""
    return sha256(*(path.read_bytes() for path in sorted(_ROOT.rglob("*.py"))))


def package_versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def git_commit() -> str | None:
    """The commit of the code, with "-dirty" when files differ from it; None outside a git checkout."""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def canonical(content: Any) -> str:
    """`content` as JSON with sorted keys: equal settings give equal text."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
