"""Weighted counts by cell that know when enough customers stand behind a cell for it to be told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SAMPLED = 500_000  # values from which deciles are taken
MOST_VALUES = 10_000  # values of a field that are told apart
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]


class Cells:
    """Numbers counted in cells: cell i holds edges[i-1] <= x < edges[i]; NaN is counted apart, as missing."""

    def __init__(self, edges: Floats, min_customers: int) -> None:
        self.edges = edges
        self._counts = _Counts(len(edges) + 2, min_customers)  # the last is missing
        self._sum = 0.0

    def add(self, values: Floats, weight: Floats, holder: Ints, keys: Keys) -> None:
        """values, weight: float64 [n]; holder: int64 [n], each value's customer, a place in keys, uint64 [c]."""
        there = ~np.isnan(values)
        code = np.where(there, np.searchsorted(self.edges, values, side="right"), len(self.edges) + 1)
        self._counts.add(code, weight, holder, keys)
        self._sum += float(weight[there] @ values[there])

    def told(self, made: bool) -> dict[str, Any]:
        """edges, shares, missing and mean; `made`: as a reference, neighbours joined until none has too few.

        Where all of them together have too few, no value is told: no mean, and the one share is 0.
        """
        weight, few = self._counts.weight, self._counts.few()
        there = float(weight[:-1].sum())
        mean = {"mean": self._sum / there if there > 0 else None}
        if not made:
            share = _shares(weight)
            return {
                "edges": self.edges.tolist(),
                "shares": share[:-1].tolist(),
                "missing": float(share[-1]),
                **mean,
                "few": few[:-1],
                "missing_few": few[-1],
            }
        edges, groups = self.edges.tolist(), [[i] for i in range(len(self.edges) + 1)]
        while len(groups) > 1:
            small = [i for i, group in enumerate(groups) if self._counts.has_few(group)]
            if not small:
                break
            i = min(small[0], len(groups) - 2)  # joined with its right neighbour; the last with its left
            groups[i : i + 2] = [groups[i] + groups[i + 1]]
            del edges[i]
        if self._counts.has_few(groups[0]):  # the only one left
            groups, mean = [[]], {"mean": None}
        joined = np.array([weight[group].sum() for group in groups] + [0.0 if few[-1] else weight[-1]])
        share = _shares(joined)
        return {"edges": edges, "shares": share[:-1].tolist(), "missing": float(share[-1]), **mean}


class Values:
    """Words counted by value: '' is missing; what is not known, or too few customers hold, is `other`."""

    def __init__(self, known: tuple[str, ...] | None, min_customers: int) -> None:
        self._known = known
        self._place: dict[str, int] = {value: i + 2 for i, value in enumerate(known or ())}
        self._counts = _Counts(2 + len(self._place), min_customers)  # 0: missing, 1: other

    def add(self, values: pa.Array, weight: Floats, holder: Ints, keys: Keys) -> None:
        """values: string [n]; weight: float64 [n]; holder: int64 [n], a place in keys, uint64 [c]."""
        encoded = values.cast(pa.string()).fill_null("").dictionary_encode()
        places = np.array([self._place_of(value) for value in encoded.dictionary.to_pylist()], np.int64)
        self._counts.grow(2 + len(self._place))
        self._counts.add(places[encoded.indices.to_numpy(zero_copy_only=False)], weight, holder, keys)

    def _place_of(self, value: str) -> int:
        if value in ("", "__rare__"):
            return 0 if value == "" else 1
        limit = MOST_VALUES + len(self._known or ())
        if value not in self._place and len(self._place) >= limit:
            return 1
        return self._place.setdefault(value, len(self._place) + 2)

    def told(self, made: bool) -> dict[str, Any]:
        """values (the most frequent first), shares, other, missing; with a reference also few and new."""
        weight, few = self._counts.weight, self._counts.few()
        names = list(self._place)
        if made:
            kept = [i for i in range(len(names)) if not few[i + 2] and weight[i + 2] > 0]
            kept.sort(key=lambda i: (-weight[i + 2], names[i]))
            rest = [1, *sorted(set(range(2, len(names) + 2)) - {i + 2 for i in kept})]
            other = 0.0 if self._counts.has_few(rest) else float(weight[rest].sum())
            missing = 0.0 if few[0] else float(weight[0])
            share = _shares(np.array([missing, other, *(weight[i + 2] for i in kept)]))
            values = [names[i] for i in kept]
            return {
                "values": values,
                "shares": share[2:].tolist(),
                "other": float(share[1]),
                "missing": float(share[0]),
            }
        known = len(self._known or ())
        share = _shares(weight)
        rest = [1, *range(known + 2, len(share))]
        new = {names[i - 2]: float(share[i]) for i in rest[1:] if not few[i]}
        return {
            "values": names[:known],
            "shares": share[2 : known + 2].tolist(),
            "other": float(share[rest].sum()),
            "missing": float(share[0]),
            "few": few[2 : known + 2],
            "other_few": self._counts.has_few(rest),
            "missing_few": few[0],
            "new": dict(sorted(new.items(), key=lambda item: (-item[1], item[0]))),
        }


