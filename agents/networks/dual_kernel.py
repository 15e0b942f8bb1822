"""The heads of DualPolicy in Numba, for rollouts: a step's work is far less than what calls of torch cost."""

from typing import NamedTuple

import numpy as np
from numba import njit

from agents.networks.dual import DualPolicy
from placement_gym.envs.observation import DEVICE_FEATURES

N_DYNAMIC = len(DEVICE_FEATURES)


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


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def select_scores(
    heads: Heads,
    embedded: np.ndarray,
    static: np.ndarray,
    numbers: np.ndarray,
    ready: np.ndarray,
    op_device: np.ndarray,
    by_rank: np.ndarray,
    first: np.ndarray,
    most: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """SEL's scores float32 [R, most], -inf behind the last candidate; candidates int64 [R, most], -1 there; features.

    Features of candidates are those of all rows, one after the other: float32 [candidates, 2 * n_features].

    Args:
        heads: Weights.
        embedded: float32 [B or 1, n_ops, width], `Encoded.select`.
        static: float32 [n_ops, n_features].
        numbers: int64 [R], episodes.
        ready: bool [R, n_ops].
        op_device: int32 [R, n_ops], below 0 where an op is not placed.
        by_rank: int64 [n_ops], ops in the order in which they are candidates.
        first: int64 [R], where in this order an op may first be found that is not placed; brought up to date.
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
        n = 0
        mean[:] = 0
        spread[:] = 0
        while op_device[r, by_rank[first[r]]] >= 0:
            first[r] += 1
        for i in range(first[r], len(by_rank)):
            op = by_rank[i]
            if ready[r, op]:
                ops[r, n] = op
                mean += static[op]
                n += 1
                if n == most:
                    break
        mean /= n
        for c in range(n):
            spread += (static[ops[r, c]] - mean) ** 2
        spread = np.sqrt(spread / n) + 1e-3
        for c in range(n):
            own = embedded[numbers[r] if embedded.shape[0] > 1 else 0, ops[r, c]]
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
