"""Write the JSON schema of the study configuration (after a change of its classes or a new family member)."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> None:
    from pipeline.files import write_json
    from pipeline.study.config import SCHEMA, json_schema

    write_json(SCHEMA, json_schema())
    print(f"{SCHEMA} written")
