"""How an endpoint's traffic is split between its deployed models, in whole percent."""

from __future__ import annotations

from collections.abc import Mapping

from preprocessing.cli import UserError


def with_newcomer(split: Mapping[str, int], newcomer: str, share: int | None) -> dict[str, int]:
    """The split once `newcomer` gets `share` percent: the others keep their proportions in what is left.

    Without others the newcomer gets everything, beside others nothing where `share` is None. Raises UserError unless
    0 <= share <= 100, and for a part of the traffic where nobody is there to take the rest.
    """
    if share is not None and not 0 <= share <= 100:
        raise UserError(f"--traffic: expected a percentage, 0 to 100, got {share}")
    others = {key: value for key, value in split.items() if value and key != newcomer}
    if not others:
        if share not in (None, 100):
            raise UserError(
                f"--traffic {share}: no other version gets traffic there, so this one gets all of it; expected 100, no "
                "--traffic, or another --endpoint"
            )
        return {newcomer: 100}
    share = share or 0
    return {**_proportional(others, 100 - share), newcomer: share}


def parse_split(pairs: list[str], versions: Mapping[str, str]) -> dict[str, int]:
    """VERSION=PERCENT pairs as a split by deployed model id; what is not named gets 0.

    versions: deployed model ids by version. Raises UserError where a version is not deployed or the sum is not 100.
    """
    split = dict.fromkeys(versions.values(), 0)
    for pair in pairs:
        version, _, percent = pair.partition("=")
        if version not in versions:
            raise UserError(
                f"--traffic {pair}: version {version!r} is not deployed; expected one of {', '.join(versions)}"
            )
        if not percent.isdecimal():
            raise UserError(f"--traffic {pair}: expected VERSION=PERCENT, in whole percent")
        split[versions[version]] = int(percent)
    if sum(split.values()) != 100:
        raise UserError(f"--traffic: expected percentages that sum to 100, got {sum(split.values())}")
    return split


def _proportional(weights: Mapping[str, int], total: int) -> dict[str, int]:
    """Whole shares of `total` in proportion to the weights, by largest remainder, so that they sum to it exactly."""
    exact = {key: total * weight / sum(weights.values()) for key, weight in weights.items()}
    shares = {key: int(value) for key, value in exact.items()}
    by_remainder = sorted(exact, key=lambda key: (shares[key] - exact[key], key))
    for key in by_remainder[: total - sum(shares.values())]:
        shares[key] += 1
    return shares
