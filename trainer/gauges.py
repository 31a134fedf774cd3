"""What a machine's gauges show while it trains: CPU, memory and its limit, GPUs."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of cgroup v2, and of v1


@dataclasses.dataclass(frozen=True)
class Reading:
    """cpu: of this process, as a share of all cores it may use; memory: its resident bytes; gpu: the mean over GPUs of
    the share of time in which a kernel ran; gpu_memory: the fullest GPU's share in use. None: no GPU, or its driver
    does not tell."""

    cpu: float
    memory: int
    gpu: float | None = None
    gpu_memory: float | None = None


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_limit(cgroup: Path = _CGROUP) -> int:
    """Bytes that this process may fill: the container's limit, or the machine's memory where that is less."""
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    for name in _LIMITS:
        path = cgroup / name
        text = path.read_text().strip() if path.is_file() else "max"
        if text.isdecimal():
            limits.append(int(text))
    return min(limits)


def gauges() -> Callable[[], Reading]:
    """A function that reads them; its first CPU share is since this call. That there is no driver, or what it does not
    tell, is said once."""
    import psutil

    process, count, gpus = psutil.Process(), cores(), _gpus()
    process.cpu_percent()

    def read() -> Reading:
        cpu = process.cpu_percent() / 100 / count
        gpu, gpu_memory = gpus() if gpus else (None, None)
        return Reading(cpu, int(process.memory_info().rss), gpu, gpu_memory)

    return read


def _gpus() -> Callable[[], tuple[float | None, float | None]] | None:
    import pynvml

    try:
        pynvml.nvmlInit()
        devices = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        log.info("watching CPU and memory alone: no GPU is seen by NVIDIA's driver (%s)", error)
        return None
    if not devices:
        log.info("watching CPU and memory alone: NVIDIA's driver knows no GPU")
        return None
    untold: set[str] = set()

    def told(what: str, read: Callable[[], float]) -> float | None:
        """None where the driver does not tell: of a part of a GPU (MIG) it knows no utilisation."""
        try:
            return read()
        except pynvml.NVMLError as error:
            if what not in untold:
                log.info("watching without the GPU's %s: NVIDIA's driver does not tell it (%s)", what, error)
            untold.add(what)
            return None

    def utilisation() -> float:
        return sum(pynvml.nvmlDeviceGetUtilizationRates(device).gpu / 100 for device in devices) / len(devices)

    def memory() -> float:
        found = [pynvml.nvmlDeviceGetMemoryInfo(device) for device in devices]
        return max(one.used / one.total for one in found)

    return lambda: (told("utilisation", utilisation), told("memory", memory))
