"""`python -m tests.bench.rare`: are probabilities of rare purchases right, with train downsampled 1 to 10?

Simulated customers buy at a base rate of 2 %, 0.5 % or 0.1 % within 30 days, and their true probabilities are known.
The model learns from downsampled train journeys with its defaults; what it tells the test journeys is held against the
truth: bin by bin, and in sum.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import math
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError, run

if TYPE_CHECKING:
    from trainer.metrics import Floats

HORIZON = 30
NEGATIVE_RATE = 0.1
# Every as_of is a Monday at the same place of the campaigns' cycle of 28 days, far from Christmas: what differs between
# eval and test is then the customers, and hardly the season. Labels of 30 days do not overlap from part to part.
FIRST, LAST = dt.date(2026, 1, 5), dt.date(2026, 10, 22)
TRAIN = (dt.date(2026, 2, 9), dt.date(2026, 3, 9), dt.date(2026, 4, 6))
EVAL = (dt.date(2026, 6, 1), dt.date(2026, 6, 29), dt.date(2026, 7, 27))
TEST = dt.date(2026, 9, 21)
# as_ofs of the truth: the first Monday after 90 days, 2026-04-06, and so many days later, which is TEST
TRUTH_EVERY_DAYS = (TEST - TRAIN[-1]).days
LOOKBACK_DAYS, MAX_EVENTS = 28, 16
MARGIN = 1.1  # more customers than the expected conversions ask for: a draw has fewer, a season too
LEAST_CUSTOMERS = 500
# By train journeys: where eval is millions, scoring it after each epoch is what takes time.
LARGE, LARGE_EPOCHS = 100_000, 3
GAP_LIMIT, SUM_LIMIT = 0.10, 0.05


def customers_for(rate: float, conversions: int) -> int:
    """So many customers that the fewer of train and eval holds `conversions` within HORIZON days, by expectation."""
    dates = min(len(TRAIN), len(EVAL))
    return max(LEAST_CUSTOMERS, math.ceil(MARGIN * conversions / (dates * rate)))


def spec_text() -> str:
    """The demo's journey spec with these dates, a short lookback, downsampling and everyone eligible."""
    from tests.bench.tasks import derived

    return derived(
        "demo.yaml",
        {
            "eligible": None,
            "sequence.max_events": MAX_EVENTS,
            "conversion.horizons_days": [7, 14, HORIZON],
            "snapshots": {"dates": [*TRAIN, *EVAL, TEST], "lookback_days": LOOKBACK_DAYS},
            "data_until": LAST,
            "split": {
                "eval_from": TRAIN[-1] + dt.timedelta(days=HORIZON),
                "test_from": EVAL[-1] + dt.timedelta(days=HORIZON),
                "salt": "v1",
            },
            "sampling": {"negative_rate": NEGATIVE_RATE},
        },
    )


