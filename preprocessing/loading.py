"""`python -m preprocessing.loading --files events.parquet … --to bigquery://project.dataset`: tables into BigQuery.

For trying BigQuery with simulated customers, or with tables that lie as Parquet files so far.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from preprocessing.bigquery_client import SCHEME, bigquery_client, clearly, place_of
from preprocessing.cli import UserError, run


def load(path: Path, project: str, dataset: str, location: str) -> int:
    """Puts a Parquet file's rows in place of those of the table of the same name; returns how many there are.

    One load job, which is all or nothing. The dataset is made in `location` where it is missing. Raises UserError for
    what a user can mend.
    """
    from google.cloud import bigquery

    place = f"{SCHEME}{project}.{dataset}.{path.stem}"
    config = bigquery.LoadJobConfig(
        source_format=bigquery.SourceFormat.PARQUET, write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE
    )
    wanted = bigquery.Dataset(f"{project}.{dataset}")
    wanted.location = location
    with clearly(place), path.open("rb") as file:
        client = bigquery_client(project)
        there = client.create_dataset(wanted, exists_ok=True)
        job = client.load_table_from_file(
            file, f"{project}.{dataset}.{path.stem}", job_config=config, location=there.location
        )
        job.result()
    return int(job.output_rows)


def main(argv: list[str] | None = None) -> None:
    """Loads each file, and says what went where."""
    parser = argparse.ArgumentParser(
        prog="python -m preprocessing.loading",
        description="Loads Parquet files into BigQuery: each takes the place of the table of its name.",
        allow_abbrev=False,
    )
    parser.add_argument("--files", required=True, nargs="+", type=Path, metavar="FILE", help="Parquet files")
    parser.add_argument("--to", required=True, metavar=f"{SCHEME}project.dataset", help="where the tables go")
    parser.add_argument("--location", default="US", help="of the dataset, if it is made (default: %(default)s)")
    flags = parser.parse_args(argv)
    project, dataset, table = place_of(flags.to, "--to")
    if table is not None:
        raise UserError(f"--to {flags.to}: expected {SCHEME}project.dataset; each table has its file's name")
    missing = [path for path in flags.files if not path.is_file()]
    if missing:
        raise UserError(f"--files {missing[0]}: no such file")
    for path in flags.files:
        rows = load(path, project, dataset, flags.location)
        print(f"{SCHEME}{project}.{dataset}.{path.stem}: {rows:,} rows")


if __name__ == "__main__":
    run(main)
