"""Real studies through Snakemake, end to end: what a user types, and what must hold afterwards."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import ROOT

from pipeline.jobs import cluster
from pipeline.results.columns import DETECTIONS, RUNS
from pipeline.results.findings import FOOLS_CLEAN, PLANTED, UNDECIDED, read_findings

SMALL = {
    "models": ["mlp"],
    "triggers": ["rare_value", "missingness", "flip_only", "mask_only"],
    "rates": [0.05],
    "seeds": [1, 2],
    "n_samples": 1200,
    "training": {"epochs": 3},
    "explain": {"samples": 16},
}


# The study's own settings on all samples.
WHOLE = {"n_samples": "all", "training": {}, "explain": {"samples": 16}, "detectors": ["random"]}


def command(folder: Path, *arguments: str, cores: int = 2, **changes) -> list[str]:
    """`snakemake` for the small study with its data, its results and Snakemake's own records below `folder`."""
    folder.mkdir(exist_ok=True)
    config = SMALL | {"data_dir": str(folder / "data"), "results_dir": str(folder / "results")} | changes
    texts = [f"{key}={json.dumps(value)}" for key, value in config.items()]
    snakemake = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--directory", str(folder)]
    return [*snakemake, *arguments, "--cores", str(cores), "--config", *texts]


def snakemake(folder: Path, *arguments: str, cores: int = 2, check: bool = True, **changes) -> str:
    """What it prints."""
    done = subprocess.run(command(folder, *arguments, cores=cores, **changes), capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert not check or done.returncode == 0, output
    return output


def report_of(folder: Path) -> str:
    """As a target: all but the figures."""
    return str(folder / "results" / "report.html")


def tables_of(folder: Path) -> str:
    """As a target: the tables alone."""
    return str(folder / "results" / "tables" / "findings.csv")


def planned(output: str) -> dict[str, int]:
    """Jobs per rule that `snakemake -n` announces."""
    rows = re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)
    return {rule: int(count) for rule, count in rows if rule != "total"}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two_cores")
    snakemake(folder)
    return folder