class Sample:
    """A regular sample of values, in the order in which they come: at most 2 * SAMPLED, the same ones each time.

    Rows are ordered by the keyed hash of their customer, so a regular sample is a fair one.
    """

    def __init__(self) -> None:
        self._values: list[Floats] = []
        self._weights: list[Floats] = []
        self._stride, self._seen, self._kept = 1, 0, 0

    def add(self, values: Floats, weight: Floats) -> None:
        """values, weight: float64 [n]; NaN is no value."""
        there = ~np.isnan(values)
        values, weight = values[there], weight[there]
        first = -self._seen % self._stride
        self._seen += len(values)
        self._values.append(values[first :: self._stride])
        self._weights.append(weight[first :: self._stride])
        self._kept += len(self._values[-1])
        while self._kept > 2 * SAMPLED:
            self._values = [np.concatenate(self._values)[::2]]
            self._weights = [np.concatenate(self._weights)[::2]]
            self._kept, self._stride = len(self._values[0]), self._stride * 2

    def deciles(self) -> Floats:
        """Inner edges at the weighted deciles; a value that is two deciles at once gets a cell of its own."""
        if not self._kept:
            return np.zeros(0)
        values, weight = np.concatenate(self._values), np.concatenate(self._weights)
        order = np.argsort(values, kind="stable")
        values, reached = values[order], np.cumsum(weight[order])
        at = np.searchsorted(reached, np.arange(1, 10) / 10 * reached[-1])
        found, times = np.unique(values[np.minimum(at, len(values) - 1)], return_counts=True)
        return np.unique(np.concatenate([found, np.nextafter(found[times > 1], np.inf)]))


class _Counts:
    """Weight by cell, and by cell the first `min_customers` customers behind it: enough to know that there are enough.

    Memory is bounded by cells times min_customers, however many customers there are.
    """

    def __init__(self, size: int, min_customers: int) -> None:
        self.weight: Floats = np.zeros(size)
        self._enough = min_customers
        self._holders: list[set[int]] = [set() for _ in range(size)]

    def grow(self, size: int) -> None:
        more = size - len(self.weight)
        if more > 0:
            self.weight = np.concatenate([self.weight, np.zeros(more)])
            self._holders += [set() for _ in range(more)]

    def add(self, code: Ints, weight: Floats, holder: Ints, keys: Keys) -> None:
        self.weight += np.bincount(code, weights=weight, minlength=len(self.weight))
        still = np.array([len(found) < self._enough for found in self._holders])
        chosen = still[code]
        if not chosen.any():
            return
        pairs = np.unique(code[chosen] * len(keys) + holder[chosen])
        cell, customer = np.divmod(pairs, len(keys))
        starts = np.flatnonzero(np.append(True, cell[1:] != cell[:-1]))
        for start, end in zip(starts, [*starts[1:], len(cell)], strict=True):
            few = customer[start : min(end, start + self._enough)]
            self._holders[cell[start]].update(keys[few].tolist())

    def few(self) -> list[bool]:
        """Of each cell: whether it holds something, and fewer customers than are enough."""
        return [self.has_few([i]) for i in range(len(self.weight))]

    def has_few(self, cells: list[int]) -> bool:
        """The same of several cells taken as one."""
        if not any(self.weight[i] > 0 for i in cells):
            return False
        return len(set().union(*(self._holders[i] for i in cells))) < self._enough


def _shares(weight: Floats) -> Floats:
    total = weight.sum()
    return weight / total if total > 0 else np.zeros(len(weight))
