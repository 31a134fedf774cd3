"""The one-row table that holds the customer key's pads in BigQuery, where no function makes an HMAC.

Whoever reads it can make every customer's key: it belongs into a dataset of its own that only the job's service account
may read. The pads travel as the content of a load job, which no job's metadata keep, and never as a query's text or
parameter.
"""

from __future__ import annotations

import base64
import datetime as dt
import os
from typing import TYPE_CHECKING

from preprocessing.bigquery_client import bigquery_client, clearly, table_of
from preprocessing.cli import UserError

if TYPE_CHECKING:
    from preprocessing.bigquery_session import Session

ENVIRONMENT = "PARCOURS_PADS"
MAKE = "python -m preprocessing.keys --to_bigquery bigquery://project.dataset.table"


def named(address: str | None) -> str:
    """project.dataset.table of --pads, else of $PARCOURS_PADS. Raises UserError where neither says."""
    address = address or os.environ.get(ENVIRONMENT)
    if not address:
        raise UserError(f"--pads: expected the table of the key's pads (or ${ENVIRONMENT}); make one with: {MAKE}")
    return ".".join(table_of(address, "--pads"))


def write(address: str, pads: tuple[bytes, bytes], fingerprint: str) -> str:
    """Makes the table, or replaces its row by this key's pads; returns the line that says so.

    fingerprint: tells the key from others, in the table's description (keys.fingerprint).
    """
    from google.cloud import bigquery

    project, dataset, table = table_of(address, "--to_bigquery")
    name = f"{project}.{dataset}.{table}"
    inner, outer = (base64.b64encode(pad).decode() for pad in pads)
    config = bigquery.LoadJobConfig(
        schema=[bigquery.SchemaField(pad, "BYTES", "REQUIRED") for pad in ("inner_pad", "outer_pad")],
        write_disposition="WRITE_TRUNCATE",
        destination_table_description=(
            f"Pads of Parcours' customer key {fingerprint}, written {dt.datetime.now(dt.UTC):%Y-%m-%d}. Who reads "
            "them can make every customer's key."
        ),
    )
    with clearly(f"--to_bigquery {address}"):
        client = bigquery_client(project)
        location = client.get_dataset(f"{project}.{dataset}").location
        row = {"inner_pad": inner, "outer_pad": outer}
        client.load_table_from_json([row], name, job_config=config, location=location).result()
    return (
        f"{name}: pads of key {fingerprint}, in {location}; whoever reads this table can make every customer's key: "
        "let the job's service account read it, and nobody else"
    )


def check(session: Session, pads: str) -> None:
    """Raises UserError unless the table is there, readable, and holds one row of two pads."""
    place = f"--pads bigquery://{pads}"
    rows = session.execute(
        f"SELECT COUNT(*) AS n, COUNTIF(LENGTH(inner_pad) = 64 AND LENGTH(outer_pad) = 64) AS whole FROM `{pads}`",
        place=place,
    )
    ((count, whole),) = rows.fetchall()
    if (count, whole) != (1, 1):
        raise UserError(f"{place}: expected one row of two pads of 64 bytes, found {count} rows; make it with: {MAKE}")
