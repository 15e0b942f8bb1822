"""Every learner: same seed same weights, resumed equals uninterrupted, solves a toy, beats random."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import placement_gym as pg
from agents.agent import Agent, Update
from agents.gdp import Gdp, GdpConfig
from agents.learner import Learner
from agents.placeto import Placeto, PlacetoConfig
from agents.ppo import Ppo, PpoConfig
from agents.reinforce import Reinforce, ReinforceConfig
from agents.scripted import Random
from placement_gym.envs import Sizes
from placement_gym.errors import CheckpointMismatch, InvalidFile, InvalidOption

Make = Callable[..., Agent]
SMALL = ReinforceConfig(width=16, n_layers=1, imitation_updates=2)
SMALL_PLACETO = PlacetoConfig(width=8, n_rounds=1, imitation_updates=2, steps_per_update=8)
SMALL_GDP = GdpConfig(width=16, n_layers=1, n_heads=2, segment=6, imitation_updates=2, learning_rate=1e-2)
SMALL_PPO = PpoConfig(n_envs=4, episodes=2, width=16, n_layers=1, batch_size=64)


def vec(problem: pg.Problem, num_envs: int = 8, **options: Any) -> Any:
    """The native vector environment."""
    return gym.make_vec("placement_gym/Assign-v0", num_envs=num_envs, problem=problem, **options)


def make(name: str, problem: pg.Problem, seed: int = 0, **options: Any) -> Agent:
    """A small learner of that name, on an environment with these options."""
    if name == "reinforce":
        return Reinforce(vec(problem, **options), SMALL, seed=seed, torch_device="cpu")
    if name == "reinforce_greedy_rollout":
        config = ReinforceConfig(width=16, n_layers=1, control_variate="greedy_rollout")
        return Reinforce(vec(problem, **options), config, seed=seed, torch_device="cpu")
    if name == "placeto":
        return Placeto(vec(problem, **options), SMALL_PLACETO, seed=seed, torch_device="cpu")
    if name == "gdp":
        return Gdp(vec(problem, **options), SMALL_GDP, seed=seed, torch_device="cpu")
    if name == "ppo":
        return Ppo(vec(problem, **options), SMALL_PPO, seed=seed, torch_device="cpu")
    return Random(vec(problem, **options), seed=seed)


def weights(agent: Agent) -> list[torch.Tensor]:
    """All weights of the policy."""
    policy = agent.policy if isinstance(agent, Learner) else agent.model.policy  # type: ignore[attr-defined]
    return [p.detach().clone() for p in policy.parameters()]


def last(agent: Agent, simulator_calls: int) -> Update:
    """The last update of a training."""
    *_, update = agent.train(simulator_calls=simulator_calls)
    return update


LEARNERS = ["reinforce", "reinforce_greedy_rollout", "placeto", "gdp", "ppo"]
GRAPH = pg.workloads.layered(n_ops=16, n_devices=3, seed=1, ccr=1.0)


@pytest.mark.parametrize("name", LEARNERS)
def test_same_seed_same_weights(name: str) -> None:
    """One seed gives one set of weights, another seed another; global generators are left alone."""
    before = torch.get_rng_state()
    trained = []
    for seed in (3, 3, 4):
        agent = make(name, GRAPH, seed)
        last(agent, 48 if name != "ppo" else 16)
        trained.append(weights(agent))
    assert all(torch.equal(a, b) for a, b in zip(trained[0], trained[1], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(trained[0], trained[2], strict=True))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["reinforce", "placeto", "gdp"])
def test_views_and_padding_are_not_noticed(name: str) -> None:
    """Observations that the next step overwrites, and those padded to a larger problem, give the same weights."""
    trained = []
    for options in ({}, {"copy": False}, {"sizes": Sizes(20, 90, 5), "autoreset_mode": "DISABLED"}):
        agent = make(name, GRAPH, **options)
        end = last(agent, 32)
        assert end.best_op_device.shape == (GRAPH.n_ops,)
        trained.append(weights(agent))
    for other in trained[1:]:
        assert all(torch.equal(a, b) for a, b in zip(trained[0], other, strict=True))


@pytest.mark.parametrize("name", [*LEARNERS, "random"])
def test_resumed_equals_uninterrupted(name: str, tmp_path: Path) -> None:
    """Training stopped half-way, saved, loaded and gone on with ends as one that was never stopped."""
    calls = 96 if name != "ppo" else 32
    whole = make(name, GRAPH, 5)
    end = last(whole, calls)
    stopped = make(name, GRAPH, 5)
    for update in stopped.train(simulator_calls=calls):
        if update.simulator_calls >= calls / 2:
            break
    stopped.act_sampled(3, seed=0)
    stopped.save(tmp_path / "checkpoint.pt")
    resumed = type(stopped).load(tmp_path / "checkpoint.pt", vec(GRAPH))
    resumed_end = last(resumed, calls)
    assert resumed_end.simulator_calls == end.simulator_calls == calls
    assert resumed_end.best_makespan_s == end.best_makespan_s
    assert resumed_end.metrics["makespan_mean_s"] == end.metrics["makespan_mean_s"]
    if name != "random":
        assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


@pytest.mark.parametrize("name", [*LEARNERS, "random"])
def test_drawn_placements_are_the_seeds(name: str) -> None:
    """As many as asked for, the same for the same seed, others for another, and not all alike."""
    agent = make(name, GRAPH, 5)
    drawn = [agent.act_sampled(11, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0].shape == (11, GRAPH.n_ops)
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()
    assert len({tuple(placement) for placement in drawn[0].tolist()}) > 1


@pytest.mark.parametrize(
    ("name", "toy"),
    [
        pytest.param(name, toy, marks=pytest.mark.slow if name == "ppo" and toy != "memory_bound" else ())
        for name in LEARNERS
        for toy in ("two_chains", "memory_bound", "unlike_devices")
    ],
)
def test_solves_toys(name: str, toy: str) -> None:
    """The best placement found is the toy's optimum, is feasible and is what the simulator says it is."""
    made = pg.workloads.TOYS[toy]()
    end = last(make(name, made.problem), 240)
    assert end.best_makespan_s == made.optimum_s
    schedule = pg.simulate(made.problem, end.best_op_device, rule=made.rule)
    assert schedule.makespan_s == made.optimum_s


