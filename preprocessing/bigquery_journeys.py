"""From an events table in BigQuery to the journeys table: journeys.sql runs there, and the journeys are read back.

The same script, counts and checks as on local files (journeys.py), with the same artefacts at the end. Customer ids
never leave BigQuery: the pads of their keys are a one-row table there, and journeys and counts are all that is read.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing import bigquery_pads, engine, keys
from preprocessing.balance import PLACES, ROLES, check_read, summary
from preprocessing.bigquery_client import place_of
from preprocessing.bigquery_session import Session, lasting
from preprocessing.cli import UserError
from preprocessing.scan_price import in_words, load_scan_price
from preprocessing.spec import AnySpec
from preprocessing.tolerance import SET_ASIDE, Tolerance
from preprocessing.warehouse import PRICES, Warehouse

if TYPE_CHECKING:
    from preprocessing.tables import Table

_HEAD = re.compile(r"CREATE (?:OR REPLACE )?(?:TEMP )?TABLE (?P<name>\S+)(?: CLUSTER BY [^\n]*)? AS\n")
_log = logging.getLogger(__name__)


def build(
    spec: AnySpec,
    events: str,
    output: Path,
    warehouse: Warehouse,
    *,
    predict: bool,
    predict_as_of: dt.datetime | None,
    max_bad_rows: Tolerance,
    look: Callable[[Session], None] | None = None,
) -> dict[str, Any]:
    """As journeys.build_journeys, for events that lie in BigQuery; `look` is called with the session.

    Raises UserError for what a user can mend.
    """
    project, dataset, table = place_of(events, "--events")
    pads = bigquery_pads.named(warehouse.pads)
    session = Session(warehouse.project or project, (project, dataset), warehouse.cap)
    target = tuple((warehouse.dataset or f"{project}.{dataset}").split("."))
    if len(target) != 2 or not all(target):
        raise UserError(f"--bigquery_dataset {warehouse.dataset}: expected project.dataset")
    try:
        run = _Run(spec, session, warehouse, predict)
        script = run.prepared(table, pads, predict_as_of)
        with session.temporary_table((target[0], target[1])) as name:
            run.decide(script, output, max_bad_rows)
            if look is not None:
                look(session)
            places = run.make(name)
            result = summary(session, places, run.read)
            _log.info("    BigQuery: %s billed in all%s", in_words(session.billed), run.priced(session.billed))
            from preprocessing.bigquery_source import write_journeys

            write_journeys(name, spec, output, warehouse)
    finally:
        session.close()
    (output / "summary.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


@dataclass
class _Run:
    """One run of the script in a session."""

    spec: AnySpec
    session: Session
    warehouse: Warehouse
    predict: bool

    def __post_init__(self) -> None:
        self.read: dict[str, int] = {}
        self.sources: dict[str, Table] = {}
        self.rest: list[str] = []

    def prepared(self, table: str | None, pads: str, predict_as_of: dt.datetime | None) -> list[str]:
        """The statements of the script, after a dry run of those that read the tables."""
        from preprocessing import script
        from preprocessing.bigquery_tables import WarehouseTables
        from preprocessing.tables import open_sources

        self.sources = open_sources(self.spec, WarehouseTables(self.session, table), assigned=not self.predict)
        bigquery_pads.check(self.session, pads)
        text = script.render(
            self.spec,
            self.sources["events"],
            self.sources.get("journeys") or self.sources.get("customers"),
            assignments=self.sources.get("assignments"),
            predict=self.predict,
            predict_as_of=predict_as_of,
            pads=f"`{pads}`",
        )
        statements = _statements(text)
        scanned = sum(self.session.dry_run(_query(one), self._place(one))[0] for one in statements if self._reads(one))
        cap = f"; stops before {in_words(self.warehouse.cap)} are billed" if self.warehouse.cap is not None else ""
        _log.info(
            "    dry run: reading the tables scans %s%s; what the statements after it scan is billed, too%s",
            in_words(scanned),
            self.priced(scanned),
            cap,
        )
        return statements

    def decide(self, script: list[str], output: Path, max_bad_rows: Tolerance) -> None:
        """Reads the tables, stops where too many rows are bad, decides on every journey; `rest` makes them."""
        first = next(i for i, text in enumerate(script) if "@shard_first" in text)
        names = {f"{ROLES[source]}_read": source for source in self.sources}
        for text in script[:first]:
            made = _name(text)
            self.session.run(text, self._place(text), of_sources=self._reads(text))
            if made in names:
                self.read[names[made]] = engine.count(self.session, f"SELECT COUNT(*) FROM {made}")
                _log.info("    %s: %s rows", self.sources[names[made]].place, f"{self.read[names[made]]:,}")
            if made == "set_aside":
                self._write_set_aside(output)
                labelled = not self.predict
                check_read(self.session, self.spec, self.sources, self.read, max_bad_rows, labelled=labelled)
        # BigQuery spreads the work by itself: one shard of all customers
        self.rest = [
            text.replace("@shard_first", "0").replace("@shard_last", str(keys.SHARDS - 1)) for text in script[first:]
        ]

    def _write_set_aside(self, output: Path) -> None:
        import pyarrow.parquet as pq

        set_aside = self.session.table("SELECT * FROM set_aside", "BigQuery")
        order = [(name, "ascending") for name in ("source", "reason", "field", "value")]
        pq.write_table(set_aside.sort_by(order), output / SET_ASIDE, compression="zstd")

    def make(self, journeys: tuple[str, str, str]) -> dict[str, int]:
        """Makes the journeys table; returns the events by where they went."""
        for text in self.rest[:-1]:
            self.session.run(text, self._place(text))
        last = self.rest[-1]
        head = _HEAD.search(last)
        assert head is not None
        made = (
            head[0].replace(f" {head['name']} ", f" `{'.'.join(journeys)}` ", 1).replace(" AS\n", f" {lasting()} AS\n")
        )
        self.session.run(last[: head.start()] + made + last[head.end() :], self._place(last))
        row = self.session.execute(f"SELECT {', '.join(PLACES)} FROM balance").fetchone()
        assert row is not None
        return dict(zip(PLACES, row, strict=True))

    def priced(self, scanned: int) -> str:
        """What that costs, where there is a price file; the default one may be out of reach."""
        if self.warehouse.prices == PRICES and not Path(PRICES).exists():
            return f" (cost unknown: no {PRICES} here; name a price file with --prices)"
        return f", {load_scan_price(self.warehouse.prices).cost(scanned)}"

    def _reads(self, text: str) -> bool:
        """Whether a statement reads one of the tables; all later ones read what these made of them."""
        return _name(text) in {f"{ROLES[source]}_read" for source in self.sources}

    def _place(self, text: str) -> str:
        """The table that a statement reads, or else what it makes, for errors."""
        made = _name(text)
        return next((t.place for s, t in self.sources.items() if made == f"{ROLES[s]}_read"), f"journeys.sql: {made}")


def _statements(script: str) -> list[str]:
    return [text.strip() for text in re.split(r";\s*\n", script) if text.strip()]


def _query(statement: str) -> str:
    """What a CREATE TABLE … AS is made from, which a dry run can judge without a session."""
    head = _HEAD.search(statement)
    assert head is not None
    return statement[head.end() :]


def _name(statement: str) -> str:
    head = _HEAD.search(statement)
    assert head is not None
    return head["name"]
