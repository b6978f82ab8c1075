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


# Jobs of a cluster run where the warm server is not.
onstart:
    if STUDY.warm and workflow.local_exec and workflow.is_main_process:
        warm.start()


onsuccess:
    warm.stop()


onerror:
    warm.stop()
