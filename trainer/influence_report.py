"""influence.html: what influence.json says, in words, tables and plots, in one file that loads nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preprocessing import page
from trainer import influence_plots as plots
from trainer.attribution import RULES as ATTRIBUTION_RULES
from trainer.influence_words import CLAIMS, LEARNERS, MAY_NOT, interval, points, sentences, verdict
from trainer.randomisation import RULES as CHECKS
from trainer.tables import days, number, percent

TEMPLATES = Path(__file__).parent / "templates"
DEFINITIONS = {
    "Effect": "P(converts | treated) minus P(converts | held out), in percentage points, everyone assigned counted in "
    "the arm that was planned (intention to treat). Randomised: by regression on the arm, the out-of-fold score "
    "(centred) and their product (Lin 2013), clustered by customer. Targeted: doubly robust "
    "(AIPW), over assignments with a propensity between 2 % and 98 %.",
    "Qini curve": "Down the ranking by predicted uplift: (Y_t - Y_c N_t / N_c) / T, with N_t and N_c the treated and "
    "held out so far, Y_t and Y_c their conversions, T all treated: extra conversions per treated assignment.",
    "Qini coefficient": "The area between the Qini curve and the straight line to its end; 0 is chance.",
    "AUUC": "The area under (Y_t / N_t - Y_c / N_c) k / n over the share k / n taken: conversions won per assignment, "
    "averaged over how many are contacted. Chance gives half its end.",
    "Overlap": "Refused where the journey separates the arms (ROC-AUC above 0.95), where more than 20 % of the "
    "assignments have a propensity below 2 % or above 98 %, or where an arm's weights make it worth fewer than 100 "
    "assignments, or a tenth of it.",
    "E-value": "How strongly, as a risk ratio, something unseen would have to act on both the choice of customers and "
    "on converting to explain the effect away: r + sqrt(r (r - 1)) (VanderWeele & Ding 2017).",
    "Shapley value": "A touch's mean marginal contribution to the model's probability over all orders in which touches "
    "may come, as a share of the whole journey's probability.",
}


def render(found: dict[str, Any]) -> str:
    """The page. The same input gives the same bytes."""
    horizon = found["horizon_days"]
    told = [campaign for campaign in found["campaigns"] if campaign["claim"] != "none"]
    return page.render(
        "influence.html.j2",
        TEMPLATES,
        title=f"Influence of campaigns on conversion within {days(horizon)}",
        version=found["model_version"],
        lead=_lead(found),
        notes=found["notes"],
        overview=plots.effects(told) if told else "",
        rows=[_row(campaign) for campaign in found["campaigns"]],
        campaigns=[_campaign(campaign, horizon, place) for place, campaign in enumerate(found["campaigns"], 1)],
        attribution=_attribution(found["attribution"]),
        claims=[(name, text) for name, text in CLAIMS.items() if any(c["claim"] == name for c in found["campaigns"])],
        may_not=MAY_NOT if found["campaigns"] else (),
        definitions=[*DEFINITIONS.items(), *((f"Check: {name}", text) for name, text in CHECKS.items())],
        draws=found["draws"],
    )


def _lead(found: dict[str, Any]) -> str:
    campaigns = found["campaigns"]
    if not campaigns:
        return "No assignments were given, so no campaign's effect is told; below, what the touches are credited with."
    counts = {kind: sum(c["claim"] == kind for c in campaigns) for kind in CLAIMS}
    return (
        f"{len(campaigns)} campaigns were looked at: {counts['randomised']} by experiment, {counts['association']} by "
        f"adjusted comparison, {counts['none']} without a claim. Every score comes from a network that never saw the "
        f"customer ({found['folds']} folds)."
    )


def _row(campaign: dict[str, Any]) -> dict[str, str]:
    none = campaign["claim"] == "none"
    return {
        "campaign": campaign["campaign"],
        "claim": "none" if none else campaign["claim"],
        "effect": "" if none else points(campaign["effect"]["value"]),
        "interval": "" if none else interval(campaign["effect"]),
        "verdict": verdict(campaign),
        "class": {"effective": "better", "harmful": "worse"}.get(verdict(campaign), ""),
        "assignments": f"{campaign['known']:,}",
        "what": campaign["reason"],
    }


def _campaign(campaign: dict[str, Any], horizon: int, place: int) -> dict[str, Any]:
    name = campaign["campaign"]
    called = _id(name, place)
    figures = []
    if campaign.get("uplift"):
        best = campaign["uplift"]["dr_learner"]
        figures.append(
            ("Qini curves", plots.qini_curves(called, campaign["uplift"]), "Above the line: better than chance.")
        )
        caption = "By the doubly robust learner; each predicted by models that never saw the customer."
        figures.append(("Uplift by tenth", plots.deciles(called, best["deciles"]), caption))
    if campaign.get("overlap"):
        caption = "Where only one colour is, nobody can be compared."
        figures.append(("Overlap", plots.overlap(called, campaign["overlap"]["histogram"]), caption))
    return {
        "id": called,
        "name": name,
        "sentences": sentences(campaign, horizon),
        "figures": [{"title": title, "svg": svg, "caption": caption} for title, svg, caption in figures],
        "checks": [
            {
                "name": check["name"],
                "status": check["status"],
                "class": {"passed": "better", "failed": "worse"}.get(check["status"], ""),
                "p_value": "" if check["p_value"] is None else f"p = {check['p_value']:.3g}",
            }
            for check in campaign.get("checks", [])
        ],
        "uplift": [
            {
                "learner": LEARNERS[learner],
                "qini": number(100 * found["qini"]["value"], 3, True),
                "qini_interval": interval(found["qini"], 3),
                "auuc": number(100 * found["auuc"]["value"], 3, True),
                "verdict": "better than chance" if found["better_than_chance"] else "not distinguishable from chance",
            }
            for learner, found in campaign.get("uplift", {}).items()
        ],
        "segments": [
            {
                "field": row["field"],
                "value": row["value"],
                "assignments": "" if row["assignments"] is None else f"{row['assignments']:,}",
                "effect": "" if row["effect"] is None else points(row["effect"]["value"]),
                "interval": "" if row["effect"] is None else interval(row["effect"]),
                "reason": row["reason"],
            }
            for row in campaign.get("segments", [])
        ],
        "needed": [
            {
                "effect": f"{percent(row['relative'])} of the held out's rate ({points(row['effect'])} points)",
                "assignments": f"{row['assignments']:,}",
            }
            for row in campaign.get("needed", [])
        ],
    }


def _attribution(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"credit-of-{column['column']}",
            "title": f"By {column['column']}",
            "said": f"{found['journeys']:,} of {found['converted']:,} converting test journeys. By the model "
            f"{column['without']:.0f} of these conversions would have come without any of these touches; with the "
            f"credits they sum to {found['journeys']:,}. The rules share out "
            f"{found['journeys'] - column['untouched']:,}, one a journey with a touch.",
            "svg": plots.attribution(column) if column["players"] else "",
            "rules": list(ATTRIBUTION_RULES),
            "rows": [
                {
                    "name": player["name"],
                    "journeys": f"{player['journeys']:,}",
                    "shapley": f"{player['shapley']:.1f}",
                    "error": f"\N{PLUS-MINUS SIGN} {1.96 * player['se']:.1f}",
                    "rules": [f"{player[rule]:.1f}" for rule in ATTRIBUTION_RULES],
                }
                for player in column["players"]
            ],
        }
        for column in found["columns"]
    ]


def _id(name: str, place: int) -> str:
    """An id in the page; the campaign's place tells names apart that differ in other letters alone."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name) + f"-{place}"
