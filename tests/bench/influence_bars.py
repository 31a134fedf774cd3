"""What the influence benchmark measures of each simulated table, the bars, and the document."""

from __future__ import annotations

import itertools
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.bench.influence import INERT, NO_OVERLAP, STRONG, TARGETED, TARGETED_TABLES
from tests.bench.steps import ROOT, code

if TYPE_CHECKING:
    from tests.bench.steps import Steps
    from trainer.assignments import Assigned

PRIMARY = "dr_learner"  # whose ranking influence.html shows tenth by tenth
ALIKE = 0.1  # what the strong campaign adds to everyone's probability, where it moves all alike
TRUE_EFFECTS = ROOT / "tests/trainer/true_effects.py"
RANDOMISED = (STRONG, "newsletter_tip", INERT)
ARITHMETIC = ("experiment", "qini", "learners", "propensity", "sensitivity", "effects", "assignments", "bootstrap")


def judged(
    steps: Steps, name: str, places: tuple[Path, Path], digest: str, *, tables: int, customers: int
) -> dict[str, Any]:
    """{"tables": [a dict a table], "whole": the heterogeneity of all tables as one} of a population.

    places: the directories of the simulated tables and of the scored assignments; customers: of each table.
    """
    loaded: list[tuple[Assigned, dict[str, np.ndarray]]] = []

    def everyone() -> tuple[Assigned, dict[str, np.ndarray]]:
        if not loaded:
            with (places[1] / "assigned.pickle").open("rb") as file:
                assigned = pickle.load(file)
            loaded.append((assigned, truth_of(assigned, places[0])))
        return loaded[0]

    sources = [path for path in code("trainer") if path.stem in ARITHMETIC]
    found = []
    for table in range(tables):

        def make(place: Path, table: int = table) -> None:
            assigned, truth = everyone()
            if name == "homogeneous":
                assigned = _alike(assigned, truth)
            rows = truth["customer"] // customers == table
            one = _table(assigned.take(rows), {key: values[rows] for key, values in truth.items()}, name, table)
            (place / "table.json").write_text(json.dumps(one), encoding="utf-8")

        ingredients = [digest, table, customers, sources, Path(__file__)]
        place, _ = steps.done(f"influence/{name}/judged/{table:02d}", _flat(ingredients), make)
        found.append(json.loads((place / "table.json").read_text(encoding="utf-8")))

    def make_whole(place: Path) -> None:
        (place / "whole.json").write_text(json.dumps(_heterogeneity(*everyone())), encoding="utf-8")

    place, _ = steps.done(f"influence/{name}/whole", _flat([digest, sources, TRUE_EFFECTS, Path(__file__)]), make_whole)
    return {"tables": found, "whole": json.loads((place / "whole.json").read_text(encoding="utf-8"))}


def _flat(ingredients: list[Any]) -> list[Any]:
    return [part for one in ingredients for part in (one if isinstance(one, list) else [one])]


def truth_of(assigned: Assigned, place: Path) -> dict[str, np.ndarray]:
    """Each assignment's truth: customer (its number), effect, p_treated and p_control, NaN where there is none."""
    import pandas as pd
    import pyarrow.parquet as pq

    effects = pq.read_table(place / "effects_by_key.parquet").to_pandas()
    effects["as_of"] = effects["assigned_at"].astype("datetime64[us, UTC]").astype("int64")
    keys = pd.DataFrame({"customer_key": assigned.customer_key, "campaign": assigned.campaign, "as_of": assigned.as_of})
    columns = ["effect", "p_30d_treated", "p_30d_control"]
    found = keys.merge(effects[["customer_key", "campaign", "as_of", *columns]], how="left")
    number = effects.drop_duplicates("customer_key").set_index("customer_key")["customer"]
    return {
        "customer": number.loc[assigned.customer_key].to_numpy(),
        "effect": found["effect"].to_numpy(),
        "p_treated": found["p_30d_treated"].to_numpy(),
        "p_control": found["p_30d_control"].to_numpy(),
    }


def _table(assigned: Assigned, truth: dict[str, np.ndarray], population: str, number: int) -> dict[str, Any]:
    """One table: what is said of each campaign, beside the truth."""
    from trainer.effects import Question, judged
    from trainer.experiment import adjusted
    from trainer.threads import one_thread

    found: dict[str, Any] = {}
    targeted = (TARGETED, NO_OVERLAP) if number < TARGETED_TABLES and population == "segments" else ()
    for campaign in (*RANDOMISED, *targeted):
        random = campaign in RANDOMISED
        mine = assigned.campaign == campaign
        rows, true = assigned.take(mine), {key: values[mine][assigned.known[mine]] for key, values in truth.items()}
        question = Question(random, 0.5 if random else None, 10, 2, 200 if campaign == STRONG else 20)
        with one_thread():
            said = judged(campaign, rows, question)
        one: dict[str, Any] = {key: said.get(key) for key in ("claim", "reason", "known", "effect", "unadjusted")}
        one["failed"] = [check["name"] for check in said.get("checks", ()) if check["status"] == "failed"]
        if campaign != NO_OVERLAP:
            one["true"] = float(true["effect"].mean())
        if random:
            known = rows.take(rows.known)
            share = known.treated.mean()
            oracle = (1 - share) * true["p_treated"] + share * true["p_control"]
            one["oracle_se"] = adjusted(known.converted, known.treated, oracle[:, None], known.customer).se
        else:
            one["overlap"] = (
                {key: said["overlap"][key] for key in ("roc_auc", "trimmed")} if "overlap" in said else None
            )
            one["compared"] = said.get("compared")
        if campaign == STRONG and "uplift" in said:
            one["qini"] = {learner: measured["qini"] for learner, measured in said["uplift"].items()}
        found[campaign] = one
    return found


