"""The environments under TorchRL; skipped where it is not installed (`pip install "placement-gym[torchrl]"`)."""

from typing import Any

import gymnasium as gym
import pytest
import torch

import placement_gym as pg

pytest.importorskip("torchrl", reason="torchrl is not installed")
from torchrl.data import Unbounded
from torchrl.envs import ActionMask, EnvBase, GymEnv, GymWrapper, TransformedEnv, check_env_specs
from torchrl.envs.libs.gym import default_info_dict_reader

ENVS = sorted(name for name in gym.registry if name.startswith("placement_gym/"))
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "placement_gym/Assign-v0": [{}, {"reward": "dense", "groups": "colocation"}, {"noise": 0.1}],
    "placement_gym/SelectPlace-v0": [{}, {"action": "joint"}, {"priority": "selection", "reward": "dense"}],
}
CASES = [(name, options) for name in ENVS for options in OPTIONS.get(name, [{}])]
INFO = {
    "makespan_s": torch.float64,
    "objective_s": torch.float64,
    "excess_bytes": torch.float64,
    "overfull": torch.bool,
    "invalid_actions": torch.int64,
}


def native(name: str, mode: str, **options: Any) -> EnvBase:
    """GymWrapper over the native vector form, of problems of unlike sizes."""
    problems = [pg.workloads.layered(n_ops=n, n_devices=3, seed=n) for n in (5, 8)]
    vec = gym.make_vec(name, num_envs=3, autoreset_mode=mode, invalid="nearest", problems=problems, **options)
    return GymWrapper(vec, categorical_action_encoding=True)


@pytest.mark.parametrize("form", ["dict", "flat"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_scalar_form_keeps_its_specs(name: str, options: dict[str, Any], form: str) -> None:
    """check_env_specs plays random actions, allowed or not."""
    check_env_specs(GymEnv(name, invalid="nearest", observation=form, **options))


@pytest.mark.parametrize("mode", ["SAME_STEP", "DISABLED"])
@pytest.mark.parametrize("form", ["dict", "flat"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_native_vector_form_keeps_its_specs(name: str, options: dict[str, Any], form: str, mode: str) -> None:
    """In both modes that TorchRL takes."""
    check_env_specs(native(name, mode, observation=form, **options))


@pytest.mark.parametrize("mode", ["scalar", "SAME_STEP", "DISABLED"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_action_mask_allows_what_we_allow(name: str, options: dict[str, Any], mode: str) -> None:
    """Random actions under ActionMask are in the mask of their step; the scalar form would raise."""
    one = (
        GymEnv(name, categorical_action_encoding=True, **options) if mode == "scalar" else native(name, mode, **options)
    )
    env = TransformedEnv(one, ActionMask())
    env.set_seed(0)
    steps = env.rollout(60, break_when_any_done=False)
    actions = steps["action"].reshape(*steps.batch_size, 1)
    assert steps["action_mask"].gather(-1, actions).all()
    assert steps["next", "done"].sum() > 1


@pytest.mark.parametrize("mode", ["scalar", "DISABLED"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_infos_go_through_the_readers(name: str, options: dict[str, Any], mode: str) -> None:
    """All that the last info says; before the last step it is 0."""
    rows: tuple[int, ...] = () if mode == "scalar" else (3,)
    env = GymEnv(name, invalid="nearest", **options) if mode == "scalar" else native(name, mode, **options)
    spec = {key: Unbounded(rows, dtype=dtype) for key, dtype in INFO.items()}
    env.set_info_dict_reader(default_info_dict_reader(list(INFO), spec=spec))
    check_env_specs(env)
    steps = env.rollout(60, break_when_any_done=False)
    done = steps["next", "done"].squeeze(-1)
    assert (steps["next", "makespan_s"][done] > 0).all()
    assert (steps["next", "makespan_s"][~done] == 0).all()
    assert not steps["next", "overfull"].any()
