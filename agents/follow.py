"""Episodes that follow a guide, played in one call: only where the policy chooses is anything scored."""

import numpy as np
from numba import njit

from agents.networks.dual_kernel import Heads, write_scores
from placement_gym.envs.device_features import N_FEATURES, EpisodeProblem, allow, describe
from placement_gym.simulator.partial import PartialPlacement, put

# How the members of an episode that follows a guide leave it, after the policy has chosen another device for the
# first of them: each by the policy, all to that device, members on either device changing places, or one of them.
# REPLAY: none leaves it, and all is written as if the policy had chosen without a guide.
EACH, TOGETHER, MIRROR, SWAP, REPLAY = 0, 1, 2, 3, 4


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def follow(
    f: EpisodeProblem,
    s: PartialPlacement,
    heads: Heads,
    place: np.ndarray,
    content: np.ndarray,
    order: np.ndarray,
    guide_device: np.ndarray,
    members: np.ndarray,
    modes: np.ndarray,
    guide: np.ndarray,
    guide_features: np.ndarray,
    rng: np.random.Generator,
    devices: np.ndarray,
    sampled: np.ndarray,
    groups: np.ndarray,
    ops: np.ndarray,
    features: np.ndarray,
    masks: np.ndarray,
) -> int:
    """Plays all episodes of `s`, in which nothing is placed yet; returns how many choices were written.

    Args:
        f: The problem.
        s: The episodes.
        heads: Weights.
        place: float32 [n_ops, width], `Encoded.place`.
        content: float32 [n_ops, width], `Encoded.content`.
        order: int64 [B, n_ops].
        guide_device: int32 [B, n_ops].
        members: bool [B, n_ops].
        modes: int64 [B].
        guide: int64 [B], rows of `guide_features`.
        guide_features: float32 [n_guides + 1, n_ops, n_devices, n_guide_features].
        rng: Where choices are drawn from.
        devices: int64 [n_ops, B], written.
        sampled: bool [n_ops, B], written: whether the policy chose, or is to be asked what it would have.
        groups: int64 [n_ops * B], written for each choice: step * B + episode.
        ops: int64 [n_ops * B], written for each choice.
        features: float32 [n_ops * B, n_devices, N_FEATURES + n_guide_features], written for each choice.
        masks: bool [n_ops * B, n_devices], written for each choice.
    """
    n_episodes, n = order.shape
    n_devices, width = masks.shape[1], place.shape[1]
    held, count = np.empty((n_devices, width), np.float32), np.empty(n_devices, np.float32)
    scores = np.empty(n_devices, np.float32)
    row = 0
    for b in range(n_episodes):
        held[:], count[:] = 0, 0
        begun, swapped, left, to = False, False, -1, -1
        for t in range(n):
            op = order[b, t]
            home = guide_device[b, op]
            first = members[b, op] and not begun
            wanted = home
            if members[b, op]:
                if first or modes[b] == EACH:
                    wanted = -1
                elif modes[b] == TOGETHER:
                    wanted = to
                elif home == to and (modes[b] == MIRROR or not swapped):
                    wanted, swapped = left, True
                elif home == left and modes[b] == MIRROR:
                    wanted = to
            allow(f.partial, s, b, op, row, masks)
            if wanted >= 0 and not masks[row, wanted]:
                wanted = -1
            sampled[t, b] = wanted < 0 or modes[b] == REPLAY
            if sampled[t, b]:
                describe(f, s, b, op, row, features, masks)
                groups[row], ops[row] = t * n_episodes + b, op
                features[row, :, N_FEATURES:] = guide_features[guide[b], op]
                row += 1
            if wanted < 0:
                at = row - 1
                if first and masks[at].sum() > masks[at, home]:
                    # The first member leaves its guide's device if it may.
                    masks[at, home] = False
                write_scores(heads, place[op], held, count, features[at], masks[at], scores)
                highest = -np.inf
                for d in range(n_devices):
                    if masks[at, d]:
                        drawn = scores[d] - np.log(rng.standard_exponential())
                        if drawn > highest:
                            wanted, highest = d, drawn
            if first:
                begun, left, to = True, home, wanted
            put(f.partial, s, b, np.int64(op), np.int64(wanted))
            devices[t, b] = wanted
            held[wanted] += content[op]
            count[wanted] += 1
    return row
