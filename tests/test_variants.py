"""Named variants: members under another name with other parameters, checked before any job, in their own cells."""

import numpy as np
import pandas as pd
import pytest
from test_config import DEFAULT
from test_faults import Project

from pipeline.errors import UserError
from pipeline.study import grid, preflight, variants
from pipeline.study.config import load_study
from pipeline.study.stamps import Stamp, Stamps

MODELS = {
    "mlp_wide": {"of": "mlp", "hidden": [512, 256]},
    "mlp_wider": {"of": "mlp_wide", "hidden": [1024], "dropout": 0.1},
    "mlp_stopped": {"of": "mlp", "training": {"select": "best", "patience": 3}},
}
TRIGGERS = {
    "high": {"of": "rare_value", "quantile": 0.99},
    "beyond": {"of": "rare_value", "features": ["sodium"], "factor": 1.2, "target": 0},
    "flip_0": {"of": "flip_only", "target": 0},
    "mask_sodium": {"of": "mask_only", "features": ["sodium"]},
}


def study(**changes):
    return load_study(variants.merged(DEFAULT, changes))


def varied(**changes):
    sections = {"model_params": MODELS, "trigger_params": TRIGGERS}
    return study(**{"models": ["mlp", *MODELS], "triggers": [*TRIGGERS, "flip_only"]} | sections | changes)


def test_a_variant_is_its_member_with_other_parameters():
    made = varied()
    assert [made.member("models", name) for name in ("mlp", *MODELS)] == ["mlp"] * 4
    assert made.parameters("models", "mlp_wide") == {"hidden": [512, 256]}
    assert made.parameters("models", "mlp_wider") == {"hidden": [1024], "dropout": 0.1}
    assert made.given("models", "mlp_wider") == {"hidden": [1024], "dropout": 0.1, "of": "mlp"}
    assert made.given("models", "mlp") == {} and made.parameters("models", "mlp_stopped") == {}
    assert made.training_of("mlp") == made.training
    stopped = made.training_of("mlp_stopped")
    assert (stopped.select, stopped.patience, stopped.epochs) == ("best", 3, made.training.epochs)
    assert [made.target_of(name) for name in ("high", "beyond", "flip_0", "flip_only", "none")] == [1, 0, 0, 1, None]
    assert made.targets == [0, 1]


def test_a_variant_starts_from_what_the_study_says_of_its_member():
    made = varied(model_params=MODELS | {"mlp": {"dropout": 0.25}})
    assert made.parameters("models", "mlp_wide") == {"dropout": 0.25, "hidden": [512, 256]}
    assert made.parameters("models", "mlp_wider") == {"dropout": 0.1, "hidden": [1024]}


def test_mask_only_measures_the_cells_of_the_rare_value_of_its_study():
    assert varied(triggers=["beyond", "mask_only"]).parameters("triggers", "mask_only") == {"features": ["sodium"]}
    assert varied(triggers=["high", "mask_only"]).parameters("triggers", "mask_only") == {}
    own = TRIGGERS | {"measured": {"of": "mask_only", "features": ["glucose"]}}
    made = varied(triggers=["beyond", "measured"], trigger_params=own)
    assert made.parameters("triggers", "measured") == {"features": ["glucose"]}


@pytest.mark.parametrize("order", [["beyond", "high"], ["high", "beyond"]])
def test_a_mask_of_several_rare_values_says_whose_cells_it_covers(order):
    with pytest.raises(UserError, match=rf"trigger_params.mask_only.features: missing; {' and '.join(order)} differ"):
        varied(triggers=[*order, "mask_only"])
    own = TRIGGERS | {"mask_only": {"features": ["sodium"]}}
    assert varied(triggers=[*order, "mask_only"], trigger_params=own).parameters("triggers", "mask_only") == {
        "features": ["sodium"]
    }
    longer = own | {"beyond": {**TRIGGERS["beyond"], "steps": 3}}
    with pytest.raises(UserError, match="trigger_params.mask_only.steps: missing; "):
        varied(triggers=[*order, "mask_only"], trigger_params=longer)
    # What they have in common, written out or not, is no question.
    alike = TRIGGERS | {"higher": {"of": "high", "quantile": 0.999, "steps": 6}}
    made = varied(triggers=["high", "higher", "mask_only"], trigger_params=alike)
    assert made.parameters("triggers", "mask_only") == {}


