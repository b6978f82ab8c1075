"""Draw the figures of each dataset and its table of contrasts."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tables", required=True, type=Path, help="folder written by the aggregate stage")
    parser.add_argument("--out", required=True, type=Path, help="folder for {dataset}_{figure}.png, .svg and .html")
    parser.add_argument("--datasets", required=True, nargs="+", help="datasets to draw")


def run(args: argparse.Namespace) -> None:
    from html import escape

    from pipeline.files import whole
    from pipeline.results import figures, pages, tables

    data = tables.read(args.tables)
    for dataset in args.datasets:
        for name in figures.FIGURES:
            figures.save(figures.draw(name, data, dataset), args.out / f"{dataset}_{name}")
        contrasts = data["contrasts"][data["contrasts"]["dataset"] == dataset]
        body = f"<h1>Contrasts in {escape(dataset)}</h1>{pages.contrasts_html(contrasts)}"
        with whole(args.out / f"{dataset}_contrasts.html") as aside:
            aside.write_text(pages.page(f"Contrasts in {dataset}", body), encoding="utf-8")
