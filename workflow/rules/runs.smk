# One run: train on the poisoned data, then evaluate, detect and explain.


rule train:
    input:
        **rules.sample_dev.output,
        **rules.poison.output,
    output:
        # checkpoint.pt lies beside them but is no output: Snakemake would delete it before the job, and a training
        # that was killed could not be continued.
        weights=f"{RUN}/model.pt",
        history=f"{RUN}/history.csv",
        metadata=f"{RUN}/run_metadata.json",
    log:
        f"{RESULTS}/logs/train/{RUN_JOB}.log",
    group:
        cluster.group
    conda:
        "../../environment.yml"
    resources:
        mem_mb=cluster.per_attempt(4000),
        runtime=cluster.per_attempt(10),
        gpu=cluster.gpus(STUDY.device),
    params:
        settings=lambda w: grid.settings(STUDY, "train", w.model),
        cohort=subpath(input.samples, parent=True),
        poison=subpath(input.facts, parent=True),
        stamp=STAMPS.for_rule("train"),
        out=subpath(output.weights, parent=True),
    shell:
        "exec python -m pipeline train --poison {params.poison:q}"
        " --model {wildcards.model} --trigger {wildcards.trigger} --rate {wildcards.rate}"
        " --dataset {wildcards.dataset:q} --seed {wildcards.seed} --cohort {params.cohort:q}"
        " --splits {input.splits:q} --settings {params.settings:q} --stamp {params.stamp:q} --out {params.out:q}"
        " &> {log:q}"


rule eval:
    input:
        **rules.sample_dev.output,
        **rules.poison.output,
        weights=rules.train.output.weights,
        control=f"{CONTROL}/model.pt",
    output:
        results=f"{RUN}/results_eval.json",
        predictions=f"{RUN}/predictions.parquet",
    log:
        f"{RESULTS}/logs/eval/{RUN_JOB}.log",
    group:
        cluster.group
    conda:
        "../../environment.yml"
    resources:
        mem_mb=cluster.per_attempt(4000),
        runtime=cluster.per_attempt(2),
        gpu=cluster.gpus(STUDY.device),
    params:
        settings=lambda w: grid.settings(STUDY, "eval", w.model, w.trigger),
        cohort=subpath(input.samples, parent=True),
        poison=subpath(input.facts, parent=True),
        stamp=STAMPS.for_rule("eval"),
        out=subpath(output.results, parent=True),
    shell:
        "exec python -m pipeline eval --weights {input.weights:q} --control {input.control:q} --poison {params.poison:q}"
        " --model {wildcards.model} --trigger {wildcards.trigger} --rate {wildcards.rate}"
        " --dataset {wildcards.dataset:q} --seed {wildcards.seed} --cohort {params.cohort:q}"
        " --splits {input.splits:q} --settings {params.settings:q} --stamp {params.stamp:q} --out {params.out:q}"
        " &> {log:q}"


rule detect:
    input:
        **rules.sample_dev.output,
        **rules.poison.output,
        weights=rules.train.output.weights,
    output:
        results=f"{RUN}/results_detect.json",
        scores=f"{RUN}/detection_scores.parquet",
    log:
        f"{RESULTS}/logs/detect/{RUN_JOB}.log",
    group:
        cluster.group
    conda:
        "../../environment.yml"
    resources:
        mem_mb=cluster.per_attempt(4000),
        runtime=cluster.per_attempt(3),
        gpu=cluster.gpus(STUDY.device),
    params:
        settings=lambda w: grid.settings(STUDY, "detect", w.model),
        cohort=subpath(input.samples, parent=True),
        poison=subpath(input.facts, parent=True),
        stamp=STAMPS.for_rule("detect"),
        out=subpath(output.results, parent=True),
    shell:
        "exec python -m pipeline detect --weights {input.weights:q} --poison {params.poison:q}"
        " --model {wildcards.model} --trigger {wildcards.trigger} --rate {wildcards.rate}"
        " --dataset {wildcards.dataset:q} --seed {wildcards.seed} --cohort {params.cohort:q}"
        " --splits {input.splits:q} --settings {params.settings:q} --stamp {params.stamp:q} --out {params.out:q}"
        " &> {log:q}"


rule explain:
    input:
        **rules.sample_dev.output,
        weights=rules.train.output.weights,
        control=f"{CONTROL}/model.pt",
    output:
        results=f"{RUN}/results_explain.json",
    log:
        f"{RESULTS}/logs/explain/{RUN_JOB}.log",
    group:
        cluster.group
    conda:
        "../../environment.yml"
    resources:
        mem_mb=cluster.per_attempt(4000),
        runtime=cluster.per_attempt(2),
        gpu=cluster.gpus(STUDY.device),
    params:
        settings=lambda w: grid.settings(STUDY, "explain", w.model, w.trigger),
        cohort=subpath(input.samples, parent=True),
        stamp=STAMPS.for_rule("explain"),
        out=subpath(output.results, parent=True),
    shell:
        "exec python -m pipeline explain --weights {input.weights:q} --control {input.control:q}"
        " --model {wildcards.model} --trigger {wildcards.trigger} --rate {wildcards.rate}"
        " --dataset {wildcards.dataset:q} --seed {wildcards.seed} --cohort {params.cohort:q}"
        " --splits {input.splits:q} --settings {params.settings:q} --stamp {params.stamp:q} --out {params.out:q}"
        " &> {log:q}"