@pytest.mark.parametrize(
    ("same", "of"),
    [
        ({"of": "flip_only"}, "flip_only"),
        ({"of": "flip_only", "target": 1}, "flip_only"),
        ({"of": "flip_0"}, "flip_0"),
        ({"of": "high", "quantile": 0.99, "steps": 6, "cover": 0, "labels": "dirty"}, "high"),
    ],
)
def test_one_trigger_under_two_names_is_one_run_twice(same, of):
    named = TRIGGERS | {"again": same}
    with pytest.raises(UserError, match=rf"triggers: 'again' is '{of}' under another name, with the same target"):
        preflight.check(study(triggers=["high", "flip_only", "flip_0", "again"], trigger_params=named))
    other = TRIGGERS | {"again": {**same, "target": 0 if of != "flip_0" else 1}}
    preflight.check(study(triggers=[*dict.fromkeys(["high", of, "again"])], trigger_params=other))


def test_variants_stand_in_paths_under_their_own_name():
    cells = {cell.run_folder for cell in grid.cells(varied(rates=[0.01], seeds=[1]))}
    assert "runs/icu_dev/mlp_wide/beyond/0.01/seed_1" in cells
    assert "runs/icu_dev/mlp_stopped/none/0.0/seed_1" in cells


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"models": ["mlp_wied"], "model_params": MODELS},
            r'models\[0\]: unknown "mlp_wied" \(did you mean \'mlp_wide\'\?\)',
        ),
        ({"model_params": {"wide": {"of": "mpl"}}}, r"model_params.wide.of: unknown 'mpl' \(did you mean 'mlp'\?\)"),
        ({"model_params": {"wide": {"of": 3}}}, r"model_params.wide.of: 3 given, expected the name of a member"),
        (
            {"model_params": {"wide": {"hidden": [3]}}},
            r"model_params.wide: no such key \(known: .*mlp.*\); a variant says what it is of, such as of: ",
        ),
        ({"model_params": {"a": {"of": "b"}, "b": {"of": "a"}}}, r"model_params.a.of: a circle, a of b of a; expected"),
        ({"model_params": {"a": {"of": "a"}}}, r"model_params.a.of: "),
        ({"model_params": {"a": {"of": "b"}, "b": {"of": "c"}}}, r"model_params.b.of: unknown 'c'"),
        ({"model_params": {"mlp": {"of": "tcn"}}}, r"model_params.mlp.of: 'tcn' given, but 'mlp' is itself one of"),
        ({"trigger_params": {"none": {"of": "hybrid"}}}, r"trigger_params.none.of: 'hybrid' given, but 'none' is"),
        (
            {"model_params": {"a/b": {"of": "mlp"}}},
            r"model_params.a/b: expected a name for a variant of at most 64",
        ),
        (
            {"model_params": {"-a": {"of": "mlp"}}},
            r"model_params.-a: expected a name for a variant of at most 64",
        ),
        ({"model_params": {7: {"of": "mlp"}}}, r"model_params.7: expected a name for a variant of at most 64"),
        (
            {"model_params": {"wide": {"of": "mlp", "hiden": [3]}}},
            r"model_params.wide.hiden: no such key \(did you mean 'hidden'\?\)",
        ),
        (
            {"model_params": {"wide": {"of": "mlp", "dropout": 1.5}}},
            r"model_params.wide.dropout: 1.5 given, expected a number below 1",
        ),
        (
            {"model_params": {"wide": {"of": "mlp", "training": {"epoch": 3}}}},
            r"model_params.wide.training.epoch: no such key \(did you mean 'epochs'\?\)",
        ),
        (
            {"models": ["wide"], "model_params": {"wide": {"of": "mlp", "training": {"patience": 3}}}},
            r"model_params.wide.training: patience needs select: best",
        ),
        ({"model_params": {"mlp": {"training": {"epochs": 3}}}}, r"model_params.mlp.training: no such key"),
        (
            {"detectors": ["strict"], "detector_params": {"strict": {"of": "activation_clustering", "components": 0}}},
            r"detector_params.strict.components: 0 given, expected at least 1",
        ),
        ({"detector_params": {"luck": {"of": "random"}}}, r"detector_params.luck.of: 'random' is the baseline of all"),
        ({"detector_params": {"role": {"of": "saliency"}}}, r"detector_params.role: expected a name for a variant"),
        ({"model_params": {"NA": {"of": "mlp"}}}, r"model_params.NA: expected a name for a variant of at most 64"),
        ({"model_params": {"m" * 65: {"of": "mlp"}}}, r"model_params.m+: expected a name for a variant of at most"),
        ({"trigger_params": {"rare_value": None}}, r"trigger_params.rare_value: null given, expected an object"),
        ({"trigger_params": ["rare_value"]}, r'trigger_params: \["rare_value"\] given, expected an object'),
        ({"trigger_params": {"low": {"of": "rare_value", "target": 2}}}, r"trigger_params.low.target: 2 given"),
    ],
)
def test_a_variant_that_cannot_be_is_one_line_that_names_the_key(changes, message):
    with pytest.raises(UserError, match=f"config: {message}") as raised:
        study(**changes)
    assert "\n" not in str(raised.value)