@pytest.mark.parametrize("name", ["reinforce", pytest.param("ppo", marks=pytest.mark.slow)])
def test_learns(name: str) -> None:
    """After training, mean and greedy episodes are well below the mean random one: the reward's sign is right."""
    problem = pg.workloads.layered(n_ops=24, n_devices=3, seed=2, ccr=2.0)
    random_mean = last(make("random", problem), 64).metrics["makespan_mean_s"]
    config = ReinforceConfig(width=32, n_layers=1, elite_weight=0.0)
    agent = Reinforce(vec(problem, 16), config, torch_device="cpu") if name == "reinforce" else make(name, problem)
    end = last(agent, 1000 if name == "reinforce" else 480)
    assert end.metrics["makespan_mean_s"] < 0.95 * random_mean
    assert pg.simulate(problem, agent.act_greedy()).makespan_s < 0.95 * random_mean


@pytest.mark.parametrize("name", [*LEARNERS, "random"])
def test_wrong_checkpoints_are_named(name: str, tmp_path: Path) -> None:
    """A checkpoint of another problem or agent, a damaged one and a missing one each say so."""
    path = tmp_path / "checkpoint.pt"
    agent = make(name, GRAPH)
    agent.save(path)
    kind = type(agent)
    with pytest.raises(CheckpointMismatch, match="a checkpoint of another problem"):
        kind.load(path, vec(pg.workloads.layered(n_ops=16, n_devices=3, seed=9)))
    other = Random if kind is not Random else Reinforce
    with pytest.raises(CheckpointMismatch, match=f"is a checkpoint of agent '{agent.name}'"):  # type: ignore[attr-defined]
        other.load(path, vec(GRAPH))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InvalidFile, match="not a checkpoint, or truncated"):
        kind.load(path, vec(GRAPH))
    with pytest.raises(InvalidFile, match="no such checkpoint"):
        kind.load(tmp_path / "absent.pt", vec(GRAPH))


def test_one_policy_fits_any_graph() -> None:
    """Weights trained on one problem run on another with more ops and devices."""
    small, large = make("reinforce", GRAPH), make("reinforce", pg.workloads.layered(n_ops=40, n_devices=5))
    assert isinstance(small, Reinforce)
    assert isinstance(large, Reinforce)
    large.policy.load_state_dict(small.policy.state_dict())
    assert large.act_greedy().shape == (40,)


def test_wrong_options_are_named() -> None:
    """Hyper-parameters outside their range and missing budgets say what was got and expected."""
    with pytest.raises(InvalidOption, match="unknown control_variate 'critic'; known: greedy_rollout, mean"):
        ReinforceConfig(control_variate="critic")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match=r"ReinforceConfig.learning_rate is 0"):
        ReinforceConfig(learning_rate=0.0)
    with pytest.raises(InvalidOption, match=r"PlacetoConfig.steps_per_update is 0; expected >= 1"):
        PlacetoConfig(steps_per_update=0)
    with pytest.raises(InvalidOption, match=r"GdpConfig.width is 10; expected a multiple of n_heads, 4"):
        GdpConfig(width=10)
    with pytest.raises(InvalidOption, match="n_epochs is 0"):
        PpoConfig(n_epochs=0)
    for name in [*LEARNERS, "random"]:
        with pytest.raises(InvalidOption, match="simulator_calls or seconds"):
            next(iter(make(name, GRAPH).train()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reinforce", "ppo"])
def test_beats_list_scheduling_on_the_default_workload(name: str) -> None:
    """On the default workload and cluster the agent ends better than the best of 50 critical-path schedules."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from placement_gym.pytorch.capture import capture_from

    conf = Path(__file__).parents[2] / "conf"
    cluster = instantiate(OmegaConf.load(conf / "cluster" / "4xp100_pcie.yaml"))
    graph = capture_from("placement_gym.pytorch.models:mixture_of_experts")
    problem = pg.Problem.build(graph, cluster)
    agent: Agent = Reinforce(vec(problem, 32)) if name == "reinforce" else Ppo(vec(problem))
    # By calls, not by seconds: a busy machine must not decide it. PPO takes a fifth of a second per call.
    *_, end = agent.train(simulator_calls=11_000 if name == "reinforce" else 3200)
    assert end.best_makespan_s < pg.baselines.critical_path(problem, n_tries=50).objective


def test_sampling_keeps_to_the_mask() -> None:
    """Episodes of all agents on a memory-bound problem with unsupported devices are feasible."""
    graph = pg.OpGraph.build([f"op{i}" for i in range(9)], [])
    time = np.ones((9, 3))
    time[0, 0] = time[1, 1] = np.inf
    problem = pg.Problem.from_times(graph, time, device_memory_bytes=3.0, op_memory_bytes=np.ones(9))
    for name in [*LEARNERS, "random"]:
        end = last(make(name, problem), 32)
        pg.Placement(end.best_op_device).check(problem)
