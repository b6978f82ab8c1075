# One run: train on the poisoned data, then evaluate, detect and explain.


rule train:
    input:
        **rules.sample_dev.output,
        **rules.poison.output,
        parents=lambda w: expand(f"{RUN}/model.pt", **{**w, "model": STUDY.parents(w.model)}),
    output:
        # checkpoint.pt lies beside them but is no output: Snakemake would delete it before the job, and a training
        # that was killed could not be continued.
        weights=f"{RUN}/model.pt",
        history=f"{RUN}/history.csv",
        metadata=f"{RUN}/run_metadata.json",
    log:
        grid.log_file(RESULTS, "train", CELL),
    priority: cluster.priority
    group:
        cluster.group
    conda:
        "../../environment.yml"
    resources:
        **COMPUTING,
        runtime=cluster.per_attempt(10),
    params:
        stage="train",
        reads=lambda w, input: grid.reads(STUDY, w, input),
        settings=lambda w: grid.settings(STUDY, "train", w.model),
        cohort=subpath(input.samples, parent=True),
        stamp=STAMPS.for_rule("train"),
        state=grid.state_file(RUN, "train"),
        out=subpath(output[0], parent=True),
    shell:
        "exec python -m pipeline {params.stage} {params.reads:q} --model {wildcards.model} --trigger {wildcards.trigger}"
        " --rate {wildcards.rate} --dataset {wildcards.dataset:q} --seed {wildcards.seed} --cohort {params.cohort:q}"
        " --splits {input.splits:q} --settings {params.settings:q} --stamp {params.stamp:q}"
        " --state {params.state:q} --out {params.out:q} &> {log:q}"


use rule train as eval with:
    input:
        **rules.sample_dev.output,
        **rules.poison.output,
        weights=rules.train.output.weights,
        control=f"{CONTROL}/model.pt",
    output:
        results=f"{RUN}/results_eval.json",
        predictions=f"{RUN}/predictions.parquet",
    log:
        grid.log_file(RESULTS, "eval", CELL),
    resources:
        **COMPUTING,
        runtime=cluster.per_attempt(2),
    params:
        stage="eval",
        settings=lambda w: grid.settings(STUDY, "eval", w.model, w.trigger),
        stamp=STAMPS.for_rule("eval"),
        state=grid.state_file(RUN, "eval"),


use rule train as detect with:
    input:
        **rules.sample_dev.output,
        **rules.poison.output,
        weights=rules.train.output.weights,
    output:
        results=f"{RUN}/results_detect.json",
        scores=f"{RUN}/detection_scores.parquet",
    log:
        grid.log_file(RESULTS, "detect", CELL),
    resources:
        **COMPUTING,
        runtime=cluster.per_attempt(3),
    params:
        stage="detect",
        settings=lambda w: grid.settings(STUDY, "detect", w.model, w.trigger),
        stamp=STAMPS.for_rule("detect"),
        state=grid.state_file(RUN, "detect"),


use rule train as explain with:
    input:
        **rules.sample_dev.output,
        **rules.poison.output,
        weights=rules.train.output.weights,
        control=f"{CONTROL}/model.pt",
    output:
        results=f"{RUN}/results_explain.json",
    log:
        grid.log_file(RESULTS, "explain", CELL),
    resources:
        **COMPUTING,
        runtime=cluster.per_attempt(2),
    params:
        stage="explain",
        settings=lambda w: grid.settings(STUDY, "explain", w.model, w.trigger),
        stamp=STAMPS.for_rule("explain"),
        state=grid.state_file(RUN, "explain"),
