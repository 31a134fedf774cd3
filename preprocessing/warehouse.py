"""How BigQuery is used where --events names it: the settings, and the flags that give them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from preprocessing.bigquery_client import SCHEME

RUNNER = "FnApiRunner"  # Beam's in this process; its own default first tries to download a runner from the web
READERS = ("arrow", "beam")
PRICES = "job_configs/prices.yaml"


@dataclass(frozen=True)
class Warehouse:
    """How BigQuery is used.

    pads: bigquery://… of the table that keys.py makes; project: that pays (default: the events'); dataset: project and
    dataset of the temporary journeys table (default: the events'); cap: bytes billed at most; prices: the price file;
    reader: one of READERS; beam: the flags of Beam's pipeline that reads the journeys; parts: the directory, on disk or
    under gs://, in which its workers write them (default: the journeys' own).
    """

    pads: str | None = None
    project: str | None = None
    dataset: str | None = None
    cap: int | None = None
    prices: str = PRICES
    reader: str = READERS[0]
    beam: tuple[str, ...] = ()
    parts: str | None = None


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of Warehouse, for every command that takes --events."""
    group = parser.add_argument_group(f"--events {SCHEME}project.dataset[.table]")
    group.add_argument("--pads", help="the table that python -m preprocessing.keys --to_bigquery makes")
    group.add_argument("--bigquery_project", metavar="P", help="pays for the queries (default: the events')")
    group.add_argument(
        "--bigquery_dataset", metavar="P.D", help="where the journeys lie for a while (default: the events')"
    )
    group.add_argument("--maximum_bytes_billed", type=int, metavar="N", help="stop before more bytes are billed")
    group.add_argument("--prices", default=PRICES, help="the price file (default: %(default)s)")
    group.add_argument(
        "--bigquery_reader",
        choices=READERS,
        default=READERS[0],
        help="reads the journeys: arrow, this package's own source; beam, ReadFromBigQuery, slower (default: arrow)",
    )


def warehouse_of(args: argparse.Namespace, beam: list[str]) -> Warehouse:
    """What add_flags' flags say; `beam` are Beam's, the runner among them."""
    return Warehouse(
        pads=args.pads,
        project=args.bigquery_project,
        dataset=args.bigquery_dataset,
        cap=args.maximum_bytes_billed,
        prices=args.prices,
        reader=args.bigquery_reader,
        beam=tuple(beam),
    )
