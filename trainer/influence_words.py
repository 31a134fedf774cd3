"""What influence.json says of a campaign, in plain words: what may be concluded, and what may not."""

from __future__ import annotations

from typing import Any

from trainer.tables import days, percent

CLAIMS = {
    "randomised": "Lots were drawn over who is treated, so the difference is what the campaign did.",
    "association": "Nobody drew lots. The difference is what remains after like was compared with like, as far as the "
    "journeys tell; what they do not tell may still be behind it. An association, not proof.",
    "none": "No number is given.",
}
MAY_NOT = (
    "An effect holds for customers like those who were assigned, at the times when they were, within the horizon; it "
    "says nothing of later purchases, of margins, or of a campaign of another kind.",
    "An interval that holds zero does not prove that a campaign does nothing: it says that this table is too small to "
    "tell. The table of sample sizes says how many assignments would be needed.",
    "Several campaigns were judged; of twenty that do nothing, one will look effective at the 95 % level.",
    "Everyone assigned counts in the arm that was planned, whether or not the message arrived: the effect of sending, "
    "not of reading.",
    "If treated customers influence held-out ones, at home say, the effect is understated.",
)
LEARNERS = {
    "s_learner": "S-learner: the network asked with and without the campaign",
    "t_learner": "T-learner: a head for the treated, a head for the held out",
    "dr_learner": "Doubly robust learner",
}


def points(value: float, digits: int = 2) -> str:
    """A difference of probabilities in percentage points, signed."""
    return f"{100 * value:+z.{digits}f}".replace("-", "\N{MINUS SIGN}")


def interval(effect: dict[str, float], digits: int = 2) -> str:
    return f"{points(effect['low'], digits)} … {points(effect['high'], digits)}"


def headline(campaign: dict[str, Any]) -> str:
    """One line a campaign: name, effect with interval, claim; or why there is none."""
    name = campaign["campaign"]
    if campaign["claim"] == "none":
        return f"{name}: no claim: {campaign['reason']}"
    effect = campaign["effect"]
    return f"{name}: {points(effect['value'])} percentage points ({interval(effect)}), {campaign['claim']}"


def verdict(campaign: dict[str, Any]) -> str:
    """ "effective", "harmful", "not distinguishable from nothing", or "no claim"."""
    if campaign["claim"] == "none":
        return "no claim"
    effect = campaign["effect"]
    if effect["low"] > 0:
        return "effective" if campaign["claim"] == "randomised" else "associated with more conversions"
    if effect["high"] < 0:
        return "harmful" if campaign["claim"] == "randomised" else "associated with fewer conversions"
    return "not distinguishable from nothing"


def sentences(campaign: dict[str, Any], horizon: int) -> list[str]:
    """The paragraph on one campaign."""
    said = [_counted(campaign, horizon)]
    if campaign.get("warning"):
        said.append(f"Warning: {campaign['warning']}.")
    if campaign["claim"] == "none":
        return [*said, f"No claim: {campaign['reason']}."]
    effect, unadjusted = campaign["effect"], campaign["unadjusted"]
    said.append(
        f"Effect: {points(effect['value'])} percentage points (95 % interval {interval(effect)}), that is "
        f"{points(10 * effect['value'], 1)} conversions per 1,000 customers assigned: {verdict(campaign)}."
    )
    if campaign["claim"] == "randomised":
        said.append(
            f"Without the model's score the interval would be {interval(unadjusted)}; the score makes it "
            f"{percent(campaign['narrowing'])} narrower."
        )
        return [*said, CLAIMS["randomised"]]
    said.append(
        f"The plain difference of the two groups is {points(unadjusted['value'])} points; it mixes the campaign with "
        f"the choice of customers. {campaign['compared']:,} of {campaign['known']:,} assignments have somebody to be "
        "compared with; the effect is about these."
    )
    said += _hidden(campaign)
    return [*said, CLAIMS["association"]]


def _counted(campaign: dict[str, Any], horizon: int) -> str:
    held_out = campaign["known"] - campaign["treated"]
    text = (
        f"{campaign['known']:,} assignments of {campaign['customers']:,} customers, watched for {days(horizon)}: "
        f"{campaign['treated']:,} treated, {held_out:,} held out"
    )
    if campaign["rate_treated"] is not None and campaign["rate_held_out"] is not None:
        text += f"; {percent(campaign['rate_treated'])} and {percent(campaign['rate_held_out'])} of them converted"
    late = campaign["assignments"] - campaign["known"]
    return text + (f" ({late:,} more are too recent to be known)." if late else ".")


def _hidden(campaign: dict[str, Any]) -> list[str]:
    """Sensitivity and placebo of a targeted campaign."""
    said = []
    hidden = campaign["e_value"]
    if hidden is None:
        said.append("No E-value: almost nobody converts without the campaign.")
    elif hidden["interval"] <= 1:
        said.append("The interval holds zero, so nothing hidden is needed to explain the difference away.")
    else:
        said.append(
            f"E-value {hidden['estimate']:.2f} ({hidden['interval']:.2f} for the interval's near end): something "
            f"hidden that makes both being chosen and converting {hidden['interval']:.2f} times as likely could "
            "explain the effect away, weaker confounding could not."
        )
    placebo = campaign.get("placebo")
    if placebo is None:
        return said
    if placebo["effect"] is None:
        return [*said, f"Placebo not made: {placebo['reason']}."]
    shown = f"{points(placebo['effect']['value'])} points ({interval(placebo['effect'])})"
    window = days(placebo["days"])
    if placebo["passed"]:
        return [*said, f"Placebo passed: on conversions in the {window} before, the same method finds {shown}."]
    return [
        *said,
        f"Placebo failed: on conversions in the {window} before, where the campaign can have done nothing, the same "
        f"method finds {shown}. Those chosen differed already in what their journeys up to then do not tell. What "
        "happened in those days is adjusted for in the effect above; treat it with care all the same.",
    ]
