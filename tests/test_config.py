"""The configuration: its schema is up to date, its errors name the key, its cells are the grid."""

import json
import tomllib
from pathlib import Path

import pytest
import yaml

from pipeline import grid, preflight
from pipeline.config import SCHEMA, json_schema, load_study
from pipeline.errors import UserError
from pipeline.files import read_yaml

DEFAULT = yaml.safe_load(Path("config/config.yaml").read_text())


def study(**changes):
    return load_study(DEFAULT | changes)


def test_the_schema_is_generated_from_the_classes():
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(json_schema())), "run: make schema"


@pytest.mark.parametrize("path", sorted(Path("config").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid(path):
    shipped = load_study(DEFAULT | yaml.safe_load(path.read_text()))
    try:
        preflight.check(shipped)
    except UserError as error:
        # Real data need not be at hand; everything else is checked before it is looked for.
        assert "no such file" in str(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, r"epoch: no such key"),
        ({"modles": ["mlp"]}, r"modles: no such key \(did you mean 'models'\?\)"),
        ({"models": ["mpl"]}, r"models\[0\]: unknown \"mpl\" \(did you mean 'mlp'\?\)"),
        ({"models": []}, r"models: \[\] given"),
        ({"models": "mlp"}, r'models: "mlp" given, expected an array'),
        ({"triggers": ["none"]}, r"triggers\[0\]: unknown \"none\""),
        ({"detectors": ["abs"]}, r"detectors\[0\]: unknown \"abs\""),
        ({"rates": [0.01, 1.5]}, r"rates\[1\]: 1.5 given, expected a number below 1"),
        ({"rates": [float("nan")]}, r"rates.0: Input should be less than 1"),
        ({"rates": [0]}, r"rates\[0\]: 0 given, expected a number above 0"),
        ({"rates": ["many"]}, r"rates\[0\]: \"many\" given, expected a number"),
        ({"seeds": [1, 1]}, r"seeds: .* no entry twice"),
        ({"seeds": [-1]}, r"seeds\[0\]: -1 given, expected at least 0"),
        ({"target": 2}, r"target: 2 given, expected one of 0, 1"),
        ({"threshold": "best"}, r"threshold: \"best\" given, expected .*youden"),
        ({"n_samples": 5}, r"n_samples: 5 given"),
        ({"device": "gpu"}, r"device: unknown \"gpu\" \(did you mean 'cpu'\?\)"),
        ({"training": {"epochs": 0}}, r"training.epochs: 0 given, expected at least 1"),
        ({"training": {"epoch": 3}}, r"training.epoch: no such key \(did you mean 'epochs'\?\)"),
        ({"model_params": {"mlp": {"dropout": 1}}}, r"model_params.mlp.dropout: 1 given, expected a number below 1"),
        ({"model_params": {"mlp": {"hiden": [1]}}}, r"model_params.mlp.hiden: no such key \(did you mean 'hidden'\?\)"),
        ({"trigger_params": {"rare_value": {"steps": 0}}}, r"trigger_params.rare_value.steps"),
        ({"datasets": ["icu"]}, r"datasets: unknown 'icu'"),
        (
            {"trigger_params": {"rare_value": {"features": ["natrium"]}}},
            r"trigger_params.rare_value: dataset 'icu_dev' has no feature 'natrium'",
        ),
        ({"trigger_params": {"rare_value": {"features": ["sex"]}}}, r"'sex' of dataset 'icu_dev' is a category"),
        (
            {"trigger_params": {"rare_value": {"factor": 2, "value": 3}}},
            r"trigger_params.rare_value: give exactly one of",
        ),
        ({"trigger_params": {"correlation": {"driver": "resp_rate"}}, "triggers": ["correlation"]}, r"driver must not"),
        ({"rates": [0.2], "target": 0}, r"rates: 0.2 asks for more poison than 'icu_dev' has eligible"),
        ({"rates": [0.95]}, r"rates: 0.95 asks for more poison"),
        ({"rates": [0.0001]}, r"rates: 0.0001 of the 3500 training samples of 'icu_dev' is less than one sample"),
        (
            {"rates": [0.0005], "validation": "poisoned"},
            r"rates: 0.0005 of the 750 validation samples of 'icu_dev' is less than one sample",
        ),
        ({"training": {"patience": 5}}, r"training: patience needs select: best"),
        ({"training": {"select": "latest"}}, r"training.select: unknown \"latest\""),
        ({"validation": "dirty"}, r"validation: unknown \"dirty\""),
        ({"catalog": "data/nothing.yaml"}, r"data/nothing.yaml: no such file"),
    ],
)
def test_an_error_is_one_line_that_names_the_key(changes, message):
    with pytest.raises(UserError, match=message) as raised:
        preflight.check(study(**changes))
    assert "\n" not in str(raised.value)


