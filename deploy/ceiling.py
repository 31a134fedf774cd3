"""What a job costs an hour, in so many hours, and at most: machines, accelerators and disks, times replicas, times
trials, times its time limit."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from deploy.jobs import custom_job_spec
from deploy.prices import Place, Prices
from preprocessing.cli import UserError

_HOUR = 3600


@dataclasses.dataclass(frozen=True)
class Estimate:
    """`amount` in `currency`; `worked` says how it came about, two lines a pool of machines: the product, and what an
    hour of one machine is made of."""

    amount: float
    currency: str
    worked: tuple[str, ...]

    @property
    def cents(self) -> str:
        """The amount with two decimals, rounded up: a ceiling holds."""
        return f"{math.ceil(round(self.amount * 100, 6)) / 100:.2f}"


def ceiling(message: Any, prices: Prices, max_hours: float | None = None) -> Estimate:
    """The most that a CustomJob, HyperparameterTuningJob or BatchPredictionJob (protobuf messages) may cost.

    max_hours: the time limit of a batch prediction, which has none of its own. Network, storage and logs come on top,
    and are small beside it. Raises UserError where a machine, an accelerator or a disk has no price, or no limit is
    known.
    """
    if message.DESCRIPTOR.name == "BatchPredictionJob":
        if max_hours is None:
            raise UserError("--max_hours: expected, for a batch prediction: it has no time limit of its own")
        return cost(message, prices, max_hours)
    return cost(message, prices, custom_job_spec(message).scheduling.timeout.seconds / _HOUR)


def cost(message: Any, prices: Prices, hours: float) -> Estimate:
    """What the job costs where all its machines run for `hours`; a tuning job: where each of its trials does.

    Raises UserError as `ceiling` does.
    """
    if message.DESCRIPTOR.name == "BatchPredictionJob":
        pool = message.dedicated_resources
        replicas = max(pool.max_replica_count, pool.starting_replica_count)
        if not replicas:
            raise UserError("dedicatedResources: expected maxReplicaCount, so that the cost has a ceiling")
        hour, parts = _machine_hour(prices, "vertex_prediction", pool.machine_spec, spot=False)
        amount = replicas * hour * hours
        line = f"{replicas} · {hours:g} h · {hour:.4f} an hour ({_named(pool.machine_spec)}) = {amount:.2f}"
        return Estimate(amount, prices.currency, (line, f"  an hour: {parts}"))
    trials = trials_of(message)
    amount, worked = 0.0, []
    for number, (pool, spot, hour, parts) in enumerate(_pools(message, prices)):
        each = trials * pool.replica_count * hour * hours
        amount += each
        times = f"{trials} trials · " if trials > 1 else ""
        worked.append(
            f"pool {number}: {times}{pool.replica_count} · {hours:g} h · {hour:.4f} an hour"
            f" ({_named(pool.machine_spec)}{', Spot' if spot else ''}) = {each:.2f}"
        )
        worked.append(f"  an hour: {parts}")
    return Estimate(amount, prices.currency, tuple(worked))


def hourly(message: Any, prices: Prices) -> float:
    """Currency an hour of a CustomJob, all its machines together; of a HyperparameterTuningJob: of one trial."""
    return sum(pool.replica_count * hour for pool, _, hour, _ in _pools(message, prices))


def guard(message: Any, prices: Prices, budget: float | None) -> None:
    """Tells the trainings of a CustomJob or HyperparameterTuningJob what an hour costs, and how much each may spend, by
    flags of trainer.task: of a tuning job's budget every trial gets the same part.

    Raises UserError where a budget is given to a job that trains nothing.
    """
    flags = [f"--hourly_price={hourly(message, prices):.6g}"]
    if budget is not None:
        flags.append(f"--budget={budget / trials_of(message):.6g}")
    programs = [
        pool.container_spec if pool.HasField("container_spec") else pool.python_package_spec
        for pool in custom_job_spec(message).worker_pool_specs
    ]
    training = [program for program in programs if _trains(program)]
    if budget is not None and not training:
        raise UserError("--budget: expected a job that runs trainer.task, which keeps to it")
    for program in training:
        program.args.extend(flags)


def _trains(program: Any) -> bool:
    module = program.python_module if hasattr(program, "python_module") else "".join(program.command[-1:])
    return bool(module == "trainer.task")


def trials_of(message: Any) -> int:
    """How many trials a tuning job runs; 1 for every other job."""
    return max(1, getattr(message, "max_trial_count", 1))


def _pools(message: Any, prices: Prices) -> list[tuple[Any, bool, float, str]]:
    """By pool of machines: the pool, whether it is Spot, what an hour of one of its machines costs, and how so."""
    spec = custom_job_spec(message)
    spot = spec.scheduling.strategy == spec.scheduling.SPOT
    found = []
    for pool in spec.worker_pool_specs:
        hour, parts = _machine_hour(prices, "vertex_training", pool.machine_spec, spot)
        disk, disk_parts = _disk_hour(prices, pool.disk_spec)
        found.append((pool, spot, hour + disk, f"{parts} + {disk_parts}"))
    return found


def _machine_hour(prices: Prices, place: Place, machine: Any, spot: bool) -> tuple[float, str]:
    accelerators = {_accelerator(machine): machine.accelerator_count} if machine.accelerator_count else {}
    hour = prices.machine_hour(place, machine.machine_type, accelerators)
    parts = prices.machine_parts(place, machine.machine_type, accelerators)
    if not spot:
        return hour, parts
    # The machine is Compute Engine's and gets cheaper; what Vertex AI adds for itself does not.
    compute = prices.machine_hour("compute", machine.machine_type, accelerators)
    saved = 1 - prices.spot.share
    return hour - compute * saved, f"{parts} - Spot: {saved:.0%} of {compute:.4f}, Compute Engine's part"


def _disk_hour(prices: Prices, disk: Any) -> tuple[float, str]:
    if disk.boot_disk_type != "pd-standard" or not disk.boot_disk_size_gb:
        raise UserError(
            f"diskSpec: expected bootDiskType pd-standard, the one with a price, and bootDiskSizeGb; "
            f"got {disk.boot_disk_type or 'none'}, {disk.boot_disk_size_gb} GB"
        )
    size, month, hours = disk.boot_disk_size_gb, prices.disk.gb_month, prices.hours_per_month
    return size * month / hours, f"{size} GB of disk · {month:g} / {hours:g}"


def _accelerator(machine: Any) -> str:
    """The API's NVIDIA_TESLA_T4 as the price file writes it, nvidia-tesla-t4."""
    name: str = (
        machine.DESCRIPTOR.fields_by_name["accelerator_type"].enum_type.values_by_number[machine.accelerator_type].name
    )
    return name.lower().replace("_", "-")


def _named(machine: Any) -> str:
    more = f" + {machine.accelerator_count} {_accelerator(machine)}" if machine.accelerator_count else ""
    return machine.machine_type + more
