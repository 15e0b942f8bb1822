"""Imitation of a teacher on the states that the learner meets itself (stage I of DOPPLER, arXiv 2505.23131)."""

import torch
from torch import Tensor

from agents.dual_rollout import DualRollout, LogProbabilities
from placement_gym.arrays import IntArray
from placement_gym.envs.observation import ACTION_FEATURES

# Observations are float32.
TIE = 1e-6


def labels(
    rollout: DualRollout,
    log_p: LogProbabilities,
    b_level: Tensor,
    op_device: IntArray | None = None,
    *,
    interchangeable: bool = False,
) -> tuple[Tensor, Tensor]:
    """(bool [rows of candidates], bool [rows of devices, n_devices]): what the teacher would do.

    The critical-path teacher selects the ready ops of largest b-level and places where the op finishes first; what
    ties is all right. A teacher that is a placement says where, and leaves the order to the critical path.

    Args:
        rollout: What the learner met.
        log_p: Which rows are asked for.
        b_level: float32 [n_ops].
        op_device: int32 [n_ops], the placement that teaches; None for the critical path. The rollout must have
            followed it, because the names of its devices mean nothing in another state.
        interchangeable: Whether one empty device is as good as another.
    """
    n_groups = rollout.ops.numel()

    def most(values: Tensor, group: Tensor) -> Tensor:
        return values.new_full((n_groups,), -torch.inf).scatter_reduce(0, group, values, "amax")[group]

    rows = log_p.select_rows.cpu()
    level = b_level[rollout.select_ops[rows]]
    select = level >= most(level, rollout.select_group[rows]) - TIE
    rows = log_p.place_rows.cpu()
    mask = rollout.masks[rows]
    if op_device is None:
        place = mask & (rollout.features[rows][..., ACTION_FEATURES.index("finish_behind")] <= TIE)
    else:
        taught = torch.tensor(op_device, dtype=torch.int64)[rollout.place_ops[rows]]
        place = torch.nn.functional.one_hot(taught, mask.shape[1]).bool()
        if interchangeable:
            empty = rollout.features[rows][..., ACTION_FEATURES.index("load")] == 0
            place |= empty & (place & empty).any(dim=1, keepdim=True)
        place &= mask
    # Of a joint policy's pairs, those whose op is right too; there is one op per group otherwise.
    level = b_level[rollout.place_ops[rows]]
    place &= (level >= most(level, rollout.place_group[rows]) - TIE).unsqueeze(1)
    return select, place


def imitation_loss(
    rollout: DualRollout,
    log_p: LogProbabilities,
    b_level: Tensor,
    op_device: IntArray | None = None,
    *,
    interchangeable: bool = False,
) -> tuple[Tensor, dict[str, float]]:
    """Minus the mean log-probability of doing what the teacher would do, and its mean probability as metrics.

    Arguments as for `labels`.
    """
    device = log_p.place_log_p.device
    told = labels(rollout, log_p, b_level, op_device, interchangeable=interchangeable)
    select, place = (part.to(device) for part in told)
    place_group = rollout.place_group.to(device)[log_p.place_rows]
    n_groups = rollout.ops.numel()
    loss = torch.zeros((), device=device)
    metrics = {}
    parts = (
        ("op", log_p.select_log_p, select, rollout.select_group.to(device)[log_p.select_rows]),
        ("device", log_p.place_log_p, place, place_group),
    )
    for name, row_log_p, right, group in parts:
        if not len(row_log_p):
            continue
        p = row_log_p.exp() * right
        per_row = p if p.dim() == 1 else p.sum(dim=1)
        total = per_row.new_zeros(n_groups).index_add(0, group, per_row)
        # A teacher's device may be outside the mask: nothing is learnt there.
        met = torch.zeros(n_groups, dtype=torch.bool, device=device)
        met[group[right if right.dim() == 1 else right.any(dim=1)]] = True
        loss = loss - total[met].clamp(min=1e-9).log().mean()
        metrics[f"agreement_{name}"] = float(total[met].detach().mean())
    return loss, metrics