def _alike(assigned: Assigned, truth: dict[str, np.ndarray]) -> Assigned:
    """The strong campaign's outcomes drawn anew, from the true probability without it, plus ALIKE with it.

    The simulator can add the same to everyone's probability of a day, and no more: over 30 days that is not the same
    effect for everyone.
    """
    strong = assigned.campaign == STRONG
    probability = np.minimum(truth["p_control"], 1 - ALIKE) + ALIKE * assigned.treated
    drawn = np.random.default_rng(0).random(len(assigned)) < probability
    return replace(assigned, converted=np.where(strong, drawn, assigned.converted))


def _heterogeneity(assigned: Assigned, truth: dict[str, np.ndarray]) -> dict[str, Any]:
    """Qini on the true effects of the strong campaign, of each learner's ranking over all customers and of the true."""
    from tests.trainer.true_effects import of_true_effects
    from trainer.effects import basis_of, predicted_effects
    from trainer.threads import one_thread

    mine = (assigned.campaign == STRONG) & assigned.known
    rows, effect = assigned.take(mine), truth["effect"][mine]
    with one_thread():
        basis = basis_of(rows, 2)
        predicted = predicted_effects(basis, np.full(len(rows), rows.treated.mean()))
    return {
        "assignments": len(rows),
        "customers": len(np.unique(rows.customer)),
        "true": of_true_effects(effect, effect),
        "mean_effect": float(effect.mean()),
        "sd_effect": float(effect.std()),
        "by_segment": {
            str(value): float(effect[rows.categories["segment"] == value].mean())
            for value in sorted(set(rows.categories["segment"].tolist()))
        },
        **{learner: of_true_effects(values, effect) for learner, values in predicted.items()},
    }


def bars(found: dict[str, Any]) -> dict[str, Any]:
    """Each bar: what was wanted, what was found, whether it was reached."""
    tables = found["segments"]["tables"]
    by_campaign = {name: [table[name] for table in tables] for name in RANDOMISED}
    every = [one for ones in by_campaign.values() for one in ones]
    count = len(tables)
    covered = {
        name: sum(one["effect"]["low"] <= one["true"] <= one["effect"]["high"] for one in ones)
        for name, ones in by_campaign.items()
    }
    width = float(np.mean([one["effect"]["se"] for one in every]) / np.mean([one["unadjusted"]["se"] for one in every]))
    gain, best = (
        1 - np.mean([of(one) for one in every]) / np.mean([one["unadjusted"]["se"] for one in every])
        for of in (lambda one: one["effect"]["se"], lambda one: one["oracle_se"])
    )
    pairs = [pair for table in tables for pair in itertools.combinations([table[name] for name in RANDOMISED], 2)]
    apart = [
        (a, b) for a, b in pairs if abs(a["true"] - b["true"]) >= 4 * np.hypot(a["effect"]["se"], b["effect"]["se"])
    ]
    right = sum((a["effect"]["value"] > b["effect"]["value"]) == (a["true"] > b["true"]) for a, b in apart)
    declared = sum(one["effect"]["low"] > 0 or one["effect"]["high"] < 0 for one in by_campaign[INERT])
    targeted = [table[TARGETED] for table in tables if TARGETED in table]
    answered = [one for one in targeted if one["claim"] == "association"]
    naive = float(np.mean([one["unadjusted"]["value"] - one["true"] for one in answered])) if answered else float("nan")
    bias = float(np.mean([one["effect"]["value"] - one["true"] for one in answered])) if answered else float("nan")
    refused = sum(table[NO_OVERLAP]["claim"] == "none" for table in tables if NO_OVERLAP in table)
    whole = found["segments"]["whole"]
    shares = {learner: whole[learner] / whole["true"] for learner in ("s_learner", "t_learner", "dr_learner")}
    # a table whose check of the drawing warns, by chance, is given no ranking: it counts as none that was right
    same = [table[STRONG]["qini"] for table in found["homogeneous"]["tables"] if "qini" in table[STRONG]]
    chance = {learner: sum(one[learner]["low"] <= 0 <= one[learner]["high"] for one in same) for learner in shares}
    low, few = round(0.9 * count), round(0.1 * count)

    def row(bar: str, value: str, reached: bool) -> dict[str, Any]:
        return {"bar": bar, "found": value, "reached": bool(reached)}

    told = ", ".join(f"{name} {hits}" for name, hits in covered.items())
    return {
        "bars": [
            row(
                f"Randomised: the 95 % interval covers the true average effect in {low} to {count} of {count} tables",
                told,
                min(covered.values()) >= low,
            ),
            row("On average no wider than the unadjusted difference's", f"{width:.3f} of its width", width <= 1),
            row(
                "Narrowing at least 80 % of that by the true probability",
                f"{gain:.2%} of {best:.2%}: {gain / best:.0%}",
                gain >= 0.8 * best,
            ),
            row(
                "Pairs of campaigns whose true effects lie 4 standard errors apart: 95 % ranked right",
                f"{right} of {len(apart)} (of {len(pairs)} pairs)",
                bool(apart) and right >= 0.95 * len(apart),
            ),
            row(
                f"Campaign without effect: declared effective in at most {few} of {count}",
                f"{declared}",
                declared <= few,
            ),
            row(
                f"Heterogeneity: Qini on the true effects at least 80 % of the true ranking's (judged by {PRIMARY})",
                ", ".join(f"{learner} {share:.0%}" for learner, share in shares.items()),
                shares[PRIMARY] >= 0.8,
            ),
            row(
                f"Homogeneous effect: Qini's interval holds 0 in at least {low} of {count} (judged by {PRIMARY})",
                ", ".join(f"{learner} {hits}" for learner, hits in chance.items())
                + f" of {len(same)} that were ranked",
                chance[PRIMARY] >= low,
            ),
            row(
                "Targeted: mean bias of the doubly robust estimate at most 30 % of the naive difference's",
                f"{100 * bias:+.2f} of {100 * naive:+.2f} points: {abs(bias / naive):.0%}",
                abs(bias) <= 0.3 * abs(naive),
            ),
            row(
                f"With overlap: an answer in at least {len(targeted) - 1} of {len(targeted)}",
                f"{len(answered)}",
                len(answered) >= len(targeted) - 1,
            ),
            row(f"Overlap broken on purpose: refused in all {len(targeted)}", f"{refused}", refused == len(targeted)),
        ],
        "whole": found["segments"]["whole"],
        "covered_targeted": sum(one["effect"]["low"] <= one["true"] <= one["effect"]["high"] for one in answered),
        "true": {name: float(np.mean([one["true"] for one in ones])) for name, ones in by_campaign.items()},
        "false_alarms": sum(len(one["failed"]) for one in every),
        "checked": len(every),
        "as_simulated": {name: found["homogeneous"]["whole"][name] for name in ("mean_effect", "sd_effect")},
    }


