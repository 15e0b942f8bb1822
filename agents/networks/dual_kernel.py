"""The heads of DualPolicy in Numba, for rollouts: a step's work is far less than what calls of torch cost."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from agents.networks.dual import DualPolicy
from placement_gym.envs.observation import ACTION_FEATURES
from placement_gym.simulator.partial import PartialProblem

N_DYNAMIC = len(ACTION_FEATURES)


class Heads(NamedTuple):
    """Weights as float32, inputs along axis 0."""

    device: np.ndarray
    device_bias: np.ndarray
    hidden: np.ndarray
    hidden_bias: np.ndarray
    place: np.ndarray
    place_bias: np.ndarray
    candidate: np.ndarray
    candidate_bias: np.ndarray
    select: np.ndarray
    select_bias: np.ndarray

    @classmethod
    def of(cls, policy: DualPolicy) -> "Heads":
        """A copy of the weights as they are now."""
        layers = (
            policy.from_device,
            policy.place_hidden,
            policy.place_out,
            policy.from_candidate,
            policy.select_out,
        )
        parts = [part for layer in layers for part in (layer.weight.T, layer.bias)]
        return cls(*(np.array(part.detach().cpu().numpy(), dtype=np.float32, order="C") for part in parts))


@njit(cache=True, error_model="numpy", forceinline=True)  # type: ignore[untyped-decorator]
def write_scores(
    heads: Heads,
    own: np.ndarray,
    content: np.ndarray,
    count: np.ndarray,
    features: np.ndarray,
    mask: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Writes `DualPolicy.place_scores` of one op into `scores`, float32 [n_devices], -inf where not allowed.

    Args:
        heads: Weights.
        own: float32 [width], row of `Encoded.place`.
        content: float32 [n_devices, width], sum of what is on each device.
        count: float32 [n_devices], how many that are.
        features: float32 [n_devices, n_features].
        mask: bool [n_devices].
        scores: float32 [n_devices].
    """
    n_devices, n_features = features.shape
    width = own.size
    mean, spread = np.empty(N_DYNAMIC, np.float32), np.empty(N_DYNAMIC, np.float32)
    first, second = np.empty(width, np.float32), np.empty(width, np.float32)
    allowed = max(1, mask.sum())
    for i in range(N_DYNAMIC):
        mean[i] = spread[i] = 0
        for d in range(n_devices):
            if mask[d]:
                mean[i] += features[d, i] / allowed
        for d in range(n_devices):
            if mask[d]:
                spread[i] += (features[d, i] - mean[i]) ** 2 / allowed
        spread[i] = np.sqrt(spread[i]) + np.float32(1e-6)
    for d in range(n_devices):
        scores[d] = -np.inf
        if not mask[d]:
            continue
        share = np.float32(1) / max(np.float32(1), count[d])
        for k in range(width):
            first[k] = heads.device_bias[k] + own[k] + content[d, k] * share
        for i in range(n_features):
            x = features[d, i]
            if x != 0:
                for k in range(width):
                    first[k] += x * heads.device[i, k]
        for i in range(N_DYNAMIC):
            x = min(max((features[d, i] - mean[i]) / spread[i], np.float32(-5)), np.float32(5))
            if x != 0:
                for k in range(width):
                    first[k] += x * heads.device[n_features + i, k]
        second[:] = heads.hidden_bias
        for j in range(width):
            if first[j] > 0:
                for k in range(width):
                    second[k] += first[j] * heads.hidden[j, k]
        score = heads.place_bias[0]
        for k in range(width):
            score += max(second[k], np.float32(0)) * heads.place[k, 0]
        scores[d] = score


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def place_scores(
    heads: Heads,
    embedded: np.ndarray,
    content: np.ndarray,
    count: np.ndarray,
    row: np.ndarray,
    op: np.ndarray,
    features: np.ndarray,
    mask: np.ndarray,
) -> np.ndarray:
    """float32 [M, n_devices]: `write_scores` of ops `op` in episodes `row`.

    Args:
        heads: Weights.
        embedded: float32 [B or 1, n_ops, width], `Encoded.place`.
        content: float32 [B, n_devices, width].
        count: float32 [B, n_devices].
        row: int64 [M].
        op: int64 [M].
        features: float32 [M, n_devices, n_features].
        mask: bool [M, n_devices].
    """
    scores = np.empty(mask.shape, np.float32)
    for m in range(len(row)):
        b = row[m]
        own = embedded[b if embedded.shape[0] > 1 else 0, op[m]]
        write_scores(heads, own, content[b], count[b], features[m], mask[m], scores[m])
    return scores


