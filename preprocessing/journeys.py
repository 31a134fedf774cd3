"""From an events table to the journeys table: runs journeys.sql in DuckDB, point in time, within bounded memory.

The cleaned events are tables of a database that moves to disk, beside the output, where memory is short, and goes when
the work is done. Journeys are made shard by shard of customers, each shard a Parquet file.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing import engine, keys
from preprocessing.balance import KEPT, PLACES, ROLES, check_read, summary
from preprocessing.cli import UserError
from preprocessing.journeys_schema import ROWS_A_GROUP, journeys_schema
from preprocessing.predicates import inferred_columns
from preprocessing.spec import AnySpec, EventsSpec, JourneysSpec
from preprocessing.tolerance import DEFAULT, SET_ASIDE, Tolerance

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from preprocessing.dialect import Statement
    from preprocessing.tables import Table

STEPS_A_SHARD = 2_000_000  # events of journeys held at once: some hundred megabytes of lists
_log = logging.getLogger(__name__)


def build_journeys(
    spec: AnySpec,
    events: str,
    output: Path,
    key: bytes,
    *,
    predict_as_of: dt.datetime | None = None,
    predict: bool | None = None,
    max_bad_rows: Tolerance = DEFAULT,
    progress: bool = True,
    look: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
) -> dict[str, Any]:
    """Writes part-*.parquet (journeys_schema), set_aside.parquet and summary.json into the empty directory `output`.

    events: a Parquet, CSV or JSON Lines file, a glob, a directory or a DuckDB database (tables.Tables).
    key: the secret behind the customer keys (keys.load_key).
    predict_as_of: journeys of all eligible customers as of that instant, or, for snapshots at events, as of each such
        event from then on: no labels, no splits, nothing thinned or replaced; `split` says predict.
    predict: the same for ready-made journeys, which have no as_of to give. By default, whether predict_as_of is given.
    max_bad_rows: how many of a table's rows may be set aside, as a share or, an int, as a count. Where there are more,
        TooManyBadRows, a UserError, is raised, and set_aside.parquet is all that lies in `output`.
    look: called once the events are read, with the database in which journeys.sql has made its table `events` of them.

    Returns the summary, counts of events and journeys. Raises UserError for what a user can mend, OSError where the
    disk is full.
    """
    predict = predict_as_of is not None if predict is None else predict
    check_moment(spec, predict, predict_as_of)
    # the name ends as those of unfinished artefacts do, so that after a kill the next run in a run directory removes it
    scratch = Path(tempfile.mkdtemp(prefix=".events-", suffix=".partial", dir=output.parent))
    try:
        with engine.opened(scratch) as connection:
            # temporary, as all others: the pads are the key in disguise, two rows that are no reason to spill
            pads = list(keys.pads(key))
            connection.execute("CREATE TEMP TABLE pads AS SELECT ?::BLOB AS inner_pad, ?::BLOB AS outer_pad", pads)
            sources, script = _prepare(connection, spec, events, predict, predict_as_of)
            build = _Build(spec, connection, sources, output, predict)
            per_shard = build.prepare(script, max_bad_rows)
            if look is not None:
                look(connection)
            places = build.write(per_shard, progress)
            result = summary(connection, places, build.read)
        (output / "summary.json").write_text(json.dumps(result, indent=2) + "\n")
        return result
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_moment(spec: AnySpec, predict: bool, predict_as_of: dt.datetime | None) -> None:
    """Raises UserError, or ValueError for a caller's mistake, where spec and the moment of prediction do not agree."""
    if isinstance(spec, JourneysSpec) and predict_as_of is not None:
        raise UserError("as_of: ready-made journeys have none of their own; leave it out")
    if isinstance(spec, EventsSpec) and predict != (predict_as_of is not None):
        raise ValueError("dated events are predicted as of an instant: expected predict_as_of")
    if predict_as_of is not None and predict_as_of.tzinfo is None:
        raise ValueError("predict_as_of: expected an instant with a zone")


def _prepare(
    connection: duckdb.DuckDBPyConnection,
    spec: AnySpec,
    events: str,
    predict: bool,
    predict_as_of: dt.datetime | None,
) -> tuple[dict[str, Table], tuple[Statement, ...]]:
    """The tables by name, events first, and the script that reads them."""
    from preprocessing import dialect, script
    from preprocessing.tables import Tables, open_sources
    from preprocessing.textfiles import infer_kinds

    sources = open_sources(spec, Tables(connection, events), assigned=not predict)
    kinds = {}
    inferred = inferred_columns(spec)
    for source, table in sources.items():
        role = ROLES[source]
        names = inferred.get(role, [])
        known = [name for name in names if table.is_text and table.columns.get(name) == "STRING"]
        with engine.readable(table.place):
            if not connection.execute(f"SELECT 1 FROM {table.relation} LIMIT 1").fetchall():
                raise UserError(f"{table.place}: holds no rows")
            kinds[role] = infer_kinds(connection, table.relation, known)
    text = script.render(
        spec,
        sources["events"],
        sources.get("journeys") or sources.get("customers"),
        assignments=sources.get("assignments"),
        kinds=kinds,
        predict=predict,
        predict_as_of=predict_as_of,
    )
    return sources, dialect.statements(text)