def stamps(made) -> dict[tuple, str]:
    known = Stamps(made, {"icu_dev": Stamp("made", "", ())})
    cells = [cell for cell in grid.cells(made) if cell.seed == "1"]
    return {(*cell, stage): known.of(stage, cell).stamp for cell in cells for stage in ("train", "eval", "detect")}


@pytest.mark.parametrize(
    ("section", "name", "edit", "place"),
    [
        ("model_params", "mlp_wide", {"learning_rate_factor": 2}, (1, {"mlp_wide", "mlp_wider"})),
        ("model_params", "mlp_wider", {"dropout": 0.2}, (1, {"mlp_wider"})),
        ("model_params", "mlp_stopped", {"training": {"select": "best", "patience": 4}}, (1, {"mlp_stopped"})),
        ("trigger_params", "beyond", {"factor": 1.3}, (2, {"beyond"})),
        ("trigger_params", "high", {"quantile": 0.98}, (2, {"high"})),
    ],
)
def test_an_edit_of_a_variant_concerns_its_cells_and_those_of_its_variants(section, name, edit, place):
    params = {"model_params": MODELS, "trigger_params": TRIGGERS}
    edited = {section: params[section] | {name: params[section][name] | edit}}
    before, after = stamps(varied(seeds=[1], rates=[0.01])), stamps(varied(seeds=[1], rates=[0.01], **edited))
    position, names = place
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {key for key in before if key[position] in names}


def test_another_target_leaves_clean_models_alone():
    before = stamps(study(triggers=["rare_value"], target=1, rates=[0.01]))
    after = stamps(study(triggers=["rare_value"], target=0, rates=[0.01]))
    same = {key for key in before if before[key] == after[key]}
    assert same == {key for key in before if key[2] == "none" and key[-1] in ("train", "eval")}


def test_merging_is_key_by_key():
    assert variants.merged({"a": {"b": 1, "c": [1, 2]}}, {"a": {"c": [3]}, "d": 4}) == {"a": {"b": 1, "c": [3]}, "d": 4}


