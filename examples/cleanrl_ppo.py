"""PPO in one file (after CleanRL's `ppo.py`) on the native vector form, with action masks and a graph network.

Departures from CleanRL: (1) the policy is `GnnPolicy`, which reads graphs and masks; (2) the native vector form instead
of `SyncVectorEnv`, episodes beginning anew in the step that ends them; (3) no discount and lambda 1 by default, since
the return is what counts; (4) the value loss is not clipped.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from examples.gnn_policy import GnnPolicy
from examples.setting import setting
from placement_gym.envs import PlacementVectorEnv


@dataclass(frozen=True, slots=True)
class Config:
    """Hyper-parameters.

    Attributes:
        env: Name of the environment.
        n_envs: Episodes side by side.
        n_steps: Steps of each per update.
        n_epochs: Passes over the steps of an update.
        n_minibatches: Gradients per pass.
        learning_rate: At first; it falls to 0.
        gamma: Discount.
        gae_lambda: Of generalised advantage estimation.
        clip: Of the probability ratio.
        entropy: Weight of the entropy bonus.
        value: Weight of the value loss.
        max_norm: Gradients are cut off at.
    """

    env: str = "placement_gym/Assign-v0"
    n_envs: int = 8
    n_steps: int = 80
    n_epochs: int = 4
    n_minibatches: int = 4
    learning_rate: float = 3e-3
    gamma: float = 1.0
    gae_lambda: float = 1.0
    clip: float = 0.2
    entropy: float = 0.001
    value: float = 0.5
    max_norm: float = 0.5


@dataclass(slots=True)
class Rollout:
    """Steps of all episodes, axis 0 the time and axis 1 the row.

    Attributes:
        seen: Observations, axis 0 time and row joined.
        actions: int64 [T, B].
        log_probs: float32 [T, B].
        rewards: float32 [T, B].
        values: float32 [T, B].
        done: float32 [T, B], 1 where the step ended an episode.
        last_value: float32 [B], of what comes after.
        makespans_s: Of the episodes that ended.
    """

    seen: dict[str, Any]
    actions: Tensor
    log_probs: Tensor
    rewards: Tensor
    values: Tensor
    done: Tensor
    last_value: Tensor
    makespans_s: list[float]


@torch.no_grad()
def play(env: PlacementVectorEnv, policy: GnnPolicy, seen: dict[str, Any], config: Config) -> tuple[Rollout, Any]:
    """(steps of the policy, the observation after them)."""
    observations, steps, makespans_s = [], [], []
    n_actions = len(seen["action_mask"][0])
    for _ in range(config.n_steps):
        chosen, values = policy.distribution(seen, n_actions)
        actions = chosen.sample()  # type: ignore[no-untyped-call]
        observations.append(seen)
        seen, paid, done, _, info = env.step(actions.numpy())
        if done.any():
            makespans_s += info["final_info"]["makespan_s"][done].tolist()
        rewards, over = (torch.as_tensor(one, dtype=torch.float32) for one in (paid, done))
        log_probs = chosen.log_prob(actions)  # type: ignore[no-untyped-call]
        steps.append((actions, log_probs, rewards, values, over))
    _, last_value = policy.distribution(seen, n_actions)
    joined = {key: np.concatenate([one[key] for one in observations]) for key in seen}
    taken, log_probs, rewards, values, over = (torch.stack(column) for column in zip(*steps, strict=True))
    return Rollout(joined, taken, log_probs, rewards, values, over, last_value, makespans_s), seen


def advantages(rollout: Rollout, config: Config) -> Tensor:
    """float32 [T, B], by generalised advantage estimation (Schulman et al., 2016, equation 16)."""
    found = torch.zeros_like(rollout.rewards)
    after, ahead = rollout.last_value, torch.zeros_like(rollout.last_value)
    for t in reversed(range(len(found))):
        goes_on = 1.0 - rollout.done[t]
        delta = rollout.rewards[t] + config.gamma * after * goes_on - rollout.values[t]
        ahead = delta + config.gamma * config.gae_lambda * ahead * goes_on
        found[t], after = ahead, rollout.values[t]
    return found


def losses(policy: GnnPolicy, rollout: Rollout, gains: Tensor, rows: Tensor, config: Config) -> Tensor:
    """The loss of a minibatch.

    Args:
        policy: What learns.
        rollout: What it played.
        gains: float32 [T * B], advantages.
        rows: int64 [any], numbers of steps.
        config: Weights.
    """
    seen: Mapping[str, Any] = {key: value[rows.numpy()] for key, value in rollout.seen.items()}
    chosen, values = policy.distribution(seen, rollout.seen["action_mask"].shape[1])
    log_probs = chosen.log_prob(rollout.actions.flatten()[rows])  # type: ignore[no-untyped-call]
    ratio = (log_probs - rollout.log_probs.flatten()[rows]).exp()
    gain = gains[rows]
    gain = (gain - gain.mean()) / (gain.std() + 1e-8)
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    returns = gains[rows] + rollout.values.flatten()[rows]
    policy_loss = -torch.min(ratio * gain, clipped * gain).mean()
    value_loss = 0.5 * ((values - returns) ** 2).mean()
    entropy = chosen.entropy().mean()  # type: ignore[no-untyped-call]
    loss: Tensor = policy_loss + config.value * value_loss - config.entropy * entropy
    return loss


def learn(env: PlacementVectorEnv, episodes: int, seed: int, config: Config) -> tuple[GnnPolicy, list[float]]:
    """(the policy, makespans in seconds of the episodes that it has played, in their order)."""
    torch.manual_seed(seed)
    policy = GnnPolicy()
    makespans_s: list[float] = []
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.learning_rate, eps=1e-5)
    seen, _ = env.reset(seed=seed)
    while len(makespans_s) < episodes:
        optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - len(makespans_s) / episodes)
        rollout, seen = play(env, policy, seen, config)
        makespans_s += rollout.makespans_s
        gains = advantages(rollout, config).flatten()
        for _ in range(config.n_epochs):
            for rows in torch.randperm(len(gains)).tensor_split(config.n_minibatches):
                optimizer.zero_grad()
                losses(policy, rollout, gains, rows, config).backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(policy.parameters(), config.max_norm)
                optimizer.step()
    return policy, makespans_s[:episodes]


def main(arguments: Sequence[str] | None = None) -> None:
    """Learns and reports."""
    given, config = setting(__doc__ or "", arguments), Config()
    options: dict[str, Any] = {"problem": given.problem, "reward": "dense"}
    env = gym.make_vec(config.env, num_envs=config.n_envs, autoreset_mode="SAME_STEP", **options)
    began = time.perf_counter()
    _, makespans_s = learn(env, given.episodes, given.seed, config)  # type: ignore[arg-type]
    given.report(f"PPO with a graph network, {time.perf_counter() - began:.0f} s", makespans_s)


if __name__ == "__main__":
    main()