@dataclass
class _Build:
    """One run of the script."""

    spec: AnySpec
    connection: duckdb.DuckDBPyConnection
    sources: dict[str, Table]
    output: Path
    predict: bool

    def __post_init__(self) -> None:
        self.read: dict[str, int] = {}  # rows by table

    def prepare(self, script: tuple[Statement, ...], max_bad_rows: Tolerance) -> tuple[Statement, ...]:
        """Reads the tables and decides on every journey; returns the statements that are left, which go by shards."""
        first = next(i for i, statement in enumerate(script) if statement.parameters)
        names = {f"{ROLES[source]}_read": source for source in self.sources}
        for statement in script[:first]:
            if statement.creates in names:
                self._read(statement, names[statement.creates])
            else:
                self.connection.execute(statement.sql({}))
            if statement.creates == "set_aside":
                self._write_set_aside()
                labelled = not self.predict
                check_read(self.connection, self.spec, self.sources, self.read, max_bad_rows, labelled=labelled)
            if statement.creates == "events":
                self.connection.execute("DROP TABLE events_read")  # as large, and read no more
            _log.debug("journeys.sql: %s done", statement.creates)
        return script[first:]

    def _read(self, statement: Statement, source: str) -> None:
        table = self.sources[source]
        with engine.readable(table.place), engine.without_statistics(self.connection):
            self.connection.execute(statement.sql({}))
        self.read[source] = engine.count(self.connection, f"SELECT COUNT(*) FROM {statement.creates}")
        _log.info("    %s: %s rows", table.place, f"{self.read[source]:,}")

    def _write_set_aside(self) -> None:
        import pyarrow.parquet as pq

        rows = self.connection.sql("SELECT * FROM set_aside ORDER BY source, source_row").to_arrow_reader(ROWS_A_GROUP)
        with pq.ParquetWriter(self.output / SET_ASIDE, rows.schema, compression="zstd") as writer:
            for batch in rows:
                writer.write_batch(batch)

    def write(self, per_shard: tuple[Statement, ...], progress: bool) -> dict[str, int]:
        """Writes the journeys, shard by shard; returns the events by where they went."""
        from tqdm import tqdm

        places = dict.fromkeys(PLACES, 0)
        shards = self._shards()
        with ThreadPoolExecutor(1) as pool:  # a shard is compressed and written while DuckDB makes the next
            written: list[Future[None]] = []
            for number, shard in enumerate(tqdm(shards, "journeys", unit="shard", disable=not progress)):
                for statement in per_shard[:-1]:
                    execute(self.connection, statement, shard)
                journeys = self.connection.sql(per_shard[-1].select(shard)).to_arrow_table(ROWS_A_GROUP)
                row = self.connection.execute(f"SELECT {', '.join(PLACES)} FROM balance").fetchone()
                assert row is not None
                places = {place: places[place] + n for place, n in zip(PLACES, row, strict=True)}
                if written:
                    written.pop().result()  # no more than one waits
                path = self.output / f"part-{number:05d}-of-{len(shards):05d}.parquet"
                written.append(pool.submit(self._write_part, journeys, path))
                del journeys
            for last in written:
                last.result()
        return places

    def _write_part(self, journeys: pa.Table, path: Path) -> None:
        import pyarrow.parquet as pq

        pq.write_table(journeys.cast(journeys_schema(self.spec)), path, compression="zstd", row_group_size=ROWS_A_GROUP)

    def _shards(self) -> list[dict[str, int]]:
        """Ranges of the first letters of the customer key, so many that each is a bounded piece of work."""
        steps = engine.count(
            self.connection,
            "SELECT COALESCE(SUM(LEAST(e.events, ?) * d.journeys), 0) "
            f"FROM (SELECT person, COUNT(*) AS journeys FROM decided WHERE fate IN {KEPT} GROUP BY person) AS d "
            "JOIN (SELECT person, COUNT(*) AS events FROM events GROUP BY person) AS e USING (person)",
            [self.spec.sequence.max_events],
        )
        shards = min(keys.SHARDS, max(1, -(-steps // STEPS_A_SHARD)))
        edges = [i * keys.SHARDS // shards for i in range(shards + 1)]
        return [{"shard_first": low, "shard_last": high - 1} for low, high in itertools.pairwise(edges)]


def execute(connection: duckdb.DuckDBPyConnection, statement: Statement, shard: Mapping[str, int]) -> None:
    """Makes the statement's table, by the faster way where it groups rows into arrays."""
    from preprocessing.sequences import folded

    if statement.rows is None:
        connection.execute(statement.sql(shard))
    else:
        rows = connection.sql(statement.select_rows(shard)).to_arrow_table()
        connection.register(statement.creates, folded(rows, statement.keys))