def held_against_truth(probability: Floats, truth: Floats) -> dict[str, Any]:
    """Mean gap over bins, and the sums, of predicted and true probabilities, float64 [n].

    Bins are trainer.metrics.equal_mass_bins of the predictions: 15 of equally many journeys. gap: the mean over bins of
    |mean predicted - mean true|, each bin counting once; relative_gap: that over the mean true probability; sum_ratio:
    sum of predictions over sum of true probabilities.
    """
    import numpy as np

    from trainer.metrics import CALIBRATION_BINS, equal_mass_bins

    code = equal_mass_bins(probability, CALIBRATION_BINS)
    size = np.bincount(code)
    predicted = np.bincount(code, weights=probability) / size
    true = np.bincount(code, weights=truth) / size
    gap = float(np.abs(predicted - true).mean())
    return {
        "journeys": len(truth),
        "true_rate": float(truth.mean()),
        "gap": gap,
        "relative_gap": gap / float(truth.mean()),
        "sum_ratio": float(probability.sum() / truth.sum()),
        "bins": [
            {"journeys": int(n), "predicted": float(p), "true": float(t)}
            for n, p, t in zip(size, predicted, true, strict=True)
        ],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rare", description=__doc__.splitlines()[0])
    parser.add_argument("--rates", nargs="+", type=float, default=[0.02, 0.005, 0.001], help="base rates at 30 days")
    parser.add_argument("--output", type=Path, required=True, help="the table, Markdown; a .json is written beside it")
    parser.add_argument(
        "--conversions", type=int, default=2000, help="at least so many each in train and eval (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the training (default: %(default)s)")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/bench"), help="kept between runs (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: a few steps of training; means nothing")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parses the flags, runs what is not yet there, writes the table."""
    args = _parser().parse_args(argv)
    wrong = [rate for rate in args.rates if not 1e-5 <= rate <= 0.2]
    if wrong:
        raise UserError(f"--rates: expected numbers from 1e-05 to 0.2, got {wrong[0]:g}")
    if args.conversions < 1:
        raise UserError(f"--conversions: expected 1 or more, got {args.conversions}")
    if args.output.suffix != ".md":
        raise UserError(f"--output {args.output}: expected a file that ends in .md")

    from tests.bench.quality import versions
    from tests.bench.steps import Steps

    steps = Steps(args.work)
    results: dict[str, Any] = {"rates": [_rate(rate, args, steps) for rate in args.rates]}
    results["made"] = {
        "date": dt.date.today().isoformat(),
        "command": "python -m tests.bench.rare " + shlex.join(sys.argv[1:] if argv is None else argv),
        "minutes": steps.seconds / 60,
        "machine": f"{len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.machine()}",
        "versions": versions(),
        "quick": args.quick,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    args.output.with_suffix(".json").write_text(text, encoding="utf-8")
    args.output.write_text(document(results, args.conversions), encoding="utf-8")
    print(args.output.read_text(encoding="utf-8"))


def _rate(rate: float, args: argparse.Namespace, steps: Any) -> dict[str, Any]:
    """One base rate, from customers to figures."""
    import numpy as np
    import pyarrow.parquet as pq

    from tests.bench.tasks import QUICK_TRAINING, TASKS, counts, prepared, simulated, trained
    from trainer.joins import aligned, true_probabilities
    from trainer.outcomes import read_outcomes

    customers = customers_for(rate, args.conversions)
    before = steps.seconds
    flags = ("--customers", customers, "--base_rate", rate, "--first", FIRST, "--last", LAST)
    flags += ("--every_days", TRUTH_EVERY_DAYS, "--seed", 11)
    name = f"rare/{rate:g}"
    tables, digest = simulated(steps, f"{name}/tables", *flags)
    truth_file = tables / "truth_by_key.parquet"
    events = tables / "events.parquet"
    of = prepared(
        steps,
        f"{name}/all",
        spec=spec_text(),
        events=events,
        ingredients=[digest],
        seeds=(args.seed,),
        truth=truth_file,
    )
    counted = counts(of)
    training: tuple[object, ...] = ("--epochs", LARGE_EPOCHS) if counted["train"]["journeys"] > LARGE else ()
    model = trained(TASKS["simulator"], of, args.seed, steps, *(QUICK_TRAINING if args.quick else training))

    predictions = pq.read_table(model.run_dir / "evaluation/predictions.parquet")
    notes: list[str] = []
    outcomes, probabilities = aligned(
        "test", predictions, read_outcomes(of.run_dir / "journeys", "test"), (HORIZON,), notes
    )
    truth = true_probabilities(truth_file, outcomes, (HORIZON,), notes)
    if HORIZON not in truth:
        raise UserError(f"{truth_file}: {' '.join(notes)}")
    found = held_against_truth(probabilities[HORIZON], np.asarray(truth[HORIZON]))
    enough = min(counted[split]["conversions"] for split in ("train", "eval")) >= args.conversions
    return {
        "rate": rate,
        "customers": customers,
        "counts": counted,
        "enough": enough,
        **found,
        "gap_reached": found["relative_gap"] <= GAP_LIMIT,
        "sum_reached": abs(found["sum_ratio"] - 1) <= SUM_LIMIT,
        "minutes": (steps.seconds - before) / 60,
    }


def document(results: dict[str, Any], conversions: int) -> str:
    """docs/rare.md."""
    made = results["made"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    lines = [
        "# Are rare purchases predicted honestly?",
        "",
        f"Made on {made['date']} by `{made['command']}` in {made['minutes']:.0f} minutes on {made['machine']}; "
        f"{versions}.",
        "",
        f"Simulated customers, a purchase within {HORIZON} days, train downsampled to {NEGATIVE_RATE:.0%} of the "
        f"journeys known not to convert; the model with its defaults, but {LARGE_EPOCHS} epochs where train keeps more "
        f"than {LARGE:,} journeys. Test journeys' predictions are held against their true probabilities, over 15 bins "
        f"of equally many journeys by prediction. Wanted: a mean gap of at most {GAP_LIMIT:.0%} of the base rate, and "
        f"a sum of predictions within {SUM_LIMIT:.0%} of the sum of the true probabilities, with at least "
        f"{conversions:,} conversions each in train and eval.",
        "",
    ]
    if made["quick"]:
        lines += ["**A smoke run (--quick): the figures mean nothing.**", ""]
    lines += [
        "| base rate | customers | train: kept, converted | eval: journeys, converted | test journeys | true rate | "
        "mean gap / true rate | sum predicted / sum true |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in results["rates"]:
        train, evaluation = one["counts"]["train"], one["counts"]["eval"]
        few = "" if one["enough"] else " (too few)"
        cells = [
            f"{one['rate']:.2%}",
            f"{one['customers']:,}",
            f"{train['journeys']:,}, {train['conversions']:,}{few}",
            f"{evaluation['journeys']:,}, {evaluation['conversions']:,}{few}",
            f"{one['journeys']:,}",
            f"{one['true_rate']:.3%}",
            f"{one['relative_gap']:.1%}{'' if one['gap_reached'] else ' **missed**'}",
            f"{one['sum_ratio']:.3f}{'' if one['sum_reached'] else ' **missed**'}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Bin by bin, lowest predictions first: predicted / true", ""]
    lines += [f"| bin | {' | '.join(format(one['rate'], '.2%') for one in results['rates'])} |"]
    lines += [f"|---|{'---|' * len(results['rates'])}"]
    for i in range(max(len(one["bins"]) for one in results["rates"])):
        cells = [_bin(one["bins"][i]) if i < len(one["bins"]) else "" for one in results["rates"]]
        lines.append(f"| {i + 1} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _bin(one: dict[str, Any]) -> str:
    return f"{one['predicted']:.4%} / {one['true']:.4%}"


if __name__ == "__main__":
    run(main)
