"""GraphExtractor: the features that stable-baselines3's policies see, on every environment."""

from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.preprocessing import preprocess_obs

import placement_gym as pg
from agents.networks.extractor import GraphExtractor
from placement_gym.envs import AssignEnv, PlacementEnv, SelectPlaceEnv, Sizes
from placement_gym.errors import InvalidOption

PROBLEM = pg.workloads.layered(n_ops=9, n_devices=3, seed=1)
FORMS: dict[str, Any] = {
    "assign": AssignEnv,
    "phased": lambda *args, **options: SelectPlaceEnv(*args, action="phased", **options),
    "joint": lambda *args, **options: SelectPlaceEnv(*args, action="joint", **options),
}


def extractor(env: PlacementEnv) -> GraphExtractor:
    """With the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GraphExtractor(env.observation_space, width=8, n_layers=2, per_device=4)  # type: ignore[arg-type]


def seen_by(network: GraphExtractor, env: PlacementEnv, *observations: dict[str, Any]) -> np.ndarray:  # type: ignore[type-arg]
    """The features of a batch, as stable-baselines3 hands observations over."""
    batch = {key: torch.from_numpy(np.stack([one[key] for one in observations])) for key in observations[0]}
    with torch.no_grad():
        features: np.ndarray = network(preprocess_obs(batch, env.observation_space)).numpy()  # type: ignore[type-arg]
    assert features.shape == (len(observations), network.features_dim)
    return features


def played(env: PlacementEnv, n_steps: int) -> list[dict[str, Any]]:
    """Observations of the first steps of an episode."""
    rng = np.random.default_rng(0)
    seen = [env.reset(seed=0)[0]]
    for _ in range(n_steps):
        seen.append(env.step(rng.choice(np.flatnonzero(env.action_masks())))[0])
    return seen


@pytest.mark.parametrize("form", FORMS)
def test_a_policy_learns_on_every_environment(form: str) -> None:
    """MaskablePPO plays and updates; its weights change, those of the extractor too."""
    env = FORMS[form](PROBLEM)
    kwargs = {"features_extractor_class": GraphExtractor, "features_extractor_kwargs": {"width": 8, "n_layers": 1}}
    model = MaskablePPO("MultiInputPolicy", env, n_steps=24, batch_size=12, n_epochs=2, policy_kwargs=kwargs, seed=0)
    network = model.policy.features_extractor
    before = [p.detach().clone() for p in network.parameters()]
    model.learn(24)
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_of_several_graphs_is_seen_as_each_of_them(form: str) -> None:
    """Two problems in one padded batch: every row is as in a batch of its own."""
    other = pg.workloads.layered(n_ops=7, n_devices=2, seed=2)
    env = FORMS[form](problems=[PROBLEM, other], sizes=Sizes(11, 60, 4))
    network, observations = extractor(env), []
    for problem in (PROBLEM, other):
        env.reset(options={"problem": problem})
        observations += played(env, 3)
    together = seen_by(network, env, *observations)
    alone = [seen_by(network, env, one)[0] for one in observations]
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_padding_of_the_graph_is_not_seen(form: str) -> None:
    """What is said of the op that is next, or of all ops, does not depend on how much the observation is padded."""
    last = []
    for sizes in (None, Sizes(20, 90, 6)):
        env = FORMS[form](PROBLEM, sizes=sizes)
        network = extractor(env)
        last.append(seen_by(network, env, *played(env, 2))[:, -8:])
    np.testing.assert_allclose(last[0], last[1], atol=1e-5)


def test_what_may_be_selected_is_seen() -> None:
    """Phased: features of ops are 0 but for those that are allowed, and all 0 while a device is chosen."""
    env = FORMS["phased"](PROBLEM)
    network = extractor(env)
    selecting, placing = played(env, 1)
    rows = seen_by(network, env, selecting, placing)[:, 3 * 4 : -8].reshape(2, PROBLEM.n_ops, 4)
    allowed = selecting["action_mask"][: PROBLEM.n_ops].astype(bool)
    assert rows[0, allowed].any()
    assert not rows[0, ~allowed].any()
    assert not rows[1].any()


def test_flat_observations_are_refused() -> None:
    """They have no graph."""
    env = AssignEnv(PROBLEM, observation="flat")
    with pytest.raises(InvalidOption, match="observation_space is a Box; the graph network expects a Dict"):
        GraphExtractor(env.observation_space)  # type: ignore[arg-type]
