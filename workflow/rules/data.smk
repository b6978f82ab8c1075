# From the original files to a cohort with its folds, and from a cohort to its poison.


rule sample_dev:
    input:
        raw=lambda w: source_of(ENTRIES[w.dataset]).input_files(
            ENTRIES[w.dataset], Path(STUDY.raw_dir)
        ),
    output:
        samples=f"{COHORT}/samples.parquet",
        windows=f"{COHORT}/windows.parquet",
        splits=SPLITS,
    log:
        grid.log_file(RESULTS, "sample_dev", CELL),
    conda:
        "../../environment.yml"
    # Large tables are parsed by two readers (pipeline/cohorts/original.py).
    threads: 2
    resources:
        cpus_per_task=2,  # on Slurm, where the profile allows one thread
        mem_mb=cluster.per_attempt(4000),
        runtime=cluster.per_attempt(60),
    params:
        entry=lambda w: ENTRIES[w.dataset].content(),
        n_samples=STUDY.n_samples,
        raw_dir=STUDY.raw_dir,
        cache_dir=CACHE,
        stamp=STAMPS.for_rule("sample_dev"),
        state=grid.cohort_state_file(DATA, "{dataset}"),
        out=subpath(output.samples, parent=True),
    shell:
        "exec python -m pipeline sample_dev --dataset {wildcards.dataset:q} --entry {params.entry:q}"
        " --raw-dir {params.raw_dir:q} --cache-dir {params.cache_dir:q} --n-samples {params.n_samples}"
        " --stamp {params.stamp:q} --state {params.state:q} --splits {output.splits:q} --out {params.out:q} &> {log:q}"


localrules:
    cohorts,


# The cohorts alone: a stage of dvc.yaml.
rule cohorts:
    input:
        expand(
            [f"{COHORT}/samples.parquet", f"{COHORT}/windows.parquet", SPLITS],
            dataset=STUDY.datasets,
        ),


rule poison:
    input:
        **rules.sample_dev.output,
    output:
        overlay=f"{POISON}/poison.parquet",
        rows=f"{POISON}/poisoned_indices.npy",
        fitted=f"{POISON}/trigger.npz",
        trigger=f"{POISON}/trigger.json",
        facts=f"{POISON}/poison.json",
    log:
        grid.log_file(RESULTS, "poison", CELL),
    priority: cluster.priority
    group:
        cluster.group
    conda:
        "../../environment.yml"
    resources:
        mem_mb=cluster.per_attempt(2000),
        runtime=cluster.per_attempt(1),
    params:
        settings=lambda w: grid.settings(STUDY, "poison", trigger=w.trigger),
        cohort=subpath(input.samples, parent=True),
        stamp=STAMPS.for_rule("poison"),
        state=grid.state_file(POISON, "poison"),
        out=subpath(output.facts, parent=True),
    shell:
        "exec python -m pipeline poison --trigger {wildcards.trigger} --rate {wildcards.rate}"
        " --dataset {wildcards.dataset:q} --seed {wildcards.seed} --cohort {params.cohort:q}"
        " --splits {input.splits:q} --settings {params.settings:q} --stamp {params.stamp:q}"
        " --state {params.state:q} --out {params.out:q} &> {log:q}"
