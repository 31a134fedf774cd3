"""What a query of BigQuery costs: the price of a TiB scanned, from the price file, and bytes in words."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from preprocessing import yamlfile
from preprocessing.blocks import Block

TIB = 1 << 40


class BigQuery(Block):
    """The price file's block `bigquery`: currency a TiB scanned, and the page that says so."""

    source: str
    tib_scanned: Annotated[float, Field(ge=0)]


class ScanPrice(Block):
    """The part of a price file that a query needs; its other blocks are deploy's."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    noted: str
    currency: str
    bigquery: BigQuery

    def cost(self, scanned: int) -> str:
        """What that many bytes cost on demand, with the price's date."""
        price = scanned / TIB * self.bigquery.tib_scanned
        amount = f"{price:.2f}" if price >= 0.01 or not price else "less than 0.01"
        return f"{amount} {self.currency} at {self.bigquery.tib_scanned:g} a TiB (list price noted {self.noted})"


def load_scan_price(path: str) -> ScanPrice:
    """Reads it from a price file. Raises UserError with a line for each mistake."""
    price: Any = yamlfile.parse(yamlfile.read_text(path, "price file"), path, lambda _: ScanPrice)
    return price


def in_words(size: int) -> str:
    """12,345,678 bytes as 11.8 MiB."""
    amount, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:,.0f} bytes" if unit == "bytes" else f"{amount:,.1f} {unit}"
