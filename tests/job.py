"""The main job on a few simulated customers, each step as its own command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TEST_AS_OF = "2026-06-08"


def _spec() -> Path:
    """The demo's spec with more of the assignments: of 900 customers a tenth would leave too few in each arm."""
    text = (ROOT / "job_configs/journeys/demo.yaml").read_text()
    assert "share: 0.1 " in text
    place = Path(tempfile.gettempdir()) / f"parcours-tests-{os.getuid()}"
    place.mkdir(exist_ok=True)
    aside = place / f".demo.{os.getpid()}.yaml"
    aside.write_text(text.replace("share: 0.1 ", "share: 0.4 "))
    return aside.replace(place / "demo.yaml")


SPEC = _spec()


def command(module: str, *flags: object, code: int = 0) -> str:
    """What `python -m module flags` says; it must end with `code`, and without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, flags)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def walk(base: Path) -> None:
    """From simulated events to scores, all below `base`; what the commands said is kept in said.json."""
    events, run_dir, key = base / "source/events.parquet", base / "run", base / "customer.key"
    events.parent.mkdir()
    command("preprocessing.simulate", "--customers", 900, "--seed", 7, "--base_rate", 0.2, "--output", events)
    # A key of its own each time would shuffle the journeys anew, and every figure below with them.
    key.write_text(f"{'5a' * 32}\n")
    key.chmod(0o600)
    said = command("preprocessing.task", "--spec", SPEC, "--events", events, "--run_dir", run_dir, "--key_file", key)
    said += command(
        *("trainer.task", "--run_dir", run_dir, "--epochs", 6, "--learning_rate", 0.01),  # learns enough to tell apart
        *("--lstm_units", 16, "--members", 1, "--bootstrap", 20),
    )
    said += command(
        "deploy.predict", *described(base)["flags"], "--as_of", TEST_AS_OF, "--output", base / "scores.parquet"
    )
    (base / "said.json").write_text(json.dumps(said))


def described(base: Path) -> dict[str, Any]:
    """base, run_dir, key: paths; flags: what deploy.predict takes; said: what the commands printed."""
    run_dir, key, said = base / "run", base / "customer.key", base / "said.json"
    flags = (
        "--model",
        run_dir / "model",
        "--spec",
        SPEC,
        "--events",
        base / "source/events.parquet",
        "--key_file",
        key,
    )
    text = json.loads(said.read_text()) if said.exists() else ""
    return {"base": base, "run_dir": run_dir, "key": key, "flags": flags, "said": text}
