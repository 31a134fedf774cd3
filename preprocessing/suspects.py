"""Columns to look at before they become features: empty ones, constant ones, ids, and those that know the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from preprocessing.single_feature import STRONG_AUC, SURE_AUC

MOSTLY_MISSING = 0.95
DOMINANT = 0.99
NEARLY_UNIQUE = 0.5  # distinct values by values


def suspects(
    columns: Sequence[dict[str, Any]], features: Sequence[dict[str, Any]], events: int
) -> list[tuple[str, str, str]]:
    """(column or feature, what is odd, what to do), the gravest first.

    columns: of event_findings.Events; features: of findings.Journeys.single_features; events: how many there are.
    """
    found = []
    for one in features:
        if one["roc_auc"] > SURE_AUC:
            what = f"alone it ranks train journeys with ROC-AUC {one['roc_auc']:.3f}"
            found.append(
                (one["feature"], what, "Is it known only after the conversion? No honest feature ranks so well.")
            )
        elif one["roc_auc"] > STRONG_AUC:
            what = f"alone it ranks train journeys with ROC-AUC {one['roc_auc']:.3f}"
            found.append((one["feature"], what, "Strong; make sure that it is known before as_of."))
    for column in columns:
        name, present = column["name"], column["present"]
        if not present:
            found.append((name, "always empty", "Leave it out."))
        elif column["distinct"] == 1 and column["missing"] == 0:
            found.append((name, "always the same value", "Leave it out."))
        elif column["kind"] == "categorical" and column["distinct"] > NEARLY_UNIQUE * present and events > 100:
            found.append((name, "nearly every event has a value of its own", "An id is no feature: leave it out."))
        else:
            if column["missing"] > MOSTLY_MISSING:
                found.append(
                    (
                        name,
                        f"missing in {_percent(column['missing'])} of the events",
                        "Is it filled in one kind of event only?",
                    )
                )
            if column["distinct"] > 1 and column["dominant"] > DOMINANT:
                found.append(
                    (name, f"one value makes {_percent(column['dominant'])} of what is there", "It tells little.")
                )
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
