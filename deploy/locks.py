"""`python -m deploy.locks`: writes what of requirements.lock each image installs, deploy/trainer.lock and its like.

The subset is what a stage names and what that needs in turn, as the installed packages' own metadata says. Neither Beam
nor tf.Transform is in the trainer's or the server's.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from preprocessing.cli import UserError, run

LOCK = Path("requirements.lock")
HERE = Path("deploy")

# What each image imports itself; all else follows. Versions are the lock's.
STAGES = {
    "trainer": (
        *("tensorflow", "keras", "tensorboard", "numpy", "pyarrow", "pydantic", "pyyaml", "filelock", "scikit-learn"),
        *("threadpoolctl", "matplotlib", "jinja2", "tqdm", "scipy", "statsmodels", "google-cloud-storage"),
        *("nvidia-ml-py", "psutil", "google-cloud-monitoring", "google-cloud-aiplatform"),
    ),
    "serving": (
        *("tensorflow", "numpy", "pyarrow", "pydantic", "pyyaml", "filelock", "jinja2", "google-cloud-storage"),
        *("google-cloud-bigquery", "fastapi", "uvicorn[standard]", "prometheus-client", "httpx", "orjson", "tenacity"),
    ),
    "pipeline": (  # deploy/dataflow: preprocessing and scoring, on workers too; the double run and promotion
        *("tensorflow", "keras", "numpy", "pyarrow", "pydantic", "pyyaml", "filelock", "scikit-learn", "threadpoolctl"),
        *(
            "matplotlib",
            "jinja2",
            "tqdm",
            "scipy",
            "statsmodels",
            "httpx",
            "orjson",
            "tenacity",
            "google-cloud-storage",
        ),
        *("google-cloud-bigquery", "google-cloud-aiplatform", "apache-beam[gcp]", "tensorflow-transform", "tfx-bsl"),
        *("duckdb", "sqlglot"),
    ),
}

UNUSED = frozenset({"libclang"})  # TensorFlow names it, and imports it nowhere: 64 MB


def main(argv: list[str] | None = None) -> None:
    """Writes the files beside the Dockerfile. Raises UserError where there is no lock, or it lacks something that
    is needed."""
    argparse.ArgumentParser(
        prog="python -m deploy.locks",
        description="Writes deploy/trainer.lock and its like, what of requirements.lock the images install.",
    ).parse_args(argv)
    if not LOCK.is_file() or not HERE.is_dir():
        raise UserError(f"{LOCK}: not here, or no {HERE}/ beside it; run python -m deploy.locks in the checkout's root")
    for stage, roots in STAGES.items():
        path = HERE / f"{stage}.lock"
        path.write_text(subset(stage, LOCK.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"{path}: {len(closure(roots))} packages")


def subset(stage: str, lock: str) -> str:
    """The lock's entries of what `stage` needs, in the lock's order, hashes and all."""
    needed = closure(STAGES[stage])
    entries = {canonical(re.split(r"[=\[ ]", entry, maxsplit=1)[0]): entry for entry in _entries(lock)}
    missing = sorted(needed - entries.keys())
    if missing:
        raise UserError(f"{LOCK}: lacks {', '.join(missing)}, which the {stage} image needs; write it anew: make lock")
    return "".join(entry for name, entry in entries.items() if name in needed)


def closure(roots: Iterable[str]) -> set[str]:
    """Canonical names of the roots and of all that they need here: this platform, this Python, the extras asked for."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    todo = [Requirement(root) for root in roots]
    seen: set[tuple[str, str]] = set()
    while todo:
        wanted = todo.pop()
        name = canonical(wanted.name)
        if name in UNUSED:
            continue
        found.add(name)
        for extra in ("", *sorted(wanted.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in _requires(name):
                need = Requirement(text)
                if need.marker is None or need.marker.evaluate({"extra": extra}):
                    todo.append(need)
    return found


def canonical(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _requires(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        raise UserError(f"{name}: not installed here, so what it needs is not known; run: make install") from None


def _entries(lock: str) -> list[str]:
    return [entry for entry in re.split(r"(?m)^(?=\S)", lock) if entry and not entry.startswith("#")]


if __name__ == "__main__":
    run(main)
