# How little poison plants a backdoor in a risk model, and would anyone notice?
#
#   snakemake --cores all              the study in config/config.yaml
#   snakemake --report report.html     its figures and tables with their provenance


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/results.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",
        FIGURES,
        # Named here too, or a run that failed when it was to be made anew would go unnoticed.
        rules.cohorts.input,
        RUNS,


onstart:
    if workflow.local_exec:
        # Each round of the scheduler would start a timer that causes another round, and so on, ever more of them.
        workflow.scheduler.job_rate_limiter = None
        if STUDY.warm:
            warm.start()


onsuccess:
    warm.stop()
    logger.info(
        "\n".join(progress.closing(STUDY, STAMPS, CLOCK.read()["wall_seconds"], failed=False))
    )


onerror:
    warm.stop()
    logger.info(
        "\n".join(progress.closing(STUDY, STAMPS, CLOCK.read()["wall_seconds"], failed=True))
    )
