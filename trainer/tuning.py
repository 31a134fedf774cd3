"""What a trial of hyperparameter tuning reports, once an epoch, in the file that Vertex AI reads.

The format is cloudml-hypertune's, which is a pre-release since 2019 and would be the one dependency of its kind: a JSON
line a metric with timestamp, trial, the metric's id and its value, global_step and checkpoint_path.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

METRICS = ("eval_pr_auc", "eval_roc_auc", "eval_loss")  # the ids that a tuning job may name
_DEFAULT = "/tmp/hypertune/output.metrics"


def trial() -> str | None:
    """The id of the tuning job's trial that this process is; None outside a tuning job."""
    return os.environ.get("CLOUD_ML_TRIAL_ID") or None


def report(entry: Mapping[str, Any], step: int) -> None:
    """Appends the metrics of an epoch's history entry, as of `step`, for the tuning service; outside a trial nothing.

    A metric that eval does not define (None) is left out, and said so: a trial without any counts as infeasible.
    """
    found = trial()
    if found is None:
        return
    known = {name: entry[name] for name in METRICS if entry[name] is not None}
    for name in METRICS:
        if name not in known:
            log.warning("warning: trial %s reports no %s: eval holds one outcome only", found, name)
    lines = [
        {
            "timestamp": time.time(),
            "trial": found,
            name: str(float(value)),
            "global_step": str(step),
            "checkpoint_path": "",
        }
        for name, value in known.items()
    ]
    path = Path(os.environ.get("CLOUD_ML_HP_METRIC_FILE") or _DEFAULT)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
