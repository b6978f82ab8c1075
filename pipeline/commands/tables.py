"""Make tables, figures and report of the cells that are done, the gaps named, in RESULTS_DIR/partial."""

import argparse
from pathlib import Path

from pipeline.commands.arguments import add_study_arguments, refuse_missing, study_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_study_arguments(parser)


def run(args: argparse.Namespace) -> None:
    import tempfile

    from pipeline.errors import UserError
    from pipeline.files import found, hide_from_git
    from pipeline.results import facts, figures, tables
    from pipeline.stages import report
    from pipeline.study import progress
    from pipeline.study.stamps import REPORT_NOTEBOOK, stamps_of

    study = study_of(args)
    results = Path(study.results_dir)
    refuse_missing(results)
    stamps = stamps_of(study)
    rows = progress.states(study, stamps)
    done = [row.cell for row in rows if row.state == progress.DONE]
    if not done:
        raise UserError(f"{results}: no cell of the study is done ({progress.summary(rows)}), expected at least one")
    facts.refuse_outdated(study, results, stamps, only=done)
    hide_from_git(results)
    # Made aside, then put in place as one: tables, figures and gaps always belong together.
    with tempfile.TemporaryDirectory(prefix=".partial.", dir=results) as folder:
        new, old = Path(folder, "new"), Path(folder, "old")
        built = tables.build(study, results, only=done)
        tables.write(built, new / "tables")
        tables.write_headlines(built["summary"], new)
        figures.write(built, list(built["datasets"]["dataset"]), new / "figures")
        progress.write(rows, new / "cells.csv")
        notebook, page, executed = found(REPORT_NOTEBOOK), new / "report.html", results / "logs/partial.ipynb"
        report.write(study.model_dump_json(), new / "tables", notebook, page, executed, new / "cells.csv")
        partial = results / "partial"
        if partial.exists():
            partial.rename(old)
        new.rename(partial)
    print(f"{progress.summary(rows)}; made of those done: {partial}/tables, figures, report.html")
