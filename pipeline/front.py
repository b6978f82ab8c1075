"""The command line: one command, a stage or one for people, from its arguments to its exit status.

Nothing heavy is imported here: each command imports what it needs when it runs.
"""

import io
import sys
from collections.abc import Callable
from contextlib import suppress

from pipeline.errors import UserError, disk_error

TYPE_CHECKING = False  # as in typing, whose import would be a sixth of a client's time
if TYPE_CHECKING:
    from argparse import Namespace

    from pipeline.commands.arguments import Parser
    from pipeline.jobs.clock import Clock

SUMMARY = "`python -m pipeline COMMAND …`: the stages of the workflow, and commands around it."
COMMANDS = {
    "compare": "pipeline.commands.compare",
    "datasets": "pipeline.commands.datasets",
    "db": "pipeline.commands.db",
    "ingest": "pipeline.commands.ingest",
    "run": "pipeline.commands.run",
    "schema": "pipeline.commands.schema",
    "status": "pipeline.commands.status",
    "tables": "pipeline.commands.tables",
    "sample_dev": "pipeline.stages.sample_dev",
    "poison": "pipeline.stages.poison",
    "train": "pipeline.stages.train",
    "eval": "pipeline.stages.eval",
    "detect": "pipeline.stages.detect",
    "explain": "pipeline.stages.explain",
    "aggregate": "pipeline.stages.aggregate",
    "figures": "pipeline.stages.figures",
    "report": "pipeline.stages.report",
}
# Of the commands that people type; the others are stages, which Snakemake calls.
EXAMPLES = {
    "compare": "python -m pipeline compare results results_b",
    "datasets": "python -m pipeline datasets --raw-dir /data/hospital",
    "db": "python -m pipeline db leaderboard --metric effect_share",
    "ingest": "python -m pipeline ingest support2 --raw-dir /data/hospital",
    "run": "python -m pipeline run --model mlp --trigger rare_value --rates 0.01,0.05 --seeds 1,2 --epochs 5",
    "schema": "python -m pipeline schema",
    "status": "python -m pipeline status --configfile config/full.yaml",
    "tables": "python -m pipeline tables --config results_dir=results_b",
}


_CHANGED = "the code of this stage was changed after the workflow was started; start it again"

# Imported inside functions, since planning or some stages do not need them.
_HEAVY = (
    *("sqlite3", "captum.attr", "pandas", "pyarrow.pandas_compat", "pyarrow.parquet"),
    *("sklearn.cluster", "sklearn.covariance", "sklearn.linear_model", "lightgbm", "torch.optim"),
)


def preloaded() -> Callable[[list[str]], int]:
    """`main`, with all imported that a stage may need, so that a fork of this process need not."""
    import pkgutil
    from importlib import import_module

    import pipeline
    from pipeline.study import code

    code.drop_old_bytecode()
    code.preload()  # before the imports: what is loaded is what was hashed, or newer, which is noticed
    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        import_module(module.name)
    for name in _HEAVY:
        import_module(name)
    return main


def parser_of(argv: list[str]) -> "Parser":
    """The parser of the command line: with the command that `argv` begins with, else with all, for the help."""
    from importlib import import_module

    from pipeline.commands.arguments import Parser

    # Only the command asked for is imported; the help imports them all, which is cheap by design.
    wanted = argv[:1] if argv[:1] and argv[0] in COMMANDS else COMMANDS
    modules = {name: import_module(COMMANDS[name]) for name in wanted}
    summaries = {name: str(module.__doc__).splitlines()[0] for name, module in modules.items()}
    listing = ["For people, each with an example:"]
    listing += [f"  {name:12}{summaries[name]}\n{'':16}{EXAMPLES[name]}" for name in modules if name in EXAMPLES]
    listing += ["", "Stages, which Snakemake calls:"]
    listing += [f"  {name:12}{summaries[name]}" for name in modules if name not in EXAMPLES]
    parser = Parser(prog="python -m pipeline", description=SUMMARY)
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        title="commands",
        description="\n".join(listing),
        metavar="COMMAND",
        help="followed by --help: all that it takes",
    )
    for name, module in modules.items():
        epilog = f"example: {EXAMPLES[name]}" if name in EXAMPLES else None
        command = commands.add_parser(name, description=summaries[name], epilog=epilog)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: list[str]) -> int:
    """Run one command; returns its exit status. A `UserError` becomes one line on standard error."""
    from pipeline.jobs.clock import Clock

    clock = Clock()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal or log may have no °
            stream.reconfigure(errors="replace")
    args = parser_of(argv).parse_args(argv)
    is_stage = COMMANDS[args.command].startswith("pipeline.stages.")
    try:
        if is_stage:
            _run_stage(args, clock)
        status = 0 if is_stage else args.run(args) or 0
    except (UserError, OSError) as error:
        told = disk_error(error) if isinstance(error, OSError) else error
        if told is None:
            raise
        with suppress(OSError):  # where the log lies on the disk that is full
            sys.stdout.flush()  # what was said before comes before it, also in a log of both
            print(f"error: {told}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if is_stage and not status:
        print(f"cost: {clock}")
    return status


def _run_stage(args: "Namespace", clock: "Clock") -> None:
    """Run a stage, keep its state and write it through; of one that somebody calls by hand there is none."""
    if (args.stamp is None) != (args.state is None):
        raise UserError("--stamp and --state are the workflow's; expected both or neither")
    if args.stamp is None:  # the results are of no study
        args.made_by = {"stamp": None, "code": None}
        args.run(args)
        return
    from pipeline.database import live
    from pipeline.jobs import state
    from pipeline.study.code import changed, code

    stamp, planned, *members = args.stamp.split()
    args.made_by = {"stamp": stamp, "code": planned}
    with state.kept(args.state, args.command, args.made_by, clock, live.teller(args)):
        if code(args.command, *members) != planned:
            raise UserError(_CHANGED)
        args.run(args)
        if changed(args.command, *members):  # something may have been loaded after the change
            raise UserError(_CHANGED)
