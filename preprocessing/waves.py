"""The simulated campaigns, and the waves in which they are sent."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from preprocessing.bundles import Bundle

CYCLE_DAYS = 28
CYCLE_START = dt.date(2025, 10, 6)  # a Monday; campaigns come back every CYCLE_DAYS, before and after


@dataclass(frozen=True)
class Campaign:
    """A campaign that comes back every CYCLE_DAYS.

    waves: days of the cycle on which it is sent; its influence lasts from the first wave to `until`, exclusive.
    log_odds: what a fresh touch adds to the hazard's log odds, by segment.
    targeted: likely buyers are treated more often, instead of one half at random.
    """

    name: str
    channel: str
    waves: tuple[int, ...]
    until: int
    log_odds: tuple[float, ...]
    consequences: tuple[str, ...]
    targeted: bool = False

    @property
    def inert(self) -> bool:
        return not any(self.log_odds)

    @property
    def touches(self) -> tuple[Bundle, ...]:
        """What a treated customer shows: the touch alone, then with one consequence after another."""
        types = ("campaign_received", *self.consequences)
        return tuple(
            Bundle(tuple((event_type, self.channel) for event_type in types[:length]), campaign=self.name)
            for length in range(1, len(types) + 1)
        )


CAMPAIGNS = (
    Campaign("spring_sale_email", "email", (0, 7), 14, (0.5, 1.0, 0.75, 1.5), ("email_open", "email_click")),
    Campaign("newsletter_tip", "email", (14,), 21, (0.15, 0.25, 0.2, 0.3), ("email_open", "email_click")),
    Campaign("vip_offer", "sms", (21,), 28, (0.6, 0.8, 1.0, 0.8), ("sms_click",), targeted=True),
    Campaign("brand_display", "display", (10,), 10, (0.0, 0.0, 0.0, 0.0), ("display_click",)),
)


@dataclass(frozen=True)
class Wave:
    """One sending: `number` counts the campaign's waves from 1, `bit` is what a touch sets in the state's flags."""

    campaign: Campaign
    number: int
    day: int
    bit: int
