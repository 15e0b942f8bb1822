"""The smallest sum of tables over pairs of variables, by eliminating variables one by one."""

from collections.abc import Mapping, Sequence
from math import log

import numpy as np
from numpy.typing import NDArray

from placement_gym.arrays import FloatArray

Pair = tuple[int, int]

# Rounds without a better choice before the search that is not exact ends.
PATIENCE = 4


def minimise(
    own: Sequence[FloatArray], pairs: Mapping[Pair, FloatArray], *, max_entries: int
) -> tuple[list[int], bool]:
    """A choice per variable that makes the sum of its own costs and those of pairs small.

    Variables are eliminated in the order of the smallest table (Dechter, "Bucket elimination", 1999): the result is a
    minimum if no table exceeds the limit. Otherwise variables are held at their present value, at first the greedy
    one, until the tables fit, which gives the best choice of all others together; rounds with smaller tables that
    hold other variables follow until none is better.

    Args:
        own: float64 [n_choices] per variable.
        pairs: float64 [n_choices of a, n_choices of b] per pair (a, b).
        max_entries: Limit of the tables; later rounds take a tenth of it.

    Returns:
        The choices, and whether they are proven to be a minimum.
    """
    least = sum(float(table.min()) for table in (*own, *pairs.values()))
    choices = _greedy(own, pairs)
    best = total(own, pairs, choices)
    times_held = np.zeros(len(own), dtype=np.int64)
    patience, limit = PATIENCE, max_entries
    while patience and best > least:
        found, held = _Elimination(own, pairs, limit).run(choices, times_held)
        if not held:
            return found, True
        times_held[held] += 1
        value = total(own, pairs, found)
        patience = PATIENCE if value < best else patience - 1
        choices, best = found, value
        limit = max(max_entries // 10, 1)
    return choices, best <= least


def total(own: Sequence[FloatArray], pairs: Mapping[Pair, FloatArray], choices: Sequence[int]) -> float:
    """The sum that `minimise` makes small."""
    alone = sum(float(costs[choice]) for costs, choice in zip(own, choices, strict=True))
    return alone + sum(float(table[choices[a], choices[b]]) for (a, b), table in pairs.items())


def _greedy(own: Sequence[FloatArray], pairs: Mapping[Pair, FloatArray]) -> list[int]:
    """The cheapest choice of each variable, in order, given those of the variables before it."""
    before: list[list[tuple[int, FloatArray]]] = [[] for _ in own]
    for (a, b), table in pairs.items():
        before[max(a, b)].append((min(a, b), table if a < b else table.T))
    choices: list[int] = []
    for v, costs in enumerate(own):
        costs = costs + sum(table[choices[u]] for u, table in before[v])
        choices.append(int(np.argmin(costs)))
    return choices


class _Elimination:
    """One round: tables by their variables, ascending; eliminating a variable joins the tables that hold it."""

    def __init__(self, own: Sequence[FloatArray], pairs: Mapping[Pair, FloatArray], max_entries: int) -> None:
        self.n_choices = [len(costs) for costs in own]
        self.max_weight = log(max_entries)
        self.tables: list[dict[tuple[int, ...], FloatArray]] = [{(v,): costs} for v, costs in enumerate(own)]
        self.neighbours: list[set[int]] = [set() for _ in own]
        for (a, b), table in pairs.items():
            self._add((a, b) if a < b else (b, a), table if a < b else table.T)
        # Logarithm of the entries of the table that eliminating a variable makes; infinite once it is gone.
        self.weight = np.array([self._weight_of(v) for v in range(len(own))])

    def _add(self, scope: tuple[int, ...], table: FloatArray) -> None:
        for v in scope:
            held = self.tables[v].get(scope)
            self.tables[v][scope] = table if held is None else held + table
            self.neighbours[v].update(u for u in scope if u != v)

    def _weight_of(self, v: int) -> float:
        return sum(log(self.n_choices[u]) for u in (v, *self.neighbours[v]))

    def _take(self, v: int) -> dict[tuple[int, ...], FloatArray]:
        """The tables that hold a variable, which leaves."""
        taken, self.tables[v] = self.tables[v], {}
        for scope in taken:
            for u in scope:
                self.tables[u].pop(scope, None)
        for u in self.neighbours[v]:
            self.neighbours[u].discard(v)
        return taken

    def _settle(self, v: int) -> None:
        self.weight[v] = np.inf
        for u in self.neighbours[v]:
            self.weight[u] = self._weight_of(u)

    def run(self, choices: Sequence[int], times_held: NDArray[np.int64]) -> tuple[list[int], list[int]]:
        """The best choices, and the variables that were held at the choices given."""
        found = list(choices)
        held: list[int] = []
        eliminated: list[tuple[int, tuple[int, ...], NDArray[np.int16]]] = []
        for _ in range(len(found)):
            v = int(np.argmin(self.weight))
            if self.weight[v] > self.max_weight:
                left = np.isfinite(self.weight)
                least = left & (times_held == times_held[left].min())
                v = int(np.argmax(np.where(least, self.weight, -np.inf)))
                self._hold(v, found[v])
                held.append(v)
            else:
                eliminated.append((v, *self._eliminate(v)))
        for v, scope, best in reversed(eliminated):
            found[v] = int(best[tuple(found[u] for u in scope)])
        return found, held

    def _hold(self, v: int, choice: int) -> None:
        for scope, table in self._take(v).items():
            rest = tuple(u for u in scope if u != v)
            if rest:
                self._add(rest, np.asarray(table.take(choice, axis=scope.index(v))))
        self._settle(v)

    def _eliminate(self, v: int) -> tuple[tuple[int, ...], NDArray[np.int16]]:
        rest = tuple(sorted(self.neighbours[v]))
        scope = (*rest, v)
        joined = np.zeros([self.n_choices[u] for u in scope])
        for held, table in self._take(v).items():
            # Scopes ascend, but v comes last in the joined table.
            axes = [*(u for u in held if u != v), v]
            turned = table.transpose([held.index(u) for u in axes])
            joined += turned.reshape([self.n_choices[u] if u in axes else 1 for u in scope])
        best = joined.argmin(axis=-1)
        if rest:
            self._add(rest, np.take_along_axis(joined, best[..., None], axis=-1)[..., 0])
        self._settle(v)
        return rest, best.astype(np.int16)
