"""Size: what the run directory, the model and the images' Python environments hold."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

from tests.bench.bars import Bar, table
from tests.bench.steps import ROOT, Steps

UNWANTED = ("apache-beam", "tensorflow-transform", "tfx-bsl", "duckdb", "torch", "pytest", "optuna")
LARGEST = 6


def section(place: Path) -> str:
    """Tables of bytes; the bar is that the trainer's and the server's locks name nothing of UNWANTED."""
    from tests.bench import speed_data

    run_dir = speed_data.trained(Steps(place))
    locks = {path.stem: _named(path) for path in sorted((ROOT / "deploy").glob("*.lock"))}
    found = {lock: sorted(set(UNWANTED) & names) for lock, names in locks.items()}
    bars = [
        Bar(f"unwanted packages in deploy/{lock}.lock", len(found[lock]), 0, True, ", ".join(found[lock]) or "none")
        for lock in ("serving", "trainer")
    ]
    lines = [table(bars), "", "| directory | MB | of which |", "|---|---|---|"]
    for part in ("journeys", "records", "transform", "training", "model", "evaluation"):
        files = {path: path.stat().st_size for path in (run_dir / part).rglob("*") if path.is_file()}
        largest = sorted(files, key=lambda path: -files[path])[:3]
        said = ", ".join(f"{path.relative_to(run_dir / part)} {_mb(files[path])}" for path in largest)
        lines.append(f"| {part}/ | {_mb(sum(files.values()))} | {said} |")
    lines += ["", "| lock | packages | MB installed here | largest | not installed here |", "|---|---|---|---|---|"]
    for lock, names in locks.items():
        sizes = {name: size for name in names if (size := _installed(name)) is not None}
        by_size = sorted(sizes, key=lambda name: -sizes[name])
        said = ", ".join(f"{name} {_mb(sizes[name])}" for name in by_size[:LARGEST])
        absent = len(names) - len(sizes)
        lines.append(f"| deploy/{lock}.lock | {len(names)} | {_mb(sum(sizes.values()))} | {said} | {absent} |")
    return "\n".join(lines)


def _named(lock: Path) -> set[str]:
    return set(re.findall(r"^([a-z0-9][a-z0-9._-]*)(?:\[[^\]]*\])?==", lock.read_text(encoding="utf-8"), re.M))


def _installed(name: str) -> int | None:
    """Bytes of a package's files, None where it is not installed."""
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    places = (Path(str(file.locate())) for file in files)
    return sum(path.stat().st_size for path in places if path.is_file())


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f}"
