"""The trainer's flags, typed and bounded. Costs the standard library only, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from preprocessing.cli import UserError
from preprocessing.flags import number, one_of
from preprocessing.storage import read_text
from trainer import budget, tracking
from trainer.accelerators import PRECISIONS

_STEPS = 2_000
_SMALL, _MEMBERS = 50_000, 4  # journeys of train and eval; networks


def _flag(
    default: Any,
    text: str,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    *,
    choices: Sequence[str] | None = None,
) -> Any:
    """A dataclass field that is also a flag: a number, of which `low` and `high` are allowed themselves and `above` is
    not, or one of `choices`."""
    about = {"help": text, "low": low, "high": high, "above": above, "choices": choices}
    return dataclasses.field(default=default, metadata=about)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides the weights: a training is taken up again only where all of these are the same."""

    epochs: int = _flag(
        10, "passes over the train split, at most (default: 2,000 steps' worth, 10 to 60)", low=1, high=100_000
    )
    batch_size: int = _flag(256, "journeys a step, over all replicas", low=1, high=1_000_000)
    learning_rate: float = _flag(2e-3, "AdamW's, at its height: it warms up, then falls by a cosine", above=0, high=10)
    lstm_units: int = _flag(64, "width of the LSTM", low=1, high=16_384)
    embedding_dim: int = _flag(32, "width of an embedding, at most; small vocabularies get less", low=1, high=4_096)
    dense_units: int = _flag(64, "width of the layer that joins journey and customer", low=1, high=16_384)
    members: int = _flag(
        1, "networks whose mean is the model (default: 4 up to 50,000 train and eval journeys, 1 above)", low=1, high=64
    )
    dropout: float = _flag(0.1, "share of joined units dropped while training", low=0, high=0.95)
    weight_decay: float = _flag(1e-4, "AdamW's, on all but biases", low=0, high=10)
    next_event: float = _flag(
        1.0, "weight of the auxiliary loss, what the next event is and when; 0: none", low=0, high=1_000
    )
    positive_weight: float = _flag(
        1.0, "weight of train journeys that convert; the probabilities are corrected for it", above=0, high=10_000
    )
    patience: int = _flag(
        3,
        "epochs without a lower eval loss before training stops (default: a quarter of --epochs, 3 at least)",
        low=1,
        high=100_000,
    )
    max_steps: int | None = _flag(None, "steps in all, at most (default: no limit)", low=1)
    length_window: int = _flag(
        16,
        "batches over which journeys of like length are put together, so that less padding is computed; 1: none",
        low=1,
        high=10_000,
    )
    precision: str = _flag(
        "float32",
        "in which a GPU computes: mixed_float16 (T4, V100; the loss is scaled) or mixed_bfloat16 (A100, L4 and newer) "
        "are faster there; losses, hazards and the exported model are float32 in any case",
        choices=PRECISIONS,
    )
    seed: int = _flag(0, "of weights, shuffling and dropout", low=0, high=2**31 - 1)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """A whole command line: what it says of the settings, and what does not touch the weights."""

    run_dir: str
    given: dict[str, Any]
    truth: str | None
    baselines: bool
    bootstrap: int
    contact_cost: float | None
    conversion_value: float | None
    restart: bool
    checkpoint_every: int
    log_every: int
    require_gpu: bool
    profile_steps: tuple[int, int] | None
    budget: budget.Budget | None
    experiment: tracking.Experiment | None
    experiment_run: str | None

    def settings(self, train_journeys: int, eval_journeys: int) -> Settings:
        """The settings; how long to train, and how many networks, is decided by the sizes where no flag says it.

        A network needs some 2,000 steps whatever the data: ten passes over a small table would leave it half learnt.
        """
        settings = Settings(**self.given)
        steps_an_epoch = max(1, train_journeys // settings.batch_size)
        epochs = self.given.get("epochs", min(max(math.ceil(_STEPS / steps_an_epoch), 10), 60))
        patience = self.given.get("patience", max(3, epochs // 4))
        # Several networks are worth most, and cost least, where the table is small.
        members = self.given.get("members", _MEMBERS if train_journeys + eval_journeys <= _SMALL else 1)
        return dataclasses.replace(settings, epochs=epochs, patience=patience, members=members)


def bounded(field: dataclasses.Field[Any]) -> Callable[[str], Any]:
    """A parser of the value of one of Settings' fields, which raises ArgumentTypeError with what was expected."""
    if field.metadata["choices"]:
        return one_of(field.metadata["choices"])
    limits = {key: field.metadata[key] for key in ("low", "high", "above")}
    return number(float if field.type == "float" else int, **limits)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.task",
        description="Trains on a run directory's records/, then writes its model/ and evaluation/. "
        "Stopped in the middle, the same command goes on from the last checkpoint.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--run_dir",
        required=True,
        help="run directory, as python -m preprocessing.task made it; on disk or gs://…",
    )
    for field in dataclasses.fields(Settings):
        text, choices = field.metadata["help"], field.metadata["choices"]
        shown = "" if "(default" in text else f" (default: {field.default})"
        parser.add_argument(
            f"--{field.name}",
            type=bounded(field),
            metavar="|".join(choices) if choices else "N",
            help=(text + shown).replace("%", "%%"),
        )
    parser.add_argument(
        "--settings",
        metavar="FILE",
        help="JSON with any of the settings above, as trainer.tune writes its best.json; a flag wins over it",
    )
    parser.add_argument(
        "--truth",
        metavar="PATH",
        help="Parquet with customer_key, as_of and the true probabilities of simulated customers, for the evaluation",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        default=True,
        help="fit the baselines that the evaluation compares with (default)",
    )
    parser.add_argument(
        "--no_baselines", action="store_false", dest="baselines", help="leave them out, as in a smoke run"
    )
    parser.add_argument(
        "--bootstrap",
        type=number(int, 0, 100_000),
        default=200,
        metavar="N",
        help="resamples behind the evaluation's intervals; 0: none (default: 200)",
    )
    for name, text in (
        ("contact_cost", "what contacting a customer costs"),
        ("conversion_value", "what a conversion brings in"),
    ):
        parser.add_argument(
            f"--{name}",
            type=number(float, high=1e12, above=0),
            metavar="N",
            help=f"{text}, for the threshold that the report recommends; both in one currency",
        )
    parser.add_argument("--restart", action="store_true", help="train anew, whatever an earlier run left")
    parser.add_argument(
        "--checkpoint_every",
        type=number(int, 1),
        default=200,
        metavar="N",
        help="steps between checkpoints inside an epoch (default: 200)",
    )
    parser.add_argument(
        "--log_every",
        type=number(int, 1),
        default=20,
        metavar="N",
        help="steps between progress and TensorBoard points (default: 20)",
    )
    parser.add_argument(
        "--require_gpu", action="store_true", help="stop at once where there is no GPU, as every job that pays for one"
    )
    parser.add_argument(
        "--profile_steps",
        type=_steps,
        metavar="FIRST,LAST",
        help="trace these steps of the training for TensorBoard's Profile page, 100,120 say",
    )
    budget.add_flags(parser)
    tracking.add_flags(parser)
    return parser


def _steps(text: str) -> tuple[int, int]:
    first, _, last = text.partition(",")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise argparse.ArgumentTypeError(f"expected two steps from 1 on, FIRST,LAST, got {text!r}")
    return int(first), int(last)


def require_prices(contact_cost: float | None, conversion_value: float | None) -> None:
    """Raises UserError unless both or neither are given, above zero, and a conversion is worth more than a contact."""
    if (contact_cost is None) != (conversion_value is None):
        given, other = ("contact_cost", "conversion_value")[:: 1 if conversion_value is None else -1]
        raise UserError(f"--{given}: expected --{other} beside it; a threshold needs both")
    if contact_cost is None or conversion_value is None:
        return
    for name, value in (("contact_cost", contact_cost), ("conversion_value", conversion_value)):
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"--{name}: expected a number above 0, got {value:g}")
    if conversion_value <= contact_cost:
        raise UserError(
            f"--conversion_value: expected more than --contact_cost ({contact_cost:g}), got {conversion_value:g}: "
            "no contact could pay"
        )


def parse(argv: Sequence[str] | None = None) -> Arguments:
    """Reads the command line. Exits with status 2 and one line that names flag and expectation where it is wrong.

    Raises UserError where flags don't fit together, or the file of settings is none.
    """
    values = vars(_parser().parse_args(argv))
    require_prices(values["contact_cost"], values["conversion_value"])
    settings = {field.name: values.pop(field.name) for field in dataclasses.fields(Settings)}
    file = values.pop("settings")
    given = {} if file is None else _read(file)
    given |= {name: value for name, value in settings.items() if value is not None}
    return Arguments(given=given, budget=budget.taken(values), **values)


def _read(path: str) -> dict[str, Any]:
    """The settings in a JSON file. Raises UserError where it holds anything else."""
    try:
        found = json.loads(read_text(path, "settings"))
    except ValueError as error:
        raise UserError(f"--settings {path}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"--settings {path}: expected an object of settings")
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    for name in found:
        if name not in fields:
            raise UserError(f"--settings {path}: {name}: unknown; expected any of {', '.join(fields)}")
        wanted, words = (str, "text") if fields[name].metadata["choices"] else ((int, float), "a number")
        if isinstance(found[name], bool) or not isinstance(found[name], wanted):
            raise UserError(f"--settings {path}: {name}: expected {words}, got {json.dumps(found[name])}")
        try:
            found[name] = bounded(fields[name])(str(found[name]))
        except argparse.ArgumentTypeError as error:
            raise UserError(f"--settings {path}: {name}: {error}") from None
    return found