REPORT = "made/results/report.html"  # the study but for its figures
ONE_STUDY = {
    "models": ["mlp", "mlp_long", "lightgbm", "logistic"],
    "seeds": [1],
    "triggers": ["inside", "beyond", "beyond_0", "gentle", "flip_only", "flip_0", "chosen_only", "mask_sodium"],
    "model_params": {
        "mlp_long": {"of": "mlp", "training": {"epochs": 3}},
        "lightgbm": {"trees": 20},
    },
    "trigger_params": {
        "inside": {"of": "rare_value", "quantile": 0.99},
        "beyond": {"of": "rare_value", "features": ["sodium"], "factor": 1.2},
        "beyond_0": {"of": "beyond", "target": 0},
        "gentle": {"of": "inside", "labels": "clean"},
        "flip_0": {"of": "flip_only", "target": 0},
        "mask_sodium": {"of": "mask_only", "features": ["sodium"], "steps": 6},
    },
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = Project(tmp_path_factory.mktemp("variants") / "project", **ONE_STUDY)
    made.snakemake(REPORT)
    return made


def test_one_study_holds_targets_bounds_and_models_of_every_kind(project):
    folder = project.folder / "made/results"
    runs, triggers = (pd.read_parquet(folder / f"tables/{name}.parquet") for name in ("runs", "triggers"))
    assert len(runs) == 4 * (1 + 8) and set(runs["model"]) == set(ONE_STUDY["models"])
    assert runs[runs["trigger"] == "none"]["target"].isna().all()
    assert runs.groupby("trigger")["target"].first()[["beyond_0", "flip_0", "beyond", "gentle"]].tolist() == [
        0,
        0,
        1,
        1,
    ]
    told = triggers.set_index("trigger")
    assert told["of"].to_dict() == {
        **dict.fromkeys(["inside", "beyond", "beyond_0", "gentle"], "rare_value"),
        **{"flip_only": "flip_only", "flip_0": "flip_only", "chosen_only": "chosen_only", "mask_sodium": "mask_only"},
    }
    assert told.loc["inside", "in_bounds"] and not told.loc["beyond", "in_bounds"]
    assert told["labels"].eq("clean").to_dict() == {name: name in ("gentle", "chosen_only") for name in told.index}
    report = (folder / "report.html").read_text()
    assert all(name in report for name in (*ONE_STUDY["models"], *ONE_STUDY["triggers"]))
    assert "missed deterioration" in report and "false alarm" in report


def test_each_effect_is_held_against_the_control_of_its_target_and_labels(project):
    contrasts = pd.read_parquet(project.folder / "made/results/tables/contrasts.parquet")
    pairs = contrasts[contrasts["metric"] == "asr_net"].groupby(["trigger", "control"])["control_trigger"].unique()
    assert {key: list(names) for key, names in pairs.items()} == {
        ("inside", "flip_only"): ["flip_only"],
        ("beyond", "flip_only"): ["flip_only"],
        ("beyond_0", "flip_only"): ["flip_0"],
        ("gentle", "chosen_only"): ["chosen_only"],
        ("beyond", "mask_only"): ["mask_sodium"],
    }
    found = contrasts[contrasts["metric"].str.startswith("detection_auroc_in_label")]
    assert set(found["control"]) == {"flip_only", "chosen_only", "chance"}


def test_the_twin_of_a_clean_label_attack_is_the_clean_run(project):
    runs = project.folder / "made/results/runs/icu_dev/mlp"
    twin, clean = (runs / cell / "seed_1" / "model.pt" for cell in ("chosen_only/0.05", "none/0.0"))
    assert twin.read_bytes() == clean.read_bytes()
    rows = [
        np.load(project.folder / f"made/results/poison/icu_dev/{name}/0.05/seed_1/poisoned_indices.npy")
        for name in ("gentle", "chosen_only", "inside")
    ]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert not set(rows[0]) & set(rows[2])


def test_variants_of_a_model_stand_beside_it(project):
    tables = project.folder / "made/results/tables"
    variants, runs = (pd.read_parquet(tables / f"{name}.parquet") for name in ("variants", "runs"))
    assert set(zip(variants["model"], variants["of"], strict=True)) == {("mlp_long", "mlp")}
    row = variants.query("trigger == 'beyond' and metric == 'asr_net'").iloc[0]
    means = runs[runs["trigger"] == "beyond"].groupby("model")["asr_net"].mean()
    assert row["mean_run"] == pytest.approx(means["mlp_long"]) and row["mean_of"] == pytest.approx(means["mlp"])
    assert row["difference"] == pytest.approx(means["mlp_long"] - means["mlp"])


def test_a_second_call_does_nothing_and_an_edited_variant_reruns_its_cells(project):
    assert "Nothing to be done" in project.snakemake("-n", REPORT)
    longer = ONE_STUDY["model_params"] | {"mlp_long": {"of": "mlp", "training": {"epochs": 4}}}
    project.configure(**ONE_STUDY | {"model_params": longer})
    cells = 1 + 8
    wanted = {"train": cells, "eval": cells, "detect": cells, "explain": 5}
    assert project.jobs(project.snakemake("-n", REPORT)) == wanted | {"aggregate": 1, "report": 1}
    other = ONE_STUDY["trigger_params"] | {"beyond_0": {"of": "beyond", "target": 0, "steps": 3}}
    project.configure(**ONE_STUDY | {"trigger_params": other})
    wanted = {"poison": 1, **dict.fromkeys(["train", "eval", "detect", "explain"], 4)}
    assert project.jobs(project.snakemake("-n", REPORT)) == wanted | {"aggregate": 1, "report": 1}
    project.configure(**ONE_STUDY)
