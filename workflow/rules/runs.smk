# One run: train on the poisoned data, then evaluate, detect and explain.


rule train:
    input:
        **rules.sample_dev.output,
        **rules.poison.output,
        stage="pipeline/stages/train.py",
        loop="pipeline/training/loop.py",
        family="pipeline/models/{model}.py",
    output:
        # checkpoint.pt lies beside them but is no output: Snakemake would delete it before the job, and a training
        # that was killed could not be continued.
        weights=f"{RUN}/model.pt",
        history=f"{RUN}/history.csv",
        metadata=f"{RUN}/run_metadata.json",
    log:
        f"{RESULTS}/logs/train/{RUN_JOB}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{RUN_JOB}.tsv"
    conda:
        "../../environment.yml"
    params:
        settings=lambda w: grid.settings(STUDY, "train", w.model),
        poison=subpath(input.facts, parent=True),
        out=subpath(output.weights, parent=True),
    shell:
        "{PIPELINE} train --poison {params.poison:q}" + RUN_ARGUMENTS + TO_LOG


rule eval:
    input:
        **rules.sample_dev.output,
        facts=rules.poison.output.facts,
        weights=rules.train.output.weights,
        control=f"{CONTROL}/model.pt",
        stage="pipeline/stages/eval.py",
        metrics="pipeline/evaluation/metrics.py",
    output:
        results=f"{RUN}/results_eval.json",
        predictions=f"{RUN}/predictions.parquet",
    log:
        f"{RESULTS}/logs/eval/{RUN_JOB}.log",
    benchmark:
        f"{RESULTS}/benchmarks/eval/{RUN_JOB}.tsv"
    conda:
        "../../environment.yml"
    params:
        settings=lambda w: grid.settings(STUDY, "eval", w.model, w.trigger),
        poison=subpath(input.facts, parent=True),
        out=subpath(output.results, parent=True),
    shell:
        "{PIPELINE} eval --weights {input.weights:q} --control {input.control:q} --poison {params.poison:q}"
        + RUN_ARGUMENTS
        + TO_LOG


rule detect:
    input:
        **rules.sample_dev.output,
        **rules.poison.output,
        weights=rules.train.output.weights,
        stage="pipeline/stages/detect.py",
        family=[f"pipeline/detectors/{name}.py" for name in STUDY.detectors],
    output:
        results=f"{RUN}/results_detect.json",
        scores=f"{RUN}/detection_scores.parquet",
    log:
        f"{RESULTS}/logs/detect/{RUN_JOB}.log",
    benchmark:
        f"{RESULTS}/benchmarks/detect/{RUN_JOB}.tsv"
    conda:
        "../../environment.yml"
    params:
        settings=lambda w: grid.settings(STUDY, "detect", w.model),
        poison=subpath(input.facts, parent=True),
        out=subpath(output.results, parent=True),
    shell:
        "{PIPELINE} detect --weights {input.weights:q} --poison {params.poison:q}"
        + RUN_ARGUMENTS
        + TO_LOG


rule explain:
    input:
        **rules.sample_dev.output,
        weights=rules.train.output.weights,
        control=f"{CONTROL}/model.pt",
        stage="pipeline/stages/explain.py",
        family="pipeline/triggers/{trigger}.py",
    output:
        results=f"{RUN}/results_explain.json",
    log:
        f"{RESULTS}/logs/explain/{RUN_JOB}.log",
    benchmark:
        f"{RESULTS}/benchmarks/explain/{RUN_JOB}.tsv"
    conda:
        "../../environment.yml"
    params:
        settings=lambda w: grid.settings(STUDY, "explain", w.model, w.trigger),
        out=subpath(output.results, parent=True),
    shell:
        "{PIPELINE} explain --weights {input.weights:q} --control {input.control:q}"
        + RUN_ARGUMENTS
        + TO_LOG
