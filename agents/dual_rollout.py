"""DualRollout: a batch of episodes of SelectPlace-v0, and the log-probabilities of their choices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.networks.dual import DualPolicy, GraphTensors, grouped_log_softmax
from placement_gym.arrays import BoolArray, IntArray


@dataclass(slots=True, eq=False)
class DualRollout:
    """Observations and actions of T steps of B episodes; the group of a step is step * B + episode.

    Attributes:
        ops: int64 [T, B], the ops selected.
        devices: int64 [T, B], the devices of these ops.
        sampled_op: bool [T, B], whether the policy selected the op.
        sampled_device: bool [T, B], whether it chose the device.
        select_group: int64 [S], the group of each candidate for selection.
        select_ops: int64 [S], its op.
        candidates: float32 [S, 2 * n_features], its features.
        place_group: int64 [M], the group of each choice of a device; one per group, more for a joint policy.
        place_ops: int64 [M], the op that is placed.
        features: float32 [M, n_devices, n_features], of the devices.
        masks: bool [M, n_devices], the devices allowed.
        finish: float32 [B, n_ops], finish by the environment's clock over the reference makespan.
        op_device: int32 [B, n_ops], the placements.
        order: int32 [B, n_ops], the ops in the order of selection.
        overfull: bool [B], whether a device holds more than its memory.
    """

    ops: Tensor
    devices: Tensor
    sampled_op: Tensor
    sampled_device: Tensor
    select_group: Tensor
    select_ops: Tensor
    candidates: Tensor
    place_group: Tensor
    place_ops: Tensor
    features: Tensor
    masks: Tensor
    finish: Tensor
    op_device: IntArray
    order: IntArray
    overfull: BoolArray

    @classmethod
    def joined(cls, rollouts: Sequence["DualRollout"]) -> "DualRollout":
        """Rollouts of one problem side by side; episodes keep their order."""
        sizes = [one.ops.shape[1] for one in rollouts]
        total, first = sum(sizes), np.cumsum([0, *sizes]).tolist()
        parts: dict[str, Any] = {}
        for kind in ("select", "place"):
            groups = [getattr(one, f"{kind}_group") for one in rollouts]
            group = torch.cat([g // b * total + g % b + at for g, b, at in zip(groups, sizes, first, strict=False)])
            by_group = group.argsort(stable=True)
            parts[f"{kind}_group"] = group[by_group]
            for name in (f"{kind}_ops", *(("candidates",) if kind == "select" else ("features", "masks"))):
                parts[name] = torch.cat([getattr(one, name) for one in rollouts])[by_group]
        for name in ("ops", "devices", "sampled_op", "sampled_device"):
            parts[name] = torch.cat([getattr(one, name) for one in rollouts], dim=1)
        parts["finish"] = torch.cat([one.finish for one in rollouts])
        for name in ("op_device", "order", "overfull"):
            parts[name] = np.concatenate([getattr(one, name) for one in rollouts])
        return cls(**parts)


@dataclass(frozen=True, slots=True, eq=False)
class LogProbabilities:
    """A policy's log-probabilities of the choices that a rollout had.

    Attributes:
        select_rows: int64, rows of `DualRollout.candidates`.
        select_log_p: float32, of each of them.
        place_rows: int64, rows of `DualRollout.features`.
        place_log_p: float32 [..., n_devices], of each of them.
    """

    select_rows: Tensor
    select_log_p: Tensor
    place_rows: Tensor
    place_log_p: Tensor

    def taken(self, rollout: DualRollout) -> Tensor:
        """float32 [T, B]: log-probability of op and device together, 0 where the policy chose neither."""
        ops, devices = rollout.ops.flatten().to(self.select_log_p.device), rollout.devices.flatten()
        devices = devices.to(ops.device)
        out = torch.zeros(len(ops), device=ops.device)
        group = rollout.select_group.to(ops.device)[self.select_rows]
        chosen = rollout.select_ops.to(ops.device)[self.select_rows] == ops[group]
        out = out.index_add(0, group[chosen], self.select_log_p[chosen])
        group = rollout.place_group.to(ops.device)[self.place_rows]
        chosen = rollout.place_ops.to(ops.device)[self.place_rows] == ops[group]
        own = self.place_log_p[chosen].gather(1, devices[group[chosen]].unsqueeze(1)).squeeze(1)
        return out.index_add(0, group[chosen], own).reshape(rollout.ops.shape)

    def entropy(self) -> Tensor:
        """Mean entropy of the choices of devices plus that of ops (per row, not per choice)."""
        p = self.place_log_p
        place = -(p.exp() * p.masked_fill(p == -torch.inf, 0.0)).sum(dim=-1)
        total = place.mean() if len(place) else torch.zeros((), device=p.device)
        if len(self.select_log_p):
            total = total - (self.select_log_p.exp() * self.select_log_p).mean()
        return total


def log_probabilities(
    policy: DualPolicy, graph: GraphTensors, rollout: DualRollout, *, every_step: bool, whole: bool = False
) -> LogProbabilities:
    """The policy's log-probabilities of the choices that a rollout had, with gradients.

    Args:
        policy: The policy.
        graph: The problem.
        rollout: The rollout.
        every_step: Whether messages are passed at every step, as when the rollout was played; memory then grows with
            the square of the number of ops.
        whole: Whether choices of devices that the policy did not make are included.
    """
    device, n_groups = graph.op_features.device, rollout.ops.numel()
    wanted = torch.ones_like(rollout.sampled_device) if whole else rollout.sampled_device
    place_rows = wanted.flatten()[rollout.place_group].nonzero().squeeze(1)
    select_rows = torch.arange(len(rollout.select_group))
    rows = _every_step if every_step else _once
    select, place, content = rows(policy, graph, rollout, place_rows)
    group = rollout.place_group[place_rows].to(device)
    features, masks = rollout.features[place_rows].to(device), rollout.masks[place_rows].to(device)
    place_log_p = grouped_log_softmax(policy.place_scores(place, content, features, masks), group, n_groups)
    scores = policy.select_scores(select, rollout.candidates.to(device))
    select_log_p = grouped_log_softmax(scores, rollout.select_group.to(device), n_groups)
    return LogProbabilities(select_rows.to(device), select_log_p, place_rows.to(device), place_log_p)


def _once(
    policy: DualPolicy, graph: GraphTensors, rollout: DualRollout, place_rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of embeddings for SEL and PLC, and the content of devices, where messages are passed once."""
    encoded = policy.encode(graph)
    device, (n_steps, b), d = graph.op_features.device, rollout.ops.shape, rollout.masks.shape[1]
    group = rollout.place_group[place_rows].to(device)
    step, episode = group // b, group % b
    # What is on each device is added up along the episodes that have many rows, and for each row of the others.
    many = torch.bincount(episode, minlength=b) > encoded.content.shape[1]
    content = encoded.content.new_zeros(len(group), d, encoded.content.shape[1])
    few = (~many)[episode].nonzero().squeeze(1)
    if len(few):
        at = torch.empty(b, n_steps, dtype=torch.int64).scatter_(1, rollout.ops.T, torch.arange(n_steps).expand(b, -1))
        placed = at.to(device)[episode[few]] < step[few].unsqueeze(1)
        op_device = torch.from_numpy(rollout.op_device).to(device)[episode[few]]
        here = (placed.unsqueeze(1) & (op_device.unsqueeze(1) == torch.arange(d, device=device)[:, None])).float()
        mean = here @ encoded.content / here.sum(dim=2, keepdim=True).clamp(min=1)
        content = content.index_copy(0, few, mean)
    if many.any():
        on = torch.nn.functional.one_hot(rollout.devices.to(device)[:, many], d).float()
        added = encoded.content[rollout.ops.to(device)[:, many]].unsqueeze(2) * on.unsqueeze(3)
        count = (on.cumsum(0) - on).clamp(min=1).unsqueeze(3)
        rows, number = many[episode].nonzero().squeeze(1), many.cumsum(0) - 1
        content = content.index_copy(0, rows, ((added.cumsum(0) - added) / count)[step[rows], number[episode[rows]]])
    select = encoded.select[rollout.select_ops.to(device)]
    return select, encoded.place[rollout.place_ops[place_rows].to(device)], content


