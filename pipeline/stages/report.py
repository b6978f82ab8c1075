"""Execute the report notebook and turn it into one self-contained HTML page."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.stages.arguments import add_job_arguments

TITLE = "Backdoor study"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)
    parser.add_argument("--study", required=True, metavar="JSON", help="the study configuration")
    parser.add_argument("--results-dir", required=True, type=Path, help="holds tables/")
    parser.add_argument("--notebook", required=True, type=Path, help="the report's notebook")
    parser.add_argument("--out", required=True, type=Path, help="the HTML page to write")
    parser.add_argument("--executed-notebook", required=True, type=Path, help="where the executed notebook is kept")


def run(args: argparse.Namespace) -> None:
    write(args.study, args.results_dir / "tables", args.notebook, args.out, args.executed_notebook)


def write(
    study: str, tables_dir: Path, notebook: Path, out: Path, executed: Path, cells_csv: Path | None = None
) -> None:
    """Write the page `out` about the tables in `tables_dir`.

    `study`: its configuration as JSON. `cells_csv`: the state of its cells, where the tables are not of all of them.
    """
    from pipeline.files import whole

    parameters = {"tables_dir": str(tables_dir.resolve()), "study_json": study}
    parameters |= {"cells_csv": str(cells_csv.resolve()) if cells_csv else ""}
    page = to_html(execute(notebook, parameters, executed))
    with whole(out) as aside:
        aside.write_text(page, encoding="utf-8")


def execute(notebook: Path, parameters: dict[str, str], executed: Path):
    """The executed notebook; it is kept at `executed` even if a cell fails, since it holds the traceback."""
    import shutil
    import tempfile

    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    from pipeline.errors import UserError
    from pipeline.files import whole

    with tempfile.TemporaryDirectory() as folder, _jupyter_in(Path(folder)):
        kept = Path(folder) / "report.ipynb"
        try:
            return papermill.execute_notebook(
                _literal(notebook.resolve()),
                _literal(kept),
                parameters=parameters,
                kernel_name="python3",
                progress_bar=False,
                # Not the project's folder: a kernel takes the one it works in off the paths that it imports from.
                cwd=folder,
                # Other users of this machine can listen to the loopback interface.
                config=Config(KernelManager={"transport_encryption": "auto"}),
            )
        except papermill.PapermillExecutionError as error:
            raise UserError(
                f"Cell {error.exec_count} of {notebook} failed with {error.ename}: {error.evalue}; see {executed}."
            ) from error
        except DeadKernelError as error:
            raise UserError(f"The kernel running {notebook} died; see {executed}.") from error
        finally:
            if kept.exists():
                with whole(executed) as aside:
                    shutil.copyfile(kept, aside)


def _literal(path: Path) -> str:
    """`path` for papermill, which puts parameters in the place of names in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def to_html(notebook) -> str:
    """The notebook's prose and outputs as a page that loads nothing from outside and holds no code."""
    from nbconvert import HTMLExporter

    from pipeline.results.pages import page

    # Papermill gives the cell with the parameters a new random id each time; it has nothing to show.
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "markdown" or cell.outputs]
    exporter = HTMLExporter(
        template_name="basic",  # the bare content: the full templates bring scripts and load MathJax and others
        exclude_input=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        embed_images=True,
    )
    body, _ = exporter.from_notebook_node(notebook)
    return page(TITLE, body)


@contextmanager
def _jupyter_in(folder: Path) -> Iterator[None]:
    """Keep Jupyter's and IPython's files in `folder`: the home may be read-only, and its settings are not ours.

    What is started imports this project's code.
    """
    import os

    from pipeline.files import ROOT

    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    before = dict(os.environ)
    os.environ.update({name: str(folder / name.lower()) for name in names})
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [before.get("PYTHONPATH")])])
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
