# How little poison plants a backdoor in a risk model, and would anyone notice?
#
#   snakemake --cores all              the study in config/config.yaml
#   snakemake --report report.html     its figures and tables with their provenance
#
# In another folder, for a study of its own: snakemake -s PATH/Snakefile --directory ELSEWHERE

import sys

from snakemake.utils import min_version

min_version("9.17")  # a priority for each job of a rule

# Before what another project's environment or this folder has.
sys.path.insert(0, str(workflow.current_basedir))

from pipeline.study import places, terminal
from pipeline.files import hide_from_git

if workflow.is_main_process:  # not a job of a cluster
    terminal.attach(logger, workflow.output_settings)


configfile: str(places.study_file())


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
    hide_from_git(*places.written_to(STUDY))
    # Once more, since there is a folder now to keep the hashes of the original files in.
    cohort_stamps(STUDY, ENTRIES)
    if workflow.local_exec:
        # Each round of the scheduler would start a timer that causes another round, and so on, ever more of them.
        workflow.scheduler.job_rate_limiter = None
        if STUDY.warm:
            warm.start()
        for line in sessions.begin(STUDY, STAMPS, workflow.cores):
            logger.warning(line)


onsuccess:
    recorded = sessions.end(STUDY, COHORTS_JSON, failed=False) if workflow.local_exec else []
    recorded += tracking.after_study(STUDY, COHORTS_JSON) if workflow.local_exec else []
    warm.stop()
    told = progress.closing(STUDY, STAMPS, CLOCK.read()["wall_seconds"], failed=False)
    logger.info("\n".join([*told, *costs.closing(STUDY, STAMPS), *recorded]))


onerror:
    recorded = sessions.end(STUDY, COHORTS_JSON, failed=True) if workflow.local_exec else []
    recorded += tracking.after_study(STUDY, COHORTS_JSON) if workflow.local_exec else []
    warm.stop()
    told = progress.closing(STUDY, STAMPS, CLOCK.read()["wall_seconds"], failed=True)
    logger.info("\n".join([*told, *costs.closing(STUDY, STAMPS), *recorded]))