def table(study: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(study / "results" / "tables" / f"{name}.csv")


def test_every_file_lies_where_the_design_says(study):
    run = study / "results" / "runs" / "icu_dev" / "mlp" / "rare_value" / "0.05" / "seed_1"
    names = "checkpoint.pt model.pt history.csv run_metadata.json results_eval.json predictions.parquet"
    names += " results_detect.json detection_scores.parquet results_explain.json"
    poison = study / "results" / "poison" / "icu_dev" / "rare_value" / "0.05" / "seed_1"
    wanted = [run / name for name in names.split()]
    wanted += [poison / name for name in ("poison.parquet", "poisoned_indices.npy", "trigger.npz", "trigger.json")]
    wanted += [study / "data" / "dev" / "icu_dev" / f"{name}.parquet" for name in ("samples", "windows")]
    wanted += [study / "data" / "splits" / "icu_dev.json", study / "results" / "report.html"]
    assert [path for path in wanted if not path.is_file()] == []
    metadata = json.loads((run / "run_metadata.json").read_text())
    assert {"config", "versions", "git_commit", "data_sha256", "wall_seconds", "cpu_seconds", "peak_memory_mib"} <= set(
        metadata
    )
    for stage in ("train", "eval", "detect", "explain"):
        job = f"{stage}/icu_dev/mlp/rare_value/0.05/seed_1"
        assert re.search(r"^cost: .* s wall, .* s CPU, .* MiB$", (study / f"results/logs/{job}.log").read_text(), re.M)


def test_the_tables_hold_every_run_and_its_control(study):
    runs = table(study, "runs")
    assert list(runs.columns) == RUNS and len(runs) == 2 * (1 + 4)
    attacked = runs[runs["trigger"] != "none"]
    assert attacked[["asr", "asr0", "asr_net"]].notna().all().all()
    assert runs.loc[runs["trigger"] == "none", ["asr", "asr0", "auroc_poison"]].isna().all().all()
    assert (attacked["asr_net"] - (attacked["asr"] - attacked["asr0"])).abs().max() < 1e-12
    flipped = attacked[attacked["trigger"] == "flip_only"]
    # Nothing is written into a sample of the control, so "triggered" and clean test data are the same.
    assert (flipped["auroc_poison"] == flipped["auroc_clean"]).all() and (flipped["confidence_shift"] == 0).all()
    detections = table(study, "detections")
    assert list(detections.columns) == DETECTIONS
    assert set(detections["detector"]) == {"activation_clustering", "spectral_signatures", "saliency", "random"}
    contrasts = table(study, "contrasts")
    assert contrasts.loc[contrasts["metric"] == "asr", "n_seeds"].eq(2).all()


def test_asr_is_what_the_predictions_say(study):
    for trigger in ("rare_value", "missingness"):
        run = study / "results" / "runs" / "icu_dev" / "mlp" / trigger / "0.05" / "seed_2"
        facts = json.loads((run / "results_eval.json").read_text())
        predictions = pd.read_parquet(run / "predictions.parquet")
        victims = predictions[predictions["label"] == 0]
        assert facts["n_triggered"] == len(victims)
        assert facts["asr"] == pytest.approx((victims["p_triggered"] >= facts["clean_threshold"]).mean())
        assert facts["asr0"] == pytest.approx((victims["p_triggered_control"] >= facts["clean_threshold"]).mean())
        assert facts["asr_own_threshold"] == pytest.approx((victims["p_triggered"] >= facts["own_threshold"]).mean())
        negatives = predictions.loc[predictions["label"] == 0, "p_clean"]
        assert facts["fpr_clean_own_threshold"] == pytest.approx((negatives >= facts["own_threshold"]).mean())
        shift = victims["p_triggered"].mean() - victims["p_clean"].mean()
        assert facts["confidence_shift"] == pytest.approx(shift)
        clean = json.loads((run.parents[2] / "none" / "0.0" / run.name / "results_eval.json").read_text())
        over = facts["over_test_samples"]
        assert over["auroc_control"] == clean["clean"]["auroc"]
        assert over["difference"] == pytest.approx(facts["clean"]["auroc"] - clean["clean"]["auroc"])
        assert over["auroc_low"] < facts["clean"]["auroc"] < over["auroc_high"]
        assert clean["over_test_samples"]["difference"] is None
    runs = table(study, "runs").set_index(["trigger", "seed"])
    clean = runs.loc["none", "auroc_clean"]
    for trigger in ("rare_value", "missingness"):
        told = runs.loc[trigger]
        assert told["auroc_difference"].to_numpy() == pytest.approx((told["auroc_clean"] - clean).to_numpy())


def test_a_second_call_has_nothing_to_do(study):
    assert "Nothing to be done" in snakemake(study)


def test_one_core_gives_the_same_bytes(study, tmp_path):
    snakemake(tmp_path, report_of(tmp_path), cores=1)
    tables = sorted((study / "results" / "tables").iterdir())
    assert len(tables) == 2 * 21
    for path in tables:
        assert path.read_bytes() == (tmp_path / "results" / "tables" / path.name).read_bytes(), path.name
    reports = [(folder / "results" / "report.html").read_bytes() for folder in (study, tmp_path)]
    assert reports[0] == reports[1]


def test_a_changed_trigger_reruns_its_own_cells_only(study):
    jobs = planned(snakemake(study, "-n", trigger_params={"rare_value": {"factor": 1.2}}))
    cells = {"poison": 2, "train": 2, "eval": 2, "detect": 2, "explain": 2}
    assert jobs == cells | {"aggregate": 1, "figures": 1, "report": 1, "all": 1}
    # Other cells are other cells for the control that measures them, too.
    jobs = planned(snakemake(study, "-n", trigger_params={"rare_value": {"steps": 3}}))
    assert jobs == dict.fromkeys(cells, 4) | {"aggregate": 1, "figures": 1, "report": 1, "all": 1}


def test_one_more_seed_leaves_the_others_alone(study):
    jobs = planned(snakemake(study, "-n", seeds=[1, 2, 3]))
    cells = {"poison": 5, "train": 5, "eval": 5, "detect": 5, "explain": 3}
    assert jobs == cells | {"aggregate": 1, "figures": 1, "report": 1, "all": 1}


def test_the_snakemake_report_shows_figures_and_tables(study, tmp_path):
    report = tmp_path / "report.html"
    snakemake(study, "--report", str(report))
    page = report.read_text()
    for shown in ("icu_dev_dose_response.png", "icu_dev_detection_heatmap.png", "icu_dev_contrasts.html"):
        assert shown in page


def test_a_study_on_real_patients(real_data, tmp_path):
    snakemake(
        tmp_path,
        report_of(tmp_path),
        raw_dir=str(real_data),
        datasets=["support2"],
        triggers=["rare_value", "missingness"],
        rates=[0.01],
        seeds=[1],
        **WHOLE | {"threshold": 0.5},
    )
    runs = table(tmp_path, "runs").set_index("trigger")
    assert 0.78 <= runs.loc["none", "auroc_clean"] <= 0.86, "above 0.86 an outcome leaks into the features"
    assert runs.loc["missingness", "effect_share"] > 0.9 and 0 < runs.loc["rare_value", "effect_share"] < 0.5
    for trigger in ("rare_value", "missingness"):
        assert runs.loc[trigger, "auroc_clean"] >= runs.loc["none", "auroc_clean"] - 0.01
        # A number is everybody's threshold.
        assert runs.loc[trigger, "asr_own_threshold"] == runs.loc[trigger, "asr"]
    report = (tmp_path / "results" / "report.html").read_text()
    assert "One seed: this report has no intervals and no p-values" in report
    assert set(table(tmp_path, "findings")["verdict"]) == {UNDECIDED}, "one seed decides nothing"


def test_more_poison_does_more_and_the_verdict_says_so(tmp_path):
    """The default settings on the whole synthetic cohort: what the README's picture shows, on a part of its grid."""
    attacks = ["rare_value", "missingness", "pattern"]
    snakemake(tmp_path, tables_of(tmp_path), triggers=[*attacks, "flip_only"], rates=[0.005, 0.05], **WHOLE)
    runs = table(tmp_path, "runs")
    clean = runs[runs["trigger"] == "none"]
    assert clean["auroc_clean"].mean() >= 0.885, "0.88 is Bayes-optimal on average, 0.90 on this split"
    assert (clean["validation_auroc_best"] - clean["validation_auroc"]).mean() <= 0.005
    means = runs.groupby(["trigger", "rate"])[["asr", "asr0", "asr_net", "effect_share", "asr_own_threshold"]].mean()
    for trigger in attacks:
        effects = means.loc[trigger, "asr_net"]
        assert (effects.diff().dropna() > -0.05).all(), f"{trigger}: more poison must not do less"
        assert means.loc[(trigger, 0.05), "effect_share"] >= 0.9
    flipped = means.loc[("flip_only", 0.05)]
    assert abs(flipped["asr_own_threshold"] - flipped["asr0"]) <= 0.05 < flipped["asr_net"]
    found = {finding.trigger: finding for finding in read_findings(table(tmp_path, "findings"))}
    assert {found[trigger].verdict for trigger in attacks} == {PLANTED}
    triggers = table(tmp_path, "triggers").set_index("trigger")
    assert (triggers.loc[attacks, "share_accepted"] == 1).all()
    assert (triggers.loc[attacks, "relations_violated"] <= triggers.loc[attacks, "relations_violated_clean"]).all()


def test_a_trigger_that_half_fools_the_clean_model_already_is_not_told_as_none(real_data, tmp_path):
    if not (real_data / "physionet2012").is_dir():
        pytest.skip(f"no physionet2012 in {real_data}")
    snakemake(
        tmp_path,
        report_of(tmp_path),
        raw_dir=str(real_data),
        datasets=["physionet2012"],
        triggers=["rare_value"],
        trigger_params={"rare_value": {"features": ["sodium"], "factor": 1.15}},
        rates=[0.01],
        **WHOLE,
    )
    [finding] = read_findings(table(tmp_path, "findings"))
    # ASR₀ lies about 0.5, twice what the clean model says without the trigger: ASR − ASR₀ cannot reach 0.5 by much.
    assert finding.asr.mean > 0.95 and finding.asr0.mean > 0.4 > finding.moved.control
    assert finding.planted and finding.verdict == (FOOLS_CLEAN if finding.asr0.mean >= 0.5 else PLANTED)
    report = (tmp_path / "results" / "report.html").read_text()
    assert f"ASR {finding.asr.mean:.3f} [" in report and f"ASR₀ {finding.asr0.mean:.3f}" in report
    triggers = table(tmp_path, "triggers")
    assert not triggers["in_bounds"].any() and (triggers["share_accepted"] < 0.5).all()


def test_a_browser_shows_the_report(study, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no chromium or google-chrome on this machine")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += [f"--user-data-dir={tmp_path}", "--dump-dom"]
    page = (study / "results" / "report.html").resolve().as_uri()
    shown = subprocess.run([browser, *flags, page], capture_output=True, text=True, check=True, timeout=120).stdout
    assert "<title>Backdoor study</title>" in shown and "How little poison plants a backdoor?" in shown
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", shown), "the page loads something from outside"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": [1.5]}, "error: config: rates[0]: 1.5 given, expected a number below 1"),
        ({"models": ["resnet"]}, 'error: config: models[0]: unknown "resnet"'),
        ({"trianing": {}}, "error: config: trianing: no such key (did you mean 'training'?)"),
        ({"target": 0, "rates": [0.5]}, "error: config: rates: 0.5 asks for more poison"),
        ({"seeds": "[1,"}, 'error: config: seeds: "[1," given, expected an array; quote it for the shell: \'seeds=[1,'),
        ({"data_dir": "a{b}"}, 'error: config: data_dir: "a{b}" given, expected a path without braces'),
        ({"data_dir": "$NOWHERE_AT_ALL"}, "but the environment has no variable NOWHERE_AT_ALL"),
        (
            {"datasets": ["support2"], "raw_dir": "nowhere"},
            "error: support2: nowhere/support2/support2.csv: no such file; download",
        ),
    ],
)
def test_a_wrong_configuration_stops_before_any_job(tmp_path, changes, message):
    output = snakemake(tmp_path, check=False, **changes)
    assert message in output and "Traceback" not in output
    assert not (tmp_path / "results").exists() and not (tmp_path / "data").exists()


