"""The promises of the code's structure: imports run one way, planning stays light, randomness has one source."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.study import families

# A package may import from those to its right, and from its own group.
LAYERS = [
    {"stages", "commands"},
    {"results"},
    {"detectors", "training", "evaluation"},
    {"models", "triggers"},
    {"cohorts"},
]
MODULES = sorted(Path("pipeline").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The packages of the project that a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("pipeline.")}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_run_one_way(path):
    package = path.parts[1]
    level = next((number for number, layer in enumerate(LAYERS) if package in layer), None)
    if level is None:
        return
    above = set().union(*LAYERS[:level])
    assert not imported(path) & above
    forbidden = {"models": {"triggers"}, "triggers": {"models"}, "detectors": {"models", "triggers"}}
    assert not imported(path) & forbidden.get(package, set())
    if package == "results":
        assert not imported(path) & {"models", "detectors", "triggers", "training"}


def modules_imported(path: Path) -> set[Path]:
    """The modules of the project that a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {path for name in names if (path := Path(*name.split(".")).with_suffix(".py")) in MODULES}


def test_no_import_runs_in_a_circle():
    from graphlib import TopologicalSorter

    TopologicalSorter({path: modules_imported(path) for path in MODULES}).prepare()  # raises CycleError


def test_planning_imports_nothing_heavy():
    code = (
        "import sys, yaml; from pipeline.study import grid, preflight; from pipeline.study.config import load_study\n"
        "preflight.check(load_study(yaml.safe_load(open('config/config.yaml'))))\n"
        "print(sorted({'torch', 'pandas', 'sklearn', 'captum', 'matplotlib', 'pandera'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_client_of_the_warm_server_imports_next_to_nothing():
    code = (
        "import sys; import pipeline.__main__; print(sorted({'ast', 'json', 'pathlib', 'typing'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_global_randomness(path):
    assert not re.search(r"np\.random\.(?!default_rng|SeedSequence|Generator)\w+|\bimport random\b", path.read_text())


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_member_has_frozen_parameters_with_defaults(family):
    for name in families.names(family):
        parameters = families.load(family, name).Parameters
        assert parameters.model_config["frozen"] and parameters.model_config["extra"] == "forbid"
        if family != "cohorts/sources":
            parameters()
