"""The configuration: its schema is up to date, its errors name the key, its cells are the grid."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from pipeline.errors import UserError
from pipeline.files import read_yaml
from pipeline.study import config, families, grid, preflight, variants
from pipeline.study.config import SCHEMA, SECTIONS, Study, json_schema, load_study

DEFAULT = yaml.safe_load(Path("config/config.yaml").read_text())


def study(**changes):
    return load_study(variants.merged(DEFAULT, changes))


def test_the_schema_is_generated_from_the_classes():
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(json_schema())), "run: python -m pipeline schema"


@pytest.mark.parametrize("path", sorted(Path("config").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid(path):
    shipped = load_study(variants.merged(DEFAULT, yaml.safe_load(path.read_text())))
    try:
        preflight.check(shipped)
    except UserError as error:
        # Real data need not be at hand; everything else is checked before it is looked for.
        assert "no such file" in str(error)


BY_IMPORTANCE = {"by": "importance", "take": 3}
# What the study's trigger_params say of one trigger, and what is said of that.
PLANTING = [
    (
        "rare_value",
        {"features": ["sex"], "quantile": 0.9},
        r"rare_value: 'sex' .* is a category, expected a number; to",
    ),
    (
        "rare_value",
        {"features": ["sex"], "factor": 2},
        r"rare_value: 'sex' .* is a category, expected a number; to",
    ),
    (
        "rare_value",
        {"features": ["sex"], "value": 1},
        r"rare_value: 'sex' .* is a category, expected a number; to",
    ),
    (
        "hybrid",
        {"features": ["sex"], "value": "mal"},
        r"value: 'mal' is no category of 'sex' \(did you mean 'male'\?\)",
    ),
    (
        "rare_value",
        {"features": ["sodium"], "value": "male"},
        r"rare_value.value: 'male' is no number, as 'sodium' is in",
    ),
    (
        "rare_value",
        {"features": ["sodium"], "value": {"sex": "male"}},
        r"rare_value: value as a mapping must have each of",
    ),
    ("rare_value", {"value": [1]}, r"rare_value.value: \[1\] given, expected number or string or object"),
    ("pattern", {"features": ["sex"]}, r"pattern: 'sex' of dataset 'icu_dev' is a category, expected a number$"),
    (
        "correlation",
        {"features": ["sex"]},
        r"correlation: 'sex' of dataset 'icu_dev' is a category, expected a number$",
    ),
    ("missingness", {"features": ["sexe"]}, r"missingness: dataset 'icu_dev' has no feature 'sexe'"),
    ("rare_value", {"features": {"by": "luck", "take": 1}}, r"features.by: unknown \"luck\" \(known: importance\)"),
    ("rare_value", {"features": BY_IMPORTANCE | {"tak": 1}}, r"features.tak: no such key \(did you mean 'take'\?\)"),
    ("rare_value", {"features": {"by": "importance"}}, r"take: missing$"),
    (
        "rare_value",
        {"features": BY_IMPORTANCE | {"take": 0}},
        r"rare_value.features.take: 0 given, expected at least 1$",
    ),
    ("rare_value", {"features": "sodium"}, r"rare_value.features: \"sodium\" given, expected array or object$"),
    ("rare_value", {"features": []}, r"rare_value.features: \[\] given, expected at least 1 entry$"),
    ("rare_value", {"features": [1]}, r"rare_value.features\[0\]: 1 given, expected a string$"),
    (
        "pattern",
        {"features": BY_IMPORTANCE | {"take": 99}},
        r"pattern.features.take: 99 given, but the trigger can",
    ),
    ("rare_value", {"labels": "none"}, r"rare_value.labels: unknown \"none\""),
    ("rare_value", {"target": 2}, r"rare_value.target: 2 given, expected 0 or 1"),
    ("rare_value", {"cover": -1}, r"rare_value.cover: -1 given, expected at least 0$"),
    ("flip_only", {"labels": "clean"}, r"flip_only.labels: no such key"),
    ("chosen_only", {"cover": 1}, r"chosen_only.cover: no such key"),
    (
        "pattern",
        {"cover": 30},
        r"pattern.cover: 30 asks, at rate 0.05, .* 150.0% of .*; only 8\d.\d% of them",
    ),
]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, r"epoch: no such key"),
        ({"modles": ["mlp"]}, r"modles: no such key \(did you mean 'models'\?\)"),
        ({"models": ["mpl"]}, r"models\[0\]: unknown \"mpl\" \(did you mean 'mlp'\?\)"),
        ({"models": []}, r"models: \[\] given, expected at least 1 entry$"),
        ({"models": "mlp"}, r'models: "mlp" given, expected an array'),
        ({"triggers": ["none"]}, r"triggers\[0\]: unknown \"none\""),
        ({"detectors": ["abs"]}, r"detectors\[0\]: unknown \"abs\""),
        ({"rates": [0.01, 1.5]}, r"rates\[1\]: 1.5 given, expected a number below 1"),
        ({"rates": [float("nan")]}, r"rates\[0\]: NaN given, expected a number"),
        ({"training": {"learning_rate": float("inf")}}, r"training.learning_rate: Infinity given, expected a number"),
        (
            {"detector_params": {"random": {"flag_share": float("nan")}}},
            r"random.flag_share: NaN given, expected a numb",
        ),
        ({"model_params": {1: {}}}, r"model_params.1: no such key"),
        ({"rates": [0]}, r"rates\[0\]: 0 given, expected a number above 0"),
        ({"rates": ["many"]}, r"rates\[0\]: \"many\" given, expected a number"),
        ({"seeds": [1, 1]}, r"seeds: .* no entry twice"),
        ({"seeds": [-1]}, r"seeds\[0\]: -1 given, expected at least 0"),
        ({"target": 2}, r"target: 2 given, expected one of 0, 1"),
        ({"threshold": {"fpr": 2}}, r"threshold: .*fpr.* given, expected .* or \{fpr: number above 0 and below 1\}"),
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
        *(({"trigger_params": {name: given}, "triggers": [name]}, message) for name, given, message in PLANTING),
        ({"rates": [0.2], "target": 0}, r"rates: 0.2 asks for more poison than 'icu_dev' has eligible"),
        ({"rates": [0.95]}, r"rates: 0.95 asks for more poison"),
        (
            {"rates": [0.2], "trigger_params": {"missingness": {"target": 0}}},
            r"missingness.target: rate 0.2 asks for more poison .* do not have the target label 0 yet$",
        ),
        (
            {"rates": [0.2], "trigger_params": {"missingness": {"labels": "clean"}}},
            r"missingness.labels: at rate 0.2 clean labels ask for more poison .* of them have the target label 1$",
        ),
        ({"rates": [0.2], "triggers": ["chosen_only"]}, r"rates: 0.2 asks for more poison .* have the target label 1$"),
        (
            {"rates": [0.1], "triggers": ["rare_value"], "trigger_params": {"rare_value": {"target": 0, "cover": 2}}},
            r"rare_value.cover: 2 asks, at rate 0.1, for cover of 20.0% .* that do not have the target label 0$",
        ),
        ({"rates": [0.0001]}, r"rates: 0.0001 of the 3,500 training samples of 'icu_dev' is less than one sample"),
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


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("rare_value", {"features": ["sex"], "value": "male"}),
        ("rare_value", {"features": ["sodium", "sex"], "value": {"sodium": 170, "sex": "male"}}),
        ("hybrid", {"features": ["sex"], "value": "male", "missing": ["sodium"]}),
        ("missingness", {"features": ["sex"]}),
        ("mask_only", {"features": ["sex", "sodium"]}),
        ("pattern", {"features": BY_IMPORTANCE, "cover": 1.5, "target": 0, "labels": "clean"}),
        ("correlation", {"features": BY_IMPORTANCE}),
        ("hybrid", {"features": BY_IMPORTANCE}),
        ("flip_only", {"target": 0}),
        ("chosen_only", {"target": 0}),
    ],
)
def test_a_way_of_planting_is_accepted(name, given):
    preflight.check(study(triggers=[name], trigger_params={name: given}))


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
    typed = {
        "rates": ["0.005", "1e-2"],
        "seeds": ["3"],
        "warm": "false",
        "training": {"class_weights": "true", "patience": "null"},
    }
    changed = load_study(DEFAULT | {"training": {"epochs": 7}}, typed)
    assert changed.rates == (0.005, 0.01) and changed.seeds == (3,) and changed.warm is False
    assert changed.training.class_weights is True and changed.training.patience is None
    assert changed.training.epochs == 7, "a mapping is merged"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": ["1"]}, r'seeds\[0\]: "1" given, expected an integer; write 1$'),
        ({"rates": ["1e-5"]}, r'rates\[0\]: "1e-5" given, expected a number; write 0.00001$'),
        ({"training": {"class_weights": "true"}}, r'training.class_weights: "true" given, expected a boolean$'),
        ({"warm": "false"}, r'warm: "false" given, expected a boolean$'),
    ],
)
def test_texts_of_a_file_stay_texts(changes, message):
    with pytest.raises(UserError, match=message):
        study(**changes)


def test_a_list_that_the_shell_has_split_is_told_to_be_quoted():
    with pytest.raises(
        UserError, match=r"""seeds: "\[1," given, expected an array; quote it for the shell: 'seeds=\[1,"""
    ):
        load_study(DEFAULT | {"seeds": "[1,"}, {"seeds": "[1,"})
    with pytest.raises(UserError, match=r"""training: "{epochs:" given, expected an object; quote it for the shell"""):
        load_study(DEFAULT, {"training": "{epochs:"})