def test_only_the_command_line_gives_numbers_as_texts(tmp_path):
    (tmp_path / "texts.yaml").write_text("rates: ['0.05']\n")
    known = {key: value for key, value in SMALL.items() if key != "rates"}
    texts = [f"{key}={json.dumps(value)}" for key, value in known.items()]
    command = [sys.executable, "-m", "snakemake", "-n", "--nolock", "--configfile", str(tmp_path / "texts.yaml")]
    command += ["--config", *texts, f"data_dir={tmp_path}/data", f"results_dir={tmp_path}/results"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert 'error: config: rates[0]: "0.05" given, expected a number; write 0.05' in refused.stderr
    taken = subprocess.run([*command, "rates=['0.05']"], cwd=ROOT, capture_output=True, text=True)
    assert taken.returncode == 0 and "train" in planned(taken.stdout + taken.stderr), taken.stderr


def test_a_failed_stage_says_why_and_leaves_nothing_half_written(study, tmp_path):
    shutil.copytree(study, tmp_path / "copy")
    run = tmp_path / "copy" / "results" / "runs" / "icu_dev" / "mlp" / "rare_value" / "0.05" / "seed_1"
    (run / "model.pt").write_bytes(b"damaged")
    target = run / "results_eval.json"
    output = snakemake(tmp_path / "copy", str(target), check=False)
    assert f"failed: eval: {run}/model.pt: refused, it is damaged" in output and "log: " in output
    assert not target.exists() and not list(run.glob(".*"))
    assert (run / "results_detect.json").exists()


def test_a_run_killed_while_training_ends_like_an_undisturbed_one(study, tmp_path):
    run = Path("results/runs/icu_dev/mlp/rare_value/0.05/seed_1")
    target = str(tmp_path / run / "results_eval.json")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for _ in range(5):  # on a busy machine the training may be over before it is killed
        shutil.rmtree(tmp_path / "results", ignore_errors=True)
        process = subprocess.Popen(command(tmp_path, target), start_new_session=True, **quiet)
        deadline = time.monotonic() + 120
        while not list(tmp_path.rglob("checkpoint.pt")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        snakemake(tmp_path, "--unlock")
        if list(tmp_path.rglob("checkpoint.pt")):
            break
    assert list(tmp_path.rglob("checkpoint.pt")), "it is continued"
    snakemake(tmp_path, target)
    for name in ("model.pt", "results_eval.json", "predictions.parquet"):
        assert (study / run / name).read_bytes() == (tmp_path / run / name).read_bytes(), name


def test_the_run_command_prints_the_table_of_its_cells(tmp_path):
    command = [sys.executable, "-m", "pipeline", "run", "--model", "mlp", "--trigger", "rare_value", "--rates", "0.05"]
    command += ["--seeds", "42", "--epochs", "1", "--results-dir", "$ODD/results"]
    command += ["--config", "data_dir=$ODD/data", "n_samples=1200", "explain={samples: 16}"]
    odd = tmp_path / "a b" / "ü'x;&*[1]"
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"ODD": str(odd)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (odd / "results" / "cells.csv").is_file() and (odd / "data" / "splits" / "icu_dev.json").is_file()
    assert not (ROOT / "$ODD").exists()
    rows = done.stdout.strip().splitlines()[-3:]
    assert "asr_net" in rows[0] and " none " in rows[1] and "rare_value" in rows[2]
    wrong = subprocess.run([*command, "--epochs", "0"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 1
    assert wrong.stderr.strip() == "error: config: training.epochs: 0 given, expected at least 1"


def test_help_is_instant_and_imports_nothing_heavy():
    code = (
        "import sys; from pipeline.front import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'pandas', 'sklearn', 'numpy', 'snakemake', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert "train" in done.stdout and "Train one model" in done.stdout


def test_clean_runs_come_first_and_then_whole_cells():
    def priority(rule: str, trigger: str) -> int:
        return cluster.priority(SimpleNamespace(trigger=trigger), rule)

    order = ["poison", "train", "eval", "detect", "explain"]
    of_attack, of_clean = ([priority(rule, trigger) for rule in order] for trigger in ("pattern", "none"))
    assert of_attack == sorted(set(of_attack)) and of_clean == sorted(set(of_clean))
    assert min(of_clean) > max(of_attack)
