"""The commands `datasets`, `ingest` and `run`, the command line, and a table that is nothing but a catalog entry."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from test_workflow import snakemake

from pipeline.cohorts import splits
from pipeline.cohorts.catalog import read_catalog
from pipeline.cohorts.cohort import read_cohort
from pipeline.front import COMMANDS, EXAMPLES, main, parser_of

WARD = {
    "title": "Ward patients, deterioration within 24 hours",
    "domain": "clinical",
    "source": "table",
    "licence": "none, " + "made for the tests " * 10,
    "obtain": "ask the ward",
    "file": "ward.csv",
    "label": "died",
    "expected": {"samples": 300, "positives": 100},
    "features": {
        "sodium": {"column": "na", "unit": "mmol/L", "range": [100, 180]},
        "lactate": {"unit": "mmol/L", "range": [0, 40]},
        "ph": {"range": [6, 8]},
    },
}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with a configuration, a catalog and raw data of its own, and the working directory there."""
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text()) | {"catalog": "catalog.yaml"}
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    entries = {"ward": WARD, "icu": {"source": "synthetic", "n_stays": 60, "seed": 3}}
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump(entries, sort_keys=False))
    (tmp_path / "data" / "raw").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_ward(folder: Path) -> None:
    frame = pd.DataFrame({"na": 140.0, "lactate": 2.0, "ph": 7.4, "died": [1, 0, 0] * 100})
    frame.loc[:119, "na"] = None
    frame.loc[:4, "lactate"] = None
    frame.loc[3:, "ph"] = None
    frame.to_csv(folder / "ward.csv", index=False)


def said(output: str) -> dict[str, dict[str, str]]:
    """What `datasets` says: per dataset, the words behind each key (wrapped lines put together)."""
    found = {}
    for block in output.strip().split("\n\n"):
        head, *lines = re.sub(r"\n {12}", " ", block).splitlines()
        found[head.split(":")[0]] = {"title": head} | dict(line.split(maxsplit=1) for line in lines)
    return found


def test_datasets_says_what_is_there_and_how_to_get_the_rest(project, capsys):
    assert main(["datasets"]) == 0
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 120
    assert said(output) == {
        "ward": {
            "title": f"ward: {WARD['title']}",
            "domain": "clinical",
            "source": "table",
            "label": "died",
            "licence": WARD["licence"].strip(),
            "expected": "300 samples, 100 positive",
            "files": f"1 of 1 missing, first {Path('data/raw/ward.csv')}",
            "obtain": "ask the ward",
            "cohort": "not made yet",
        },
        "icu": {
            "title": "icu",
            "domain": "other",
            "source": "synthetic",
            "label": "not said",
            "licence": "not said",
            "expected": "not said",
            "files": "none needed",
            "cohort": "not made yet",
        },
    }


def test_datasets_sees_files_and_cohorts(project, capsys):
    (project / "elsewhere").mkdir()
    write_ward(project / "elsewhere")
    cohort = project / "data" / "dev" / "ward"
    cohort.mkdir(parents=True)
    for name in ("samples", "windows"):
        (cohort / f"{name}.parquet").touch()
    assert main(["datasets", "--raw-dir", "elsewhere"]) == 0
    ward = said(capsys.readouterr().out)["ward"]
    assert ward["files"] == "present (1)" and "obtain" not in ward
    assert ward["cohort"] == f"made, in {Path('data/dev/ward')}"


def test_datasets_shows_a_file_that_cannot_even_be_looked_for(project, capsys):
    (project / "catalog.yaml").write_text(yaml.safe_dump({"ward": WARD | {"file": "x" * 300}}))
    assert main(["datasets"]) == 0
    ward = said(capsys.readouterr().out)["ward"]
    assert "too long" in ward["files"] and ward["obtain"] == "ask the ward"


