"""How journeys.sql reads one source table: what it computes of each row, and what it looks for that may be wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from preprocessing import columns
from preprocessing.blocks import NumericField
from preprocessing.cli import UserError
from preprocessing.columns import Column, Problem
from preprocessing.dialect import literal, quoted
from preprocessing.predicates import Predicate
from preprocessing.tables import Table


@dataclass(frozen=True)
class Value:
    name: str
    value: str


@dataclass(frozen=True)
class Flag:
    name: str
    condition: str


@dataclass(frozen=True)
class Numbered:
    number: int
    reason: str
    column: str
    condition: str
    shown: str | None


@dataclass
class Reading:
    """How a source table is read: what is computed of each row, and what may be wrong with it."""

    table: Table
    kinds: Mapping[str, str]  # what predicates see
    inputs: list[Value] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    ranked: list[tuple[int, Problem]] = field(default_factory=list)
    categorical: int = 0
    numeric: int = 0
    predicate_columns: tuple[str, ...] = ()

    @property
    def relation(self) -> str:
        return self.table.relation

    @property
    def predicates(self) -> int:
        return len(self.predicate_columns)

    @property
    def problems(self) -> list[Numbered]:
        """In the order in which they are looked for; the first that a row has is its reason."""
        found = sorted(self.ranked, key=lambda item: item[0])
        return [
            Numbered(i, literal(p.reason), literal(p.column), p.condition, p.shown)
            for i, (_, p) in enumerate(found, start=1)
        ]

    def column(self, name: str, key: str, expected: tuple[str, ...]) -> Column:
        sql = f"source.{quoted(name)}"
        return columns.find(self.table.columns, name, key=key, place=self.table.place, expected=expected, sql=sql)

    def keep(self, name: str, value: str) -> None:
        self.inputs.append(Value(name, value))
        self.outputs.append(name)

    def raw(self, column: Column) -> str:
        """The source's own value beside the canonical one, for those who look for problems."""
        name = f"r{len(self.inputs)}"
        self.inputs.append(Value(name, column.sql))
        return name

    def found(self, rank: int, *problems: Problem) -> None:
        self.ranked += [(rank, p) for p in problems]

    def read_id(self, name: str, key: str, what: str) -> None:
        self.keep("id", f"NULLIF({columns.text(self.column(name, key, columns.IDS))}, '')")
        self.found(0, Problem(f"null {what}", name, "id IS NULL"))

    def read_categorical(self, names: Iterable[str], key: str, prefix: str) -> None:
        for i, name in enumerate(names):
            column = self.column(name, key, columns.TEXTS)
            self.keep(f"{prefix}{i}", f"IFNULL({columns.text(column)}, '')")
            self.categorical += 1

    def read_numeric(self, fields: Iterable[NumericField], key: str, prefix: str) -> None:
        for i, bounds in enumerate(fields):
            column = self.column(bounds.column, key, columns.NUMBERS)
            name = f"{prefix}{i}"
            self.keep(name, columns.number(column))
            for rank, problems in enumerate(
                columns.number_problems(column, self.raw(column), name, bounds.min, bounds.max), start=2
            ):
                self.found(rank, *problems)
            self.numeric += 1

    def read_predicates(self, names: Iterable[str]) -> None:
        self.predicate_columns = tuple(sorted(set(names)))
        for i, name in enumerate(self.predicate_columns):
            column = self.column(name, "predicate", columns.ORDERED)
            self.keep(f"p{i}", columns.typed(column, self.kinds[name]))

    @property
    def predicate_names(self) -> dict[str, str]:
        return {name: f"p{i}" for i, name in enumerate(self.predicate_columns)}

    def flag(self, name: str, predicate: Predicate | None) -> None:
        if predicate is not None:
            self.flags.append(Flag(name, predicate.bound(self.predicate_names)))

    def check(self, predicate: Predicate, context: Mapping[str, str] | None = None) -> None:
        """Raises UserError where the predicate does not fit this table, or the event that asks (its `context`)."""
        try:
            predicate.check(self.kinds, context)
        except UserError as error:
            raise UserError(f"{self.table.place}: {error}") from None
