"""What a simulated customer can show on one day: bundles of events in an order, and what each does to the intent."""

from __future__ import annotations

from dataclasses import dataclass

EFFECTS = ("stay", "climb", "fall", "click", "visit", "complaint", "purchase")
STAY, CLIMB, FALL, CLICK, VISIT, COMPLAINT, PURCHASE = range(len(EFFECTS))


@dataclass(frozen=True)
class Bundle:
    """Events of one day, in order, as (event_type, channel); what they do to the state; how often they come.

    `rate` is per day for a customer of medium activity; 0 for bundles that other draws bring about (campaigns).
    """

    events: tuple[tuple[str, str], ...]
    effect: int = STAY
    rate: float = 0.0
    campaign: str | None = None


def _web(*types: str) -> tuple[tuple[str, str], ...]:
    return tuple((event_type, "web") for event_type in types)


def _app(*types: str) -> tuple[tuple[str, str], ...]:
    return tuple((event_type, "app") for event_type in types)


# Forward and backward sessions come about as often at every stage: only their order tells them apart.
BUNDLES = (
    Bundle(_web("search", "product_view", "add_to_cart"), CLIMB, 0.026),
    Bundle(_web("add_to_cart", "product_view", "search"), FALL, 0.025),
    Bundle(_app("search", "product_view"), CLIMB, 0.020),
    Bundle(_app("product_view", "search"), FALL, 0.020),
    Bundle(_web("page_view"), STAY, 0.012),
    Bundle(_web("page_view", "product_view"), STAY, 0.006),
    Bundle(_app("app_open"), STAY, 0.006),
    Bundle((("email_open", "email"),), STAY, 0.008),
    Bundle((("email_open", "email"), ("email_click", "email")), CLICK, 0.012),
    Bundle((("store_visit", "store"),), VISIT, 0.016),
    Bundle((("sms_click", "sms"), ("page_view", "web")), STAY, 0.003),
    Bundle((("display_click", "display"), ("page_view", "web")), STAY, 0.003),
    Bundle((("call_service", "call_centre"),), COMPLAINT, 0.003),
)
RETURN = Bundle((("return", "store"),), STAY, 0.02)  # only in the days after a purchase
PURCHASES = (  # and the share of each
    (Bundle(_web("product_view", "purchase"), PURCHASE), 0.55),
    (Bundle((("store_visit", "store"), ("purchase", "store")), PURCHASE), 0.30),
    (Bundle(_app("app_open", "purchase"), PURCHASE), 0.15),
)