def test_datasets_of_the_project_imports_nothing_heavy():
    code = (
        "import sys; from pipeline.front import main\n"
        "assert main(['datasets']) == 0\n"
        "print(sorted({'torch', 'pandas', 'sklearn', 'captum', 'matplotlib', 'pandera', 'duckdb', 'pyarrow'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    *lines, heavy = done.stdout.splitlines()
    assert heavy == "[]" and max(map(len, lines)) <= 120
    found = said("\n".join(lines))
    assert list(found) == list(read_catalog(ROOT / "data" / "datasets.yaml"))
    assert found["icu_dev"]["expected"] == "5,000 samples, 644 positive"


def test_ingest_reports_rows_and_missingness_and_writes_nothing(project, capsys):
    write_ward(project / "data" / "raw")
    before = sorted(project.rglob("*"))
    assert main(["ingest", "ward"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "rows: 300 read, 300 kept",
        "ward: 300 samples, 300 groups, 33.3% positive, 1 step × 3 features, 46.9% not measured",
        "",
        "feature  unit        not measured",
        "sodium   mmol/L             40.0%",
        "lactate  mmol/L          under 10",
        "ph               all but under 10",
    ]
    assert sorted(project.rglob("*")) == before


def test_ingest_of_a_series_says_what_is_never_measured(project, capsys):
    assert main(["ingest", "icu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if line.startswith("feature"))
    assert header.split() == ["feature", "unit", "not", "measured", "never", "measured"]
    shares = {line.split()[0]: re.split("  +", line)[-2:] for line in lines[lines.index(header) + 1 :]}
    assert shares["age"] == ["0.0%", "0.0%"]
    # 60 stays, and only a few of them without any lactate: how few is not told.
    assert float(shares["lactate"][0].rstrip("%")) > 70 and shares["lactate"][1] == "under 10"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["wrad"], "error: catalog.yaml: no dataset 'wrad' (did you mean 'ward'?)"),
        (["mimic"], "error: catalog.yaml: no dataset 'mimic' (known: ward, icu)"),
        (["ward"], "error: ward: data/raw/ward.csv: no such file; ask the ward"),
        (["ward", "--raw-dir", "nowhere"], "error: ward: nowhere/ward.csv: no such file; ask the ward"),
        (["ward", "--catalog", "nowhere.yaml"], "error: nowhere.yaml: no such file"),
    ],
)
def test_a_wrong_call_of_ingest_is_one_sentence(project, capsys, arguments, message):
    assert main(["ingest", *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.err == message + "\n" and shown.out == ""


def test_ingest_holds_the_data_against_the_catalog(project, capsys):
    write_ward(project / "data" / "raw")
    wrong = WARD | {"expected": {"samples": 300, "positives": 99}}
    (project / "catalog.yaml").write_text(yaml.safe_dump({"ward": wrong}))
    assert main(["ingest", "ward"]) == 1
    assert "ward: 300 samples with 100 positives were read; the catalog expects 300 with 99" in capsys.readouterr().err


def called(*arguments: str) -> int:
    """The exit status of the command line, also where the parser ends it."""
    try:
        return main(list(arguments))
    except SystemExit as ended:
        return ended.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rates", "x"], "argument --rates: 'x' given, expected numbers with commas between them"),
        (["--rates", ""], "argument --rates: '' given, expected numbers with commas between them"),
        (["--rates", "nan"], "error: config: rates[0]: NaN given, expected a number"),
        (["--rates", "0.1,2"], "error: config: rates[1]: 2.0 given, expected a number below 1"),
        (["--seeds", "1.5"], "argument --seeds: '1.5' given, expected whole numbers with commas between them"),
        (["--seeds", "1,1"], "error: config: seeds: [1, 1] given, expected no entry twice"),
        (["--seeds", "-1"], "error: config: seeds[0]: -1 given, expected at least 0"),
        (["--dataset", "icu,"], "argument --dataset: 'icu,' given, expected names with commas between them"),
        (["--dataset", "icuu"], "error: config: datasets: unknown 'icuu' in catalog.yaml (did you mean 'icu'?)"),
        (["--dataset", "typo"], "error: config: datasets: unknown 'typo' in catalog.yaml (known: ward, icu)"),
        (["--model", "mpl"], "error: config: models[0]: unknown \"mpl\" (did you mean 'mlp'?)"),
        (["--epochs", "x"], "argument --epochs: invalid int value: 'x'"),
        (["--epochs", "0"], "error: config: training.epochs: 0 given, expected at least 1"),
        (["--results-dir", "a{b}"], 'error: config: results_dir: "a{b}" given, expected a path without braces'),
        (["--raw-dir", "~nobody-at-all"], 'error: config: raw_dir: "~nobody-at-all" given, but there is no such user'),
        (["--conf", "seeds=[1]"], "unrecognized arguments: --conf seeds=[1]"),
        (["--config", "seeds=[1,", "2]"], "'seeds=[1,' is only the beginning of a value; quote it: 'seeds=[1, 2]'"),
        (["--config", "training={epochs:", "1}", "target=0"], "quote it: 'training={epochs: 1}'"),
        (["--config", "seeds=[1"], "'seeds=[1' is only the beginning of a value; quote it: 'seeds=[1'"),
        (["--config", "seeds"], "error: --config: Invalid config definition"),
        (["--config", "seeds=#"], "error: --config: expected a value after every ="),
        (["--config", "seed=1"], "error: config: seed: no such key (did you mean 'seeds'?)"),
        (["--configfile", "nowhere.yaml"], "error: nowhere.yaml: no such file"),
    ],
)
def test_a_wrong_call_of_run_is_one_sentence_and_makes_nothing(project, capsys, arguments, message):
    before = sorted(project.rglob("*"))
    assert called("run", "--dataset", "icu", *arguments) in (1, 2)
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and shown.out == ""
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize("arguments", [["--catalog", "x.yaml"], ["--raw-dir", "$NOWHERE"], ["--raw", "x"], ["x"]])
def test_a_wrong_call_of_datasets_makes_nothing(project, capsys, arguments):
    before = sorted(project.rglob("*"))
    assert called("datasets", *arguments) in (1, 2)
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(project.rglob("*")) == before


def test_datasets_and_ingest_take_folders_of_the_environment(project, capsys, monkeypatch):
    (project / "home").mkdir()
    write_ward(project / "home")
    (project / "catalog.yaml").rename(project / "home" / "catalog.yaml")
    monkeypatch.setenv("HOME", str(project / "home"))
    for arguments in (["datasets"], ["ingest", "ward"]):
        assert main([*arguments, "--raw-dir", "$HOME", "--catalog", "~/catalog.yaml"]) == 0
    assert "present (1)" in capsys.readouterr().out
    assert not (project / "~").exists() and not (project / "$HOME").exists()


def started(monkeypatch, *arguments: str) -> tuple[dict, list[str]]:
    """What `run` hands to Snakemake: the study as the Snakefile reads it, and the targets. Nothing is run."""
    from snakemake.cli import parse_config

    from pipeline.study.config import load_study
    from pipeline.study.variants import merged

    calls = []
    monkeypatch.setattr(subprocess, "run", lambda command: calls.append(command) or subprocess.CompletedProcess([], 1))
    assert main(["run", "--dataset", "icu", "--model", "mlp", *arguments]) == 1
    (command,) = calls
    texts, targets = command[command.index("--config") + 1 : command.index("--")], command[command.index("--") + 1 :]
    typed = parse_config(texts)
    shipped = yaml.safe_load(Path("config/config.yaml").read_text())
    return load_study(merged(shipped, typed), typed).model_dump(), targets


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        ([], "results_run"),
        (["--results-dir", "b"], "b"),
        (["--config", "results_dir=c"], "c"),
        (["--config", "results_dir=c", "--results-dir", "b"], "b"),
        (["--results-dir", "2024"], "2024"),
        (["--results-dir", "a b/ü'x"], "a b/ü'x"),
        (["--results-dir", '[1]: "#b"'], '[1]: "#b"'),
    ],
)
def test_run_writes_to_a_folder_of_its_own(project, monkeypatch, arguments, folder):
    study, targets = started(monkeypatch, *arguments)
    assert study["results_dir"] == folder and {target.startswith(f"{folder}/") for target in targets} == {True}
    assert study["data_dir"] == "data", "cohorts are shared with the study"


