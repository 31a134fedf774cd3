"""The price file: what machines, queries, pipelines and disks cost, when that was noted and where it stood."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from preprocessing import yamlfile
from preprocessing.blocks import Block
from preprocessing.cli import UserError
from preprocessing.scan_price import BigQuery

Price = Annotated[float, Field(ge=0)]
Amount = Annotated[float, Field(gt=0)]
Place = Literal["compute", "vertex_training", "vertex_prediction"]
OLD_MONTHS = 6  # after which a price file is said to be old, where nobody says otherwise


class Family(Block):
    """Prices of a machine family: a vCPU for an hour, a GB of memory for an hour."""

    vcpu_hour: Price
    gb_hour: Price


class Rates(Block):
    """Machines at one place: its families, and accelerators by the piece and hour."""

    source: str
    families: dict[str, Family]
    accelerators: dict[str, Price] = Field(default_factory=dict)


class Machine(Block):
    family: str
    vcpus: Amount
    ram_gb: Amount


class Dataflow(Block):
    """Batch workers: a vCPU, a GB of memory and a GB of standard disk, each for an hour."""

    source: str
    vcpu_hour: Price
    gb_hour: Price
    disk_gb_hour: Price


class Disk(Block):
    source: str
    gb_month: Price


class Spot(Block):
    """share: of Compute Engine's list price that a Spot machine, and its accelerators, cost at most."""

    source: str
    share: Annotated[float, Field(gt=0, le=1)]


class Prices(Block):
    """A price file; `noted` is the month (YYYY-MM) in which the prices stood at their sources."""

    noted: Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
    currency: str
    region: str
    hours_per_month: Amount
    compute: Rates
    vertex_training: Rates
    vertex_prediction: Rates
    machines: dict[str, Machine]
    bigquery: BigQuery
    dataflow: Dataflow
    disk: Disk
    spot: Spot

    @model_validator(mode="after")
    def _families(self) -> Prices:
        for name, machine in self.machines.items():
            if not any(machine.family in rates.families for rates in self._places):
                raise ValueError(f"machines: {name}: family {machine.family!r} has no price at any place")
        return self

    @property
    def _places(self) -> tuple[Rates, Rates, Rates]:
        return self.compute, self.vertex_training, self.vertex_prediction

    def size(self, machine: str) -> Machine:
        """A machine type's vCPUs and memory. Raises UserError for one that is not in the file."""
        if machine not in self.machines:
            raise UserError(f"prices: no machine {machine!r}; expected one of {', '.join(sorted(self.machines))}")
        return self.machines[machine]

    def machine_parts(self, place: Place, machine: str, accelerators: dict[str, int]) -> str:
        """How `machine_hour` comes about, in words; for what has a price there."""
        rates: Rates = getattr(self, place)
        size = self.size(machine)
        family = rates.families[size.family]
        parts = [f"{size.vcpus:g} vCPUs · {family.vcpu_hour:g}", f"{size.ram_gb:g} GB · {family.gb_hour:g}"]
        parts += [f"{count} {name} · {rates.accelerators[name]:g}" for name, count in accelerators.items()]
        return " + ".join(parts)

    def told_old(self, path: str | Path, months: int, today: dt.date) -> str | None:
        """A warning where the prices were noted more than `months` ago; None where they are newer."""
        year, month = map(int, self.noted.split("-"))
        age = 12 * (today.year - year) + today.month - month
        if age <= months:
            return None
        return f"warning: {path}: prices noted {self.noted}, {age} months ago (more than {months}): look them up anew"

    def machine_hour(self, place: Place, machine: str, accelerators: dict[str, int] | None = None) -> float:
        """Currency an hour: vcpus · vcpu_hour + ram_gb · gb_hour + the accelerators. Raises UserError for what has no
        price there."""
        rates: Rates = getattr(self, place)
        size = self.size(machine)
        family = rates.families.get(size.family)
        if family is None:
            raise UserError(f"prices: {place}: no price of {machine}'s family {size.family!r}")
        hour = size.vcpus * family.vcpu_hour + size.ram_gb * family.gb_hour
        for name, count in (accelerators or {}).items():
            if name not in rates.accelerators:
                raise UserError(f"prices: {place}: no accelerator {name!r}; it has {', '.join(rates.accelerators)}")
            hour += count * rates.accelerators[name]
        return hour


def load_prices(path: str | Path) -> Prices:
    """Reads a price file. Raises UserError with a line for each mistake."""
    prices: Prices = yamlfile.parse(yamlfile.read_text(path, "price file"), str(path), lambda _: Prices)
    return prices
