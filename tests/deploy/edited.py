"""Natural instances as a campaign's absence would leave them, in slow, obvious Python."""

from __future__ import annotations

from typing import Any

CONSEQUENCES = ("email_open", "email_click", "sms_click", "display_click")  # as job_configs/journeys/demo.yaml has them


def without_campaign(instance: dict[str, Any], campaign: str) -> dict[str, Any]:
    """The instance, its events oldest first and all inside the lookback, without the campaign's touches and what came
    of them, and asked about no campaign."""
    kept, last = [], None
    for event in instance["events"]:
        if event["campaign"]:
            last = event["campaign"]
        owed = event["campaign"] == campaign or (
            not event["campaign"] and last == campaign and event["event_type"] in CONSEQUENCES
        )
        if not owed:
            kept.append(event)
    return instance | {"asked_campaign": None, "events": kept}