def document(results: dict[str, Any]) -> str:
    """docs/influence_bars.md."""
    made, whole = results["made"], results["whole"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    true = ", ".join(f"{name} {100 * value:+.2f}" for name, value in results["true"].items())
    segments = ", ".join(f"{name} {100 * value:+.2f}" for name, value in whole["by_segment"].items())
    lines = [
        "# Are campaigns' effects told right?",
        "",
        f"Made on {made['date']} by `{made['command']}` in {made['minutes']:.0f} minutes on {made['machine']}; "
        f"{versions}.",
        "",
        f"Simulated customers, a purchase within 30 days, base rate 15 %. A population is {made['tables']} tables of "
        f"{made['customers']:,} customers, drawn independently; each table is analysed by itself, as "
        "`python -m trainer.influence` would. What stands in for training once a table is cross-fitting over the whole "
        "population: two networks, each trained on the customers of one half, score the assignments of the other. So a "
        "table is an experiment on some of a shop's customers, and no score has seen its own customer; the networks "
        "are better than 2,500 customers alone would make them.",
        "",
    ]
    if made["quick"]:
        lines += ["**A smoke run (--quick): the figures mean nothing.**", ""]
    lines += ["| bar | found | |", "|---|---|---|"]
    lines += [
        f"| {one['bar']} | {one['found']} | {'reached' if one['reached'] else '**missed**'} |"
        for one in results["bars"]
    ]
    lines += [
        "",
        f"True average effects, in points, mean over the tables: {true}. The strong campaign's by segment: {segments}; "
        f"{whole['assignments']:,} assignments of {whole['customers']:,} customers.",
        "",
        f"The checks of the drawing warned {results['false_alarms']} times in {results['checked']} experiments whose "
        "lots were fair. The doubly robust interval covers the true average effect in "
        f"{results['covered_targeted']} of the targeted tables that were answered.",
        "",
        "Homogeneous: the simulator adds the same to everyone's probability of a day, which over 30 days is "
        f"{100 * results['as_simulated']['mean_effect']:.1f} points with a standard deviation of "
        f"{100 * results['as_simulated']['sd_effect']:.1f}; the strong campaign's outcomes are therefore drawn anew, "
        f"from the true probability without it and {100 * ALIKE:.0f} points more with it.",
        "",
        "Truths are of the same assignments, given the events before each. The last bar's tables hold only those of "
        "the targeted campaign who got what their propensity made likelier.",
    ]
    return "\n".join(lines) + "\n"