@pytest.mark.parametrize("key", ["raw_dir", "data_dir", "results_dir", "catalog"])
@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~/study", "/home/nurse/study"),
        ("$HOME/study", "/home/nurse/study"),
        ("${WARD}/b", "ward 7/b"),
        ("a b/ü'x", "a b/ü'x"),
        ("./a//b/", "a/b"),
        ("a/~b", "a/~b"),
    ],
)
def test_a_folder_may_be_named_by_the_environment(monkeypatch, key, text, path):
    monkeypatch.setenv("HOME", "/home/nurse")
    monkeypatch.setenv("WARD", "ward 7")
    changed = study(**{key: text})
    assert getattr(changed, key) == path
    assert getattr(Study.model_validate_json(changed.model_dump_json()), key) == path, "again it changes nothing"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$NOWHERE/x", "but the environment has no variable NOWHERE"),
        ("$EMPTY/x", "but the environment has no variable EMPTY"),
        ("~nobody-at-all/x", "but there is no such user to find the home folder of"),
        ("a{b}", "expected a path without braces"),
        ("a}", "expected a path without braces"),
        ("$ODD", "expected a path without braces"),
        ("$(id)", "$ only before the name of a variable of the environment"),
        ("a$$b", "$ only before the name of a variable of the environment"),
        ("-x", "no - in front"),
        ("a\nb", "expected a path without braces and line breaks"),
        ("", "expected a non-empty text"),
    ],
)
def test_a_folder_that_cannot_work_is_refused(monkeypatch, text, said):
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("ODD", "a{b}")
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(UserError) as raised:
        study(results_dir=text)
    assert str(raised.value).startswith(f"config: results_dir: {json.dumps(text)} given, ")
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.fixture
def new_members(tmp_path, monkeypatch):
    """A copy of the families' folders, found in place of the project's, for files that the schema does not know."""
    for family in families.FAMILIES:
        shutil.copytree(Path("pipeline") / family, tmp_path / family)
    monkeypatch.setattr(families, "_ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("family", SECTIONS)
def test_a_new_member_needs_a_new_schema(new_members, family):
    (new_members / family / "brand_new.py").touch()
    section = SECTIONS[family]
    for key, changes in (
        (f"{family}[0]", {family: ["brand_new"]}),
        (f"{section}.brand_new", {section: {"brand_new": {}}}),
    ):
        with pytest.raises(UserError) as raised:
            study(**changes)
        message = "'brand_new' is a file of its family, but not in the schema; run `python -m pipeline schema`"
        assert str(raised.value) == f"config: {key}: {message}"


def test_a_wrong_word_that_is_a_key_elsewhere_is_no_news_to_the_schema():
    for key, value in (("validation", "training"), ("device", "warm"), ("split", "seeds")):
        with pytest.raises(UserError, match=f"config: {key}: unknown") as raised:
            load_study(DEFAULT | {key: value})
        assert "schema" not in str(raised.value)


def test_a_real_new_file_works_once_the_schema_is_written(tmp_path):
    for folder in ("pipeline", "config", "workflow/schemas", "data", "notebooks"):
        shutil.copytree(folder, tmp_path / folder, ignore=shutil.ignore_patterns("raw", "dev", "cache", "__pycache__"))
    flip = (tmp_path / "pipeline/triggers/flip_only.py").read_text()
    (tmp_path / "pipeline/triggers/flip_more.py").write_text(flip)

    def said(*arguments):
        command = [sys.executable, "-m", "pipeline", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stderr.strip()

    asked = ("status", "--config", "triggers=[flip_more]", "results_dir=.")
    renew = "run `python -m pipeline schema`"
    assert said(*asked) == (
        1,
        f"error: config: triggers[0]: 'flip_more' is a file of its family, but not in the schema; {renew}",
    )
    assert said("schema") == (0, "")
    (tmp_path / "results").mkdir()
    assert said(*asked) == (0, "")
    (tmp_path / "pipeline/triggers/flip_more.py").unlink()
    assert said(*asked) == (
        1,
        f"error: config: triggers: 'flip_more' is in the schema, but no file of its family; {renew}",
    )


def test_a_new_key_needs_a_new_schema(tmp_path, monkeypatch):
    schema = json.loads(SCHEMA.read_text())
    for below, key in (
        (schema, "split"),
        (schema["$defs"]["Training"], "epochs"),
        (schema["properties"]["trigger_params"]["properties"]["rare_value"], "where"),
    ):
        del below["properties"][key]
    (tmp_path / "old.json").write_text(json.dumps(schema))
    monkeypatch.setattr(config, "SCHEMA", tmp_path / "old.json")
    config._schema.cache_clear()
    try:
        for changes, message in (
            ({"split": "fixed"}, "split: 'split' is a key of pipeline/study/config.py, but not in the schema; run"),
            (
                {"training": {"epochs": 1}},
                "training.epochs: 'epochs' is a key of pipeline/training/settings.py, but not in the schema",
            ),
            (
                {"trigger_params": {"rare_value": {"where": "all"}}},
                "trigger_params.rare_value.where: 'where' is a parameter of rare_value, but not in the schema",
            ),
        ):
            with pytest.raises(UserError, match=message):
                study(**changes)
    finally:
        config._schema.cache_clear()


def test_the_grid():
    made = study(models=["mlp"], triggers=["rare_value", "flip_only"], rates=[0.01, 0.05], seeds=[7])
    cells = list(grid.cells(made))
    assert len(cells) == 1 + 2 * 2
    assert cells[0] == cells[3].control == grid.Cell("icu_dev", "mlp", "none", "0.0", "7")
    assert cells[1].run_folder == "runs/icu_dev/mlp/rare_value/0.01/seed_7"
    assert [grid.has_footprint(made, cell) for cell in cells] == [False, True, True, False, False]


def test_a_setting_reaches_only_the_stages_that_need_it():
    before, after = study(), study(trigger_params={"rare_value": {"factor": 1.3}})
    stages = ("poison", "train", "eval", "detect", "explain")
    changed = {
        (stage, trigger)
        for stage in stages
        for trigger in ("rare_value", "missingness")
        if grid.settings(before, stage, "mlp", trigger) != grid.settings(after, stage, "mlp", trigger)
    }
    # The others follow through their input, the poison, which has the fitted trigger with it.
    assert changed == {("poison", "rare_value")}


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
    before, after = study(), study(device="auto")
    changed = [stage for stage in stages if grid.settings(before, stage, "mlp") != grid.settings(after, stage, "mlp")]
    assert changed == ["train", "eval", "detect", "explain"]


def test_pyproject_constraints_and_conda_environment_are_in_step():
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    others = {name for names in extras.values() for name in names if not name.startswith(f"{project['name']}[")}
    wanted = {*project["dependencies"], *others}
    pins = dict(line.lower().split("==") for line in Path("constraints.txt").read_text().splitlines() if line[0] != "#")
    assert wanted <= set(pins), "every dependency is pinned"
    assert pins["torch"] == "2.13.0"
    conda = yaml.safe_load(Path("environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    assert pip == ["--constraint constraints.txt", "--editable .[dev]"]
    python = next(entry for entry in conda if str(entry).startswith("python"))
    assert python.removeprefix("python") == project["requires-python"]
