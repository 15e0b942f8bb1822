"""PPO of TorchRL on the native vector form, with action masks (needs `placement-gym[torchrl]`)."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from tensordict.nn import InteractionType, TensorDictModule
from torch.nn import LayerNorm
from torchrl.data import Unbounded
from torchrl.envs import ActionMask, Compose, DTypeCastTransform, GymWrapper, TransformedEnv
from torchrl.envs.libs.gym import default_info_dict_reader
from torchrl.modules import MLP, MaskedCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from examples.setting import setting

KEYS = ["action_features", "context"]  # what the networks read
N_ENVS, N_STEPS, N_EPOCHS = 8, 80, 8


def main(arguments: Sequence[str] | None = None) -> None:
    """Learns and reports."""
    given, makespans_s = setting(__doc__ or "", arguments), list[float]()
    torch.manual_seed(given.seed)
    options: dict[str, Any] = {"problem": given.problem, "reward": "dense", "invalid": "nearest"}
    vec_env = gym.make_vec("placement_gym/Assign-v0", num_envs=N_ENVS, autoreset_mode="DISABLED", **options)
    env, spec = GymWrapper(vec_env, categorical_action_encoding=True), Unbounded((N_ENVS,), dtype=torch.float64)
    env.set_info_dict_reader(default_info_dict_reader(["makespan_s"], spec={"makespan_s": spec}))
    as_bool = DTypeCastTransform(torch.int8, torch.bool, in_keys=["action_mask"])
    env = TransformedEnv(env, Compose(as_bool, ActionMask()))
    env.set_seed(given.seed)
    layers: dict[str, Any] = {"num_cells": [64, 64], "norm_class": LayerNorm, "norm_kwargs": {"normalized_shape": 64}}
    net = TensorDictModule(MLP(out_features=given.problem.n_devices, **layers), KEYS, ["logits"])
    reads, draw = {"logits": "logits", "mask": "action_mask"}, InteractionType.RANDOM
    actor = ProbabilisticActor(
        net, reads, distribution_class=MaskedCategorical, default_interaction_type=draw, return_log_prob=True
    )
    critic = ValueOperator(MLP(out_features=1, **layers), KEYS)
    critic(actor((state := env.reset()).clone()))  # builds the layers
    gae = GAE(gamma=1.0, lmbda=1.0, value_network=critic)
    loss = ClipPPOLoss(actor, critic, entropy_coeff=0.001, normalize_advantage=True)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    while len(makespans_s) < given.episodes:
        with torch.no_grad():
            steps = env.rollout(N_STEPS, actor, auto_reset=False, tensordict=state, break_when_any_done=False)
            state = env.maybe_reset(env.step_mdp(steps[:, -1]))
            gae(steps)
        makespans_s += steps["next", "makespan_s"].T[steps["next", "done"].squeeze(-1).T].tolist()
        for rows in torch.stack([torch.randperm(N_ENVS * N_STEPS) for _ in range(N_EPOCHS)]).reshape(-1, 160):
            optimizer.zero_grad()
            losses = loss(steps.reshape(-1)[rows])
            sum(losses[key] for key in ("loss_objective", "loss_critic", "loss_entropy")).backward()
            optimizer.step()
    given.report("PPO of TorchRL", makespans_s[: given.episodes])


if __name__ == "__main__":
    main()
