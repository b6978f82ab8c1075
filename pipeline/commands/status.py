"""Say how far a study is, what is at work, why cells failed or are outdated, and write it to RESULTS_DIR/cells.csv.

Nothing is written where the folder is of a study with other settings.
"""

import argparse
from pathlib import Path

from pipeline.commands.arguments import add_study_arguments, refuse_missing, study_of

_TOLD = 20  # jobs at work


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_study_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from pipeline.database import sessions
    from pipeline.study import costs, progress
    from pipeline.study.stamps import stamps_of
    from pipeline.words import counted, duration

    study = study_of(args)
    refuse_missing(Path(study.results_dir))
    files = progress.Files(study, stamps_of(study))
    rows = progress.states_in(files)
    for row in rows:
        if row.state in (progress.FAILED, progress.OUTDATED):
            print(f"{'/'.join(row.cell)}: {row.stage}: {row.why}")
    if sessions.is_of_another(study):
        print(f"{progress.summary(rows)}: {study.results_dir} is of a study with other settings, and is left as it is")
    else:
        print(progress.record(study, rows))
    running = costs.at_work(files)
    if running:
        jobs = {job for job, _ in running if job.stage != "sample_dev"}
        of = sum(not jobs.isdisjoint(files.to_weights(row.cell) + files.from_weights(row.cell)) for row in rows)
        print(f"at work: {counted(len(running), 'job')}, of {counted(of, 'cell')}")
    for job, seconds in running[:_TOLD]:
        print(f"  {job.stage} {'/'.join(filter(None, job.cell))}, for {duration(seconds)}")
    if len(running) > _TOLD:
        print(f"  and {counted(len(running) - _TOLD, 'other')}")
    for line in sessions.told(files):
        print(line)
    left = costs.time_left(files)
    if left is not None:
        print(f"time left{'' if running else ', once it goes on'}: {left}")
