"""The benchmarks run at tiny size, count what they say they count, and make their page."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import database, detectors, facts, growth, study, training
from benchmarks.__main__ import PARTS, page


def run_part(name: str, folder: Path, *arguments: str) -> dict:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--out", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / f"{name}.json").read_text())
    assert found["command"].split() == ["python", "-m", f"benchmarks.{name}", *arguments]
    assert found["machine"] and found["date"]
    return found["results"]


def burn(seconds: float) -> None:
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass


def test_cpu_seconds_of_commands_and_forks_are_their_own():
    code = "import time\nwhile time.process_time() < 0.3: pass"
    burn(0.3)
    assert 0.3 <= facts.run([sys.executable, "-c", code]).cpu < 0.6
    assert 0.3 <= facts.forked(lambda: burn(0.3)).cpu < 0.45
    assert facts.run([sys.executable, "-c", "import time; time.sleep(0.3)"]).wall >= 0.3


def test_a_command_that_fails_ends_the_benchmark_with_what_it_printed(tmp_path):
    with pytest.raises(SystemExit, match="(?s)failed in.*no such table"):
        facts.run([sys.executable, "-c", "raise SystemExit('no such table')"], tmp_path, tmp_path / "log")
    with pytest.raises(SystemExit, match="forked"):
        facts.forked(lambda: os.kill(os.getpid(), 9))


def test_the_cost_of_a_job_is_the_last_line_of_its_log(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "seed_1.log").write_text("read\ncost: 0.412 s wall, 0.398 s CPU, 395 MiB\n")
    (tmp_path / "aggregate.log").write_text("cost: 2.000 s wall, 1.500 s CPU, 100 MiB\n")
    assert facts.stage_costs(tmp_path) == [("aggregate", (2.0, 1.5, 100.0)), ("train", (0.412, 0.398, 395.0))]
    (tmp_path / "eval.log").write_text("killed\n")
    with pytest.raises(SystemExit, match="eval.log: no line"):
        facts.stage_costs(tmp_path)


def test_a_copy_of_the_project_holds_no_results(tmp_path):
    copy = facts.copy_project(tmp_path / "copy")
    assert (copy / "Snakefile").is_file() and (copy / "pipeline" / "__main__.py").is_file()
    assert [path.name for path in (copy / "data").iterdir()] == ["datasets.yaml"]
    assert not (copy / "results").exists()


def test_one_run_does_the_same_work_on_both_sides(tmp_path):
    results = run_part("one_run", tmp_path, "--rows", "1500", "--features", "6", "--epochs", "3", "--repeats", "1")
    stages, script = results["outcome"]["stages"], results["outcome"]["script"]
    assert stages["auroc_clean"] > 0.7 and script["auroc_clean"] == pytest.approx(stages["auroc_clean"], abs=0.05)
    assert results["cpu_seconds"]["compute"]["ratio"] > 1
    assert results["cpu_seconds"]["warm"]["stages"] < results["cpu_seconds"]["cold"]["stages"]


def test_growth_runs_whole_studies(tmp_path):
    results = run_part("growth", tmp_path, "--cells", "10", "--plan", "20", "--cores", "2")
    first = results["sizes"][0]
    # Per cell poison, train, eval, detect, and explain but for the clean run; sample_dev, aggregate, figures, report.
    assert first["cells"] == 10 and first["jobs"] == 10 * 4 + 9 + 4
    assert 0 < first["compute"] < first["wall"] * 2
    assert first["overhead_per_job"] == pytest.approx((first["wall"] * 2 - first["compute"]) / first["jobs"])
    assert results["plan"]["cells"] == 20 and results["plan"]["cpu"] > 0.5


def test_all_cells_of_a_tiny_grid_are_counted(tmp_path):
    study = json.loads(growth.tiny_project(tmp_path / "copy", 2000).read_text())
    assert len(study["seeds"]) * (len(study["rates"]) + 1) == 2000


def test_training_measures_every_model_and_a_share_of_the_limit(tmp_path):
    results = run_part("training", tmp_path, "--samples", "256", "--epochs", "1", "--repeats", "1", "--steps", "4")
    assert {"mlp", "lstm", "tcn", "tabtransformer"} <= results["throughput"].keys()
    for step in results["step"].values():
        assert 0 < step["share_done"] < step["share"]
    assert results["step"]["series"]["share_done"] < 1


def test_training_data_is_what_the_shapes_say():
    classifier = training.classifier_of("mlp", 24, 21)
    assert training.samples(classifier, 8, 24, 21).x.shape == (8, 24, 2 * 21)


def test_detectors_find_the_made_up_poison_and_rank_as_the_paper_does():
    x, label, poisoned = detectors.activations(10_000)
    assert x.shape == (10_000, detectors.WIDTH) and label[poisoned].all()
    assert poisoned.mean() == pytest.approx(detectors.RATE, abs=0.01)
    score = detectors.ours("spectral_signatures", x, label).score
    assert detectors.rank_correlation(score, detectors.paper_scores(x, label), label) > 0.9999
    results = detectors.compare(10_000, 1, with_art=False)
    assert results["auroc"]["activation_clustering"] > 0.9 and "ratio" not in results


def test_arts_suspects_are_the_smaller_cluster_of_a_suspicious_label():
    class Defence:
        clusters_by_class = (np.array([0, 1, 1]), np.array([1, 1, 0]))

    label = np.array([0, 1, 0, 1, 0, 1])
    report = {"class_0": {"suspicious": False}, "class_1": {"suspicious": True}}
    assert detectors.art_suspects(Defence, report, label).tolist() == [False, False, False, False, False, True]


def test_a_large_study_is_made_of_the_results_of_a_small_one(tmp_path):
    results = run_part("database", tmp_path, "--runs", "100", "--repeats", "3")
    assert results["runs"] == 100 and results["changes"] == 0
    assert results["populate"]["wall"] > 0 and results["write"]["warm"]["median"] < results["write"]["cold"]["median"]
    assert set(results["questions"]) <= set(database.QUESTIONS)
    assert "100 runs" in database.text(results)


def test_the_page_names_parts_that_were_not_measured(tmp_path):
    assert all(f"python -m benchmarks.{name}" in page(tmp_path) for name in PARTS)


def test_the_page_shows_bars_machine_and_command(tmp_path):
    results = {"without_art": "no network", "art": "art==1", "repeats": 1}
    results["sizes"] = [detectors.compare(1000, 1, with_art=False)]
    found = {"command": "python -m benchmarks.detectors", "date": "2026-11-21", "machine": "1 core", "seconds": 1}
    (tmp_path / "detectors.json").write_text(json.dumps({**found, "results": results}))
    text = page(tmp_path)
    assert "ART was not compared: no network" in text and "1 core" in text and "2026-11-21" in text


def test_a_bar_is_met_by_the_figure_it_shows():
    warm = {"wall": 301.0, "overhead_share": 0.36, "overhead_per_job": 0.11}
    results = {"cores": 2, "config": [], "warm": warm, "ratio": 3.9}
    assert [bar.met for bar in study.bars(results)] == [False] * 4
    results = {**results, "warm": {"wall": 299.0, "overhead_share": 0.34, "overhead_per_job": 0.09}, "ratio": 4.1}
    assert [bar.met for bar in study.bars(results)] == [True] * 4
    sizes = [
        {"cells": cells, "per_cell": seconds, "overhead_per_job": 0.05} for cells, seconds in ((100, 1), (900, 1.5))
    ]
    results = {"sizes": [*sizes, {**sizes[0], "per_cell": 1.4}], "batched": {"cells": 5000, "per_cell": 1.5}}
    # Against the mean of the first and the last measurement of the smallest grid.
    assert [(bar.figure, bar.met) for bar in growth.bars(results)[1:]] == [("1.25 ×", False)] * 2