def _every_step(
    policy: DualPolicy, graph: GraphTensors, rollout: DualRollout, place_rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_once`, where messages are passed at every step."""
    device, (n_steps, b), d = graph.op_features.device, rollout.ops.shape, rollout.masks.shape[1]
    step = torch.empty(b, n_steps, dtype=torch.int64)
    step.scatter_(1, rollout.ops.T, torch.arange(n_steps).expand(b, -1))
    here = torch.nn.functional.one_hot(torch.from_numpy(rollout.op_device).long(), d).float()
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for t in range(n_steps):
        placed = (step < t).float()
        progress = torch.stack([placed, placed * rollout.finish], dim=-1).to(device)
        encoded = policy.encode(graph, progress)
        at_select = rollout.select_group // b == t
        at_place = place_rows[rollout.place_group[place_rows] // b == t]
        select_b, place_b = rollout.select_group[at_select] % b, rollout.place_group[at_place] % b
        content = content_of(encoded.content.reshape(b, n_steps, -1), (here * placed.unsqueeze(-1)).to(device))
        parts.append(
            (
                encoded.select.reshape(b, n_steps, -1)[select_b, rollout.select_ops[at_select]],
                encoded.place.reshape(b, n_steps, -1)[place_b, rollout.place_ops[at_place]],
                content[place_b],
            )
        )
    select, place, contents = (torch.cat(part) for part in zip(*parts, strict=True))
    return select, place, contents


def content_of(content: Tensor, here: Tensor) -> Tensor:
    """[B, n_devices, width]: mean of `content` [B, n_ops, width] over ops that are `here` [B, n_ops, n_devices]."""
    mean: Tensor = here.transpose(1, 2) @ content / here.sum(dim=1).clamp(min=1).unsqueeze(-1)
    return mean