class Waiting(NamedTuple):
    """Ready ops of each episode, kept from step to step in the order in which they are candidates.

    Attributes:
        by_rank: int64 [n_ops], all ops in this order.
        rank: int64 [n_ops], the place of each in it.
        ranks: int64 [B, n_ops], of the ready ops, ascending.
        n_ready: int64 [B], how many these are.
        out_start: int32 [n_ops + 1], readers of op v are `out_ops[out_start[v]:out_start[v + 1]]`.
        out_ops: int32 [n_edges].
    """

    by_rank: np.ndarray
    rank: np.ndarray
    ranks: np.ndarray
    n_ready: np.ndarray
    out_start: np.ndarray
    out_ops: np.ndarray

    @classmethod
    def of(cls, by_rank: NDArray[np.int64], fixed: PartialProblem, n_episodes: int) -> "Waiting":
        """Before the first step of so many episodes."""
        ranks, n_ready = np.empty((n_episodes, len(by_rank)), np.int64), np.zeros(n_episodes, np.int64)
        return cls(by_rank, np.argsort(by_rank), ranks, n_ready, fixed.out_start, fixed.out_ops)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _bring_up(waiting: Waiting, r: int, ready: np.ndarray, last: int) -> None:
    """Of episode r: takes out `last`, the op placed last (-1: nothing is placed), and takes in what that made ready."""
    ranks, n = waiting.ranks[r], waiting.n_ready[r]
    if last < 0:
        n = 0
        for i in range(len(waiting.by_rank)):
            if ready[waiting.by_rank[i]]:
                ranks[n] = i
                n += 1
    else:
        n -= 1
        for i in range(np.searchsorted(ranks[: n + 1], waiting.rank[last]), n):
            ranks[i] = ranks[i + 1]
        readers = waiting.out_ops[waiting.out_start[last] : waiting.out_start[last + 1]]
        new = np.unique(np.array([waiting.rank[reader] for reader in readers if ready[reader]], np.int64))
        # Both are ascending, and merged from the back, so that nothing is overwritten that is still needed.
        old, n = n - 1, n + new.size
        for i in range(n - 1, -1, -1):
            k = i - old - 1  # the last of the new ones that is not taken in yet
            if k < 0:
                break
            if old >= 0 and ranks[old] > new[k]:
                ranks[i] = ranks[old]
                old -= 1
            else:
                ranks[i] = new[k]
    waiting.n_ready[r] = n


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def select_scores(
    heads: Heads,
    embedded: np.ndarray,
    static: np.ndarray,
    waiting: Waiting,
    ready: np.ndarray,
    last: np.ndarray,
    most: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """SEL's scores float32 [B, most], -inf behind the last candidate; candidates int64 [B, most], -1 there; features.

    Features of candidates are those of all rows, one after the other: float32 [candidates, 2 * n_features].

    Args:
        heads: Weights.
        embedded: float32 [B or 1, n_ops, width], `Encoded.select`.
        static: float32 [n_ops, n_features].
        waiting: As of the step before; brought up to date.
        ready: bool [B, n_ops].
        last: int64 [B], ops placed in the step before; -1 in the first.
        most: Candidates of a row; further ready ops are none.
    """
    n_features, width = static.shape[1], embedded.shape[2]
    seen = np.empty((ready.shape[0] * most, 2 * n_features), np.float32)
    scores = np.full((ready.shape[0], most), -np.inf, np.float32)
    ops = np.full((ready.shape[0], most), -1, np.int64)
    mean, spread = np.empty(n_features), np.empty(n_features)
    hidden = np.empty(width, np.float32)
    m = 0
    for r in range(ready.shape[0]):
        _bring_up(waiting, r, ready[r], last[r])
        n = min(most, waiting.n_ready[r])
        mean[:] = 0
        spread[:] = 0
        for c in range(n):
            ops[r, c] = waiting.by_rank[waiting.ranks[r, c]]
            mean += static[ops[r, c]]
        mean /= n
        for c in range(n):
            spread += (static[ops[r, c]] - mean) ** 2
        spread = np.sqrt(spread / n) + 1e-3
        for c in range(n):
            own = embedded[r if embedded.shape[0] > 1 else 0, ops[r, c]]
            for k in range(width):
                hidden[k] = own[k] + heads.candidate_bias[k]
            for i in range(n_features):
                raw = static[ops[r, c], i]
                close = np.float32(min(max((raw - mean[i]) / spread[i], -5.0), 5.0))
                seen[m, i], seen[m, n_features + i] = raw, close
                for k in range(width):
                    hidden[k] += raw * heads.candidate[i, k] + close * heads.candidate[n_features + i, k]
            score = heads.select_bias[0]
            for k in range(width):
                score += max(hidden[k], np.float32(0)) * heads.select[k, 0]
            scores[r, c] = score
            m += 1
    return scores, ops, seen[:m]