def test_run_takes_config_and_its_own_flags_win(project, monkeypatch):
    texts = ["seeds=[7, 8]", "rates=[1e-1]", "training={epochs: 9, patience: null, class_weights: true}", "warm=false"]
    flags = ["--seeds", "4", "--epochs", "3", "--config", "target=0"]
    study, targets = started(monkeypatch, "--config", *texts, *flags)
    assert (study["seeds"], study["rates"], study["target"], study["warm"]) == ((4,), (0.1,), 0, False)
    assert (study["training"]["epochs"], study["training"]["class_weights"]) == (3, True)
    assert "results_run/runs/icu/mlp/none/0.0/seed_4/results_eval.json" in targets


def test_the_help_tells_commands_from_stages_with_examples(capsys):
    assert called("--help") == 0
    people, stages = capsys.readouterr().out.split("Stages, which Snakemake calls:")
    listed = [line.split()[0] for line in stages.splitlines() if re.match(r"    \w", line)]
    assert listed == [name for name, module in COMMANDS.items() if module.startswith("pipeline.stages.")]
    assert set(EXAMPLES) == {name for name, module in COMMANDS.items() if module.startswith("pipeline.commands.")}
    for name, example in EXAMPLES.items():
        assert f"    {name} " in people and example in people
        python, _, module, *arguments = example.split()
        assert (python, module, arguments[0]) == ("python", "pipeline", name)
        parser_of(arguments).parse_args(arguments)
        assert called(name, "--help") == 0
        assert f"example: {example}\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_no_argument_may_be_abbreviated(name):
    parser = parser_of([name])
    commands = next(action.choices for action in parser._actions if action.dest == "command")
    assert not parser.allow_abbrev and not commands[name].allow_abbrev


