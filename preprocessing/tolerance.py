"""How many bad rows a run puts up with: a share of a table's rows, or a count."""

from __future__ import annotations

from preprocessing.cli import UserError

DEFAULT = 0.01
SET_ASIDE = "set_aside.parquet"  # the file of the bad rows, each with its reason
HELP = "stop where more of a table's rows are set aside: a share (0.01, 1%%) or a count (20) (default: 1%%)"
Tolerance = int | float  # an int is a count of rows, a float a share of them


class TooManyBadRows(UserError):
    """More rows are set aside than the run puts up with; which ones is in set_aside.parquet of its output."""


def tolerance(text: str, flag: str = "--max_bad_rows") -> Tolerance:
    """What the flag says: 1% and 0.01 are shares, a whole number is a count. Raises UserError for all else."""
    plain = text.strip()
    try:
        if plain.isascii() and plain.isdigit():
            return int(plain)
        share = float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:  # NaN is not, either
        raise UserError(f"{flag}: expected a share such as 0.01 or 1%, or a count of rows such as 20, got {text!r}")
    return share


def exceeds(bad: int, read: int, most: Tolerance) -> bool:
    """Whether `bad` of `read` rows are more than is put up with."""
    return bad > (most if isinstance(most, int) else most * read)


def in_words(most: Tolerance) -> str:
    """As errors say it."""
    return str(most) if isinstance(most, int) else f"{most:.1%}" if most >= 0.001 or not most else f"{most:.4%}"