def test_a_missing_key_is_named():
    with pytest.raises(UserError, match="config: seeds: missing"):
        load_study({key: value for key, value in DEFAULT.items() if key != "seeds"})


@pytest.mark.parametrize("content", ["a: [", "- 1", "", "a: b: c"])
def test_an_unreadable_configuration_is_one_line(tmp_path, content):
    path = tmp_path / "study.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match="study.yaml: (not readable as YAML|expected a mapping)") as raised:
        read_yaml(path)
    assert "\n" not in str(raised.value)


def test_texts_from_the_command_line_become_numbers():
    changed = study(rates=["0.005", "1e-2"], seeds=["3"], training={"class_weights": "true"})
    assert changed.rates == (0.005, 0.01) and changed.seeds == (3,) and changed.training.class_weights is True


def test_the_grid():
    cells = list(grid.cells(study(models=["mlp"], triggers=["rare_value", "flip_only"], rates=[0.01, 0.05], seeds=[7])))
    assert len(cells) == 1 + 2 * 2
    assert cells[0] == cells[3].control == grid.Cell("icu_dev", "mlp", "none", "0.0", "7")
    assert cells[1].run_folder == "runs/icu_dev/mlp/rare_value/0.01/seed_7"
    assert [cell.has_footprint for cell in cells] == [False, True, True, False, False]


def test_a_setting_reaches_only_the_stages_that_need_it():
    before, after = study(), study(trigger_params={"rare_value": {"factor": 1.3}})
    stages = ("poison", "train", "eval", "detect", "explain")
    changed = {
        (stage, trigger)
        for stage in stages
        for trigger in ("rare_value", "missingness")
        if grid.settings(before, stage, "mlp", trigger) != grid.settings(after, stage, "mlp", trigger)
    }
    # train and detect follow through their input, the poison.
    assert changed == {("poison", "rare_value"), ("eval", "rare_value"), ("explain", "rare_value")}


def test_mask_only_covers_the_cells_of_rare_value():
    def covered(**params):
        return study(trigger_params=params).parameters("triggers", "mask_only")

    written = {"features": ["sodium"], "steps": 3, "factor": 1.2}
    assert covered() == {} == covered(missingness={"features": ["sodium"]})
    assert covered(rare_value=written) == {"features": ["sodium"], "steps": 3}
    own = {"features": ["glucose"]}
    assert covered(rare_value=written, mask_only=own) == {"features": ["glucose"], "steps": 3}
    changed = study(trigger_params={"rare_value": written})
    assert json.loads(grid.settings(changed, "poison", trigger="mask_only"))["trigger"]["features"] == ["sodium"]


def test_the_device_reaches_the_stages_that_use_a_model():
    stages = ("poison", "train", "eval", "detect", "explain")
    changed = [stage for stage in stages if grid.settings(study(), stage) != grid.settings(study(device="auto"), stage)]
    assert changed == ["train", "eval", "detect", "explain"]


def test_pyproject_constraints_and_conda_environment_are_in_step():
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {*project["dependencies"], *extras["slurm"], *extras["dev"]} - {f"{project['name']}[slurm]"}
    pins = dict(line.lower().split("==") for line in Path("constraints.txt").read_text().splitlines() if line[0] != "#")
    assert wanted <= set(pins), "every dependency is pinned"
    assert pins["torch"] == "2.13.0"
    conda = yaml.safe_load(Path("environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    assert pip == ["--constraint constraints.txt", "--editable .[dev]"]
    python = next(entry for entry in conda if str(entry).startswith("python"))
    assert python.removeprefix("python") == project["requires-python"]