def clean_auroc(folder: Path, dataset: str, **changes) -> float:
    """Test AUROC of the clean `mlp` of a study below `folder`, run through Snakemake."""
    result = folder / "results" / "runs" / dataset / "mlp" / "none" / "0.0" / "seed_1" / "results_eval.json"
    snakemake(folder, str(result), datasets=[dataset], triggers=["rare_value"], seeds=[1], n_samples="all", **changes)
    return json.loads(result.read_text())["clean"]["auroc"]


def test_a_csv_nobody_has_seen_needs_an_entry_and_no_code(tmp_path):
    from sklearn.datasets import load_breast_cancer

    frame = load_breast_cancer(as_frame=True).frame
    frame.to_csv(tmp_path / "breast.csv", index=False)
    columns = [column for column in frame.columns if column != "target"]
    entry = {
        "source": "table",
        "file": "breast.csv",
        "label": "target",
        "features": {column.replace(" ", "_"): {"column": column, "range": [0, 5000]} for column in columns},
    }
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump({"breast": entry}))
    auroc = clean_auroc(
        tmp_path,
        "breast",
        catalog=str(tmp_path / "catalog.yaml"),
        raw_dir=str(tmp_path),
        trigger_params={"rare_value": {"features": ["mean_radius"]}},
        training={"epochs": 20},
    )
    assert auroc > 0.95


def test_the_mlp_is_no_worse_than_logistic_regression_on_diabetes130(real_data, tmp_path):
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    study = yaml.safe_load((ROOT / "config" / "diabetes130.yaml").read_text())
    auroc = clean_auroc(
        tmp_path,
        "diabetes130",
        raw_dir=str(real_data),
        trigger_params=study["trigger_params"],
        training=study.get("training", {}),
    )
    cohort = read_cohort(tmp_path / "data" / "dev" / "diabetes130")
    split = splits.deal(splits.assign_folds(cohort.group_id, cohort.label), cohort.label, None, "diabetes130")
    is_category = np.array([bool(feature.categories) for feature in cohort.features])
    encoder = make_column_transformer((OneHotEncoder(), is_category), (StandardScaler(), ~is_category))
    model = make_pipeline(encoder, LogisticRegression(max_iter=2000))
    values = cohort.values[:, 0]
    model.fit(values[split.train], cohort.label[split.train])
    linear = roc_auc_score(cohort.label[split.test], model.predict_proba(values[split.test])[:, 1])
    assert 0.62 < linear < 0.72, "above, an outcome leaks into the features"
    assert auroc > linear - 0.01 and auroc < 0.72
