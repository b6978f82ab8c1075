# Tables over all runs, figures from the tables, the report from both.

TABLES = [
    "runs",
    "detections",
    "alarms",
    "explanations",
    "attributions",
    "triggers",
    "datasets",
    "contrasts",
    "summary",
    "clean_performance",
    "masks",
    "variants",
    "not_applicable",
    "fusion",
    "findings",
    "roc",
    "strata",
    "strata_summary",
    "scenarios",
    "distillation",
    "columns",
]
# Figure: its category in `snakemake --report`.
PICTURES = {
    "dose_response": "Attack",
    "clean_performance": "Attack",
    "attribution": "Attribution",
    "detection_heatmap": "Detection",
    "detection_roc": "Detection",
    "false_alarms": "Detection",
}
if grid.teachers(STUDY):
    PICTURES["survival"] = "Attack"
FIGURES = expand(
    f"{RESULTS}/figures/{{dataset}}_{{name}}",
    dataset=STUDY.datasets,
    name=[*(f"{name}.png" for name in PICTURES), "contrasts.html"],
)


rule aggregate:
    input:
        RUNS,
    output:
        tables=expand(f"{RESULTS}/tables/{{table}}.{{kind}}", table=TABLES, kind=["csv", "parquet"]),
        metrics=f"{RESULTS}/metrics.json",
        plot=f"{RESULTS}/dose_response.csv",
        # Whoever deletes the outputs deletes with them what says that they are there.
        cells=f"{RESULTS}/cells.csv",
    log:
        grid.log_file(RESULTS, "aggregate"),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=cluster.per_attempt(4000),
        runtime=cluster.per_attempt(10),
    params:
        stamp=STAMPS.of("aggregate").text(),
        state=grid.state_file(RESULTS, "aggregate"),
        study=STUDY_JSON,
        cohorts=COHORTS_JSON,
        results_dir=subpath(output[0], ancestor=2),
    shell:
        "exec python -m pipeline aggregate --stamp {params.stamp:q} --state {params.state:q}"
        " --study {params.study:q} --cohorts {params.cohorts:q} --results-dir {params.results_dir:q} &> {log:q}"


rule figures:
    input:
        rules.aggregate.output.tables,
    output:
        [
            report(
                f"{RESULTS}/figures/{dataset}_{name}.png",
                caption=f"../report/{name}.rst",
                category=category,
                labels={"dataset": dataset, "figure": name.replace("_", " ")},
            )
            for dataset in STUDY.datasets
            for name, category in PICTURES.items()
        ],
        [
            report(
                f"{RESULTS}/figures/{dataset}_contrasts.html",
                caption="../report/contrasts.rst",
                category="Tables",
                labels={"dataset": dataset, "figure": "contrasts"},
            )
            for dataset in STUDY.datasets
        ],
        expand(f"{RESULTS}/figures/{{dataset}}_{{name}}.svg", dataset=STUDY.datasets, name=PICTURES),
    log:
        grid.log_file(RESULTS, "figures"),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=cluster.per_attempt(4000),
        runtime=cluster.per_attempt(10),
    params:
        stamp=STAMPS.of("figures").text(),
        state=grid.state_file(RESULTS, "figures"),
        tables=subpath(input[0], parent=True),
        out=subpath(output[0], parent=True),
        datasets=STUDY.datasets,
    shell:
        "exec python -m pipeline figures --stamp {params.stamp:q} --state {params.state:q} --tables {params.tables:q}"
        " --out {params.out:q} --datasets {params.datasets:q} &> {log:q}"


rule report:
    input:
        rules.aggregate.output.tables,
        notebook=str(found(REPORT_NOTEBOOK)),
    output:
        f"{RESULTS}/report.html",
    log:
        grid.log_file(RESULTS, "report"),
        notebook=f"{RESULTS}/logs/report.ipynb",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=cluster.per_attempt(4000),
        runtime=cluster.per_attempt(10),
    params:
        stamp=STAMPS.of("report").text(),
        state=grid.state_file(RESULTS, "report"),
        study=STUDY_JSON,
        results_dir=subpath(output[0], parent=True),
    shell:
        "exec python -m pipeline report --stamp {params.stamp:q} --state {params.state:q} --study {params.study:q}"
        " --results-dir {params.results_dir:q} --notebook {input.notebook:q} --out {output:q}"
        " --executed-notebook {log.notebook:q} &> {log[0]:q}"
