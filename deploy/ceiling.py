"""What a job may cost at most: machines, accelerators and disks, times replicas, times trials, times its time limit."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from deploy.jobs import custom_job_spec
from deploy.prices import Place, Prices
from preprocessing.cli import UserError

_HOUR = 3600


@dataclasses.dataclass(frozen=True)
class Ceiling:
    """`amount` in `currency`; `worked` says how it came about, a line a pool of machines."""

    amount: float
    currency: str
    worked: tuple[str, ...]

    @property
    def cents(self) -> str:
        """The amount with two decimals, rounded up: a ceiling holds."""
        return f"{math.ceil(round(self.amount * 100, 6)) / 100:.2f}"


def ceiling(message: Any, prices: Prices, max_hours: float | None = None) -> Ceiling:
    """The ceiling of a CustomJob, HyperparameterTuningJob or BatchPredictionJob (protobuf messages).

    max_hours: the time limit of a batch prediction, which has none of its own. Network, storage and logs come on top,
    and are small beside it. Raises UserError where a machine, an accelerator or a disk has no price, or no limit is
    known.
    """
    if message.DESCRIPTOR.name == "BatchPredictionJob":
        return _batch(message, prices, max_hours)
    spec = custom_job_spec(message)
    trials = max(1, getattr(message, "max_trial_count", 1))
    hours = spec.scheduling.timeout.seconds / _HOUR
    spot = spec.scheduling.strategy == spec.scheduling.SPOT
    amount, worked = 0.0, []
    for number, pool in enumerate(spec.worker_pool_specs):
        hour = _machine_hour(prices, "vertex_training", pool.machine_spec, spot) + _disk_hour(prices, pool.disk_spec)
        cost = trials * pool.replica_count * hour * hours
        amount += cost
        times = f"{trials} trials · " if trials > 1 else ""
        worked.append(
            f"pool {number}: {times}{pool.replica_count} · {hours:g} h · {hour:.4f} an hour"
            f" ({_named(pool.machine_spec)}{', Spot' if spot else ''}) = {cost:.2f}"
        )
    return Ceiling(amount, prices.currency, tuple(worked))


def _batch(message: Any, prices: Prices, max_hours: float | None) -> Ceiling:
    if max_hours is None:
        raise UserError("--max_hours: expected, for a batch prediction: it has no time limit of its own")
    machines = message.dedicated_resources
    replicas = max(machines.max_replica_count, machines.starting_replica_count)
    if not replicas:
        raise UserError("dedicatedResources: expected maxReplicaCount, so that the cost has a ceiling")
    hour = _machine_hour(prices, "vertex_prediction", machines.machine_spec, spot=False)
    cost = replicas * hour * max_hours
    line = f"{replicas} · {max_hours:g} h · {hour:.4f} an hour ({_named(machines.machine_spec)}) = {cost:.2f}"
    return Ceiling(cost, prices.currency, (line,))


def _machine_hour(prices: Prices, place: Place, machine: Any, spot: bool) -> float:
    accelerators = {_accelerator(machine): machine.accelerator_count} if machine.accelerator_count else {}
    hour = prices.machine_hour(place, machine.machine_type, accelerators)
    if not spot:
        return hour
    # The machine is Compute Engine's and gets cheaper; what Vertex AI adds for itself does not.
    compute = prices.machine_hour("compute", machine.machine_type, accelerators)
    return hour - compute * (1 - prices.spot.share)


def _disk_hour(prices: Prices, disk: Any) -> float:
    if disk.boot_disk_type != "pd-standard" or not disk.boot_disk_size_gb:
        raise UserError(
            f"diskSpec: expected bootDiskType pd-standard, the one with a price, and bootDiskSizeGb; "
            f"got {disk.boot_disk_type or 'none'}, {disk.boot_disk_size_gb} GB"
        )
    return disk.boot_disk_size_gb * prices.disk.gb_month / prices.hours_per_month


def _accelerator(machine: Any) -> str:
    """The API's NVIDIA_TESLA_T4 as the price file writes it, nvidia-tesla-t4."""
    name: str = (
        machine.DESCRIPTOR.fields_by_name["accelerator_type"].enum_type.values_by_number[machine.accelerator_type].name
    )
    return name.lower().replace("_", "-")


def _named(machine: Any) -> str:
    more = f" + {machine.accelerator_count} {_accelerator(machine)}" if machine.accelerator_count else ""
    return machine.machine_type + more
