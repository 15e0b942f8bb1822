"""Configuration files: each composes and builds."""

import json
from copy import deepcopy
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
from executable import chain
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from agents.dual_config import DualPolicyConfig
from agents.gdp import GdpConfig
from agents.learner import LearnerConfig
from agents.placeto import PlacetoConfig
from agents.ppo import PpoConfig
from agents.reinforce import ReinforceConfig
from experiments import build, study
from experiments.command import CONF
from placement_gym.costs.model import ProfiledCost, RooflineCost
from placement_gym.errors import InvalidOption, InvalidRule
from placement_gym.graph import OpGraph
from placement_gym.methods import METHODS
from placement_gym.problem import Problem
from placement_gym.workloads import layered

# Where the published instances that a workload reads lie under shared/data.
PUBLISHED = {
    "doppler": "doppler/chain_mm_112nodes.txt",
    "dnn_partitioning": "dnn_partitioning/throughput-inputs",
    "dapple": "dapple/vgg-19-pbs-32.txt",
    "graph": "pipedream/vgg16.json",
}
# Agents that choose devices alone; the others choose ops too.
FOR_ASSIGN = ("gdp", "placeto", "ppo", "random", "reinforce")
WORKLOADS = sorted(path.stem for path in (CONF / "workload").glob("*.yaml"))


@cache
def _composed(verb: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(verb, overrides=list(overrides), return_hydra_config=True)


def _compose(verb: str, *overrides: str) -> DictConfig:
    config = deepcopy(_composed(verb, *overrides))
    HydraConfig.instance().set_config(config)
    return config


def _names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("name", [name for name in WORKLOADS if name not in PUBLISHED])
def test_every_workload_builds(name: str, tmp_path: Path) -> None:
    """Those that need no file beside the repository; that of an optional package, where it is installed."""
    if name == "transformers":
        pytest.importorskip("transformers", reason="the optional package transformers is not installed")
    layered(n_ops=5, n_devices=2).save(tmp_path / "problem.npz")
    options = {"saved": [f"workload.path={tmp_path / 'problem.npz'}"], "transformers": ["workload.config.n_layer=1"]}
    problem = build.build_problem(_compose("solve", f"workload={name}", *options.get(name, [])))
    assert problem.n_ops > 1
    assert problem.n_devices > 1
    assert name != "pytorch" or problem.name == "mixture_of_experts@4xp100_pcie"


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_published_workload_builds(name: str, shared_data: Path) -> None:
    """From the published files."""
    path = shared_data / PUBLISHED[name]
    file = path if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())[0]
    assert build.build_problem(_compose("solve", f"workload={name}", f"workload.path='{file}'")).n_ops > 1


@pytest.mark.usefixtures("profile_file")
@pytest.mark.parametrize("name", _names("cluster"))
def test_every_cluster_and_the_costs_make_a_problem(name: str) -> None:
    """Of any graph."""
    path = [f"cluster.path='{CONF.parent / 'placement_gym/presets/gpu_cpu.toml'}'"] if name == "toml" else []
    config = _compose("solve", f"cluster={name}", *path)
    graph = OpGraph.build(["a", "b"], [(0, 1, 8.0)], flops=[1e9, 1e9])
    problem = Problem.build(graph, instantiate(config.cluster), costs=instantiate(config.costs))
    assert problem.n_devices > 1
    assert problem.op_time_s[0].min() > 0


@pytest.mark.usefixtures("profile_file")
@pytest.mark.parametrize("name", _names("costs"))
def test_every_cost_model_builds_as_it_is_by_default(name: str) -> None:
    """It gives times to ops that can be run, and the file shows every option with its default."""
    config = _compose("solve", "cluster=profiled", f"costs={name}")
    costs = instantiate(config.costs)
    problem = Problem.build(chain(), instantiate(config.cluster), costs=costs)
    assert problem.op_time_s.min() > 0
    assert costs == (ProfiledCost.of_file() if name == "profiled" else RooflineCost())


def test_every_baseline_has_a_file_and_runs(tmp_path: Path) -> None:
    """conf/baseline and placement_gym.baselines name the same functions."""
    assert _names("baseline") == sorted(METHODS)
    problem = layered(n_ops=5, n_devices=2)
    split = {"fpgas": [{"nodes": problem.graph.op_names[:2]}, {"nodes": problem.graph.op_names[2:]}], "cpus": []}
    (tmp_path / "split.json").write_text(json.dumps(split))
    path = f"baseline.expert.path='{tmp_path / 'split.json'}'"
    config = _compose("solve", f"baseline=[{','.join(METHODS)}]", "workload=layered", path)
    for name, solve in build.build_baselines(config, build.build_rule(config)).items():
        result = solve(problem)
        assert result.baseline == name
        result.schedule.check()


@pytest.mark.parametrize("env", _names("env"))
def test_every_environment_builds_and_steps(env: str) -> None:
    """A batch as large as the file says; the first allowed actions are taken."""
    config = _compose("train", f"env={env}", "workload=layered", "workload.n_ops=6")
    vec_env = build.build_vector_env(config, build.build_problem(config), build.build_rule(config))
    observation, _ = vec_env.reset()
    observation, rewards, *_ = vec_env.step(observation["action_mask"].argmax(axis=1))
    assert rewards.shape == (config.env.num_envs,)
    assert observation["action_mask"].any(axis=1).all()


@pytest.mark.parametrize("env", _names("env"))
@pytest.mark.parametrize("agent", _names("agent"))
def test_every_agent_builds_on_every_environment(agent: str, env: str) -> None:
    """The agent places as many ops as the problem has, or says which environment it was made for."""
    config = _compose("train", f"agent={agent}", f"env={env}", "workload=layered", "workload.n_ops=6")
    problem = build.build_problem(config)
    vec_env = build.build_vector_env(config, problem, build.build_rule(config))
    made_for = "assign" if agent in FOR_ASSIGN else "select_place"
    if env != made_for:
        native = "AssignVectorEnv" if made_for == "assign" else "SelectPlaceVectorEnv"
        with pytest.raises(InvalidOption, match=f"expected the native {native}"):
            build.build_agent(config, vec_env)
        return
    assert build.build_agent(config, vec_env).act_greedy().shape == (6,)
    vec_env.close()


@pytest.mark.parametrize("name", _names("experiment"))
def test_every_experiment_composes_and_states_its_command(name: str) -> None:
    """Line 1 is the exact command that reproduces it."""
    first = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()[0]
    verb = first.removeprefix("# python -m experiments.").split()[0]
    assert first == f"# python -m experiments.{verb} experiment={name}"
    config = _compose(verb, f"experiment@_global_={name}")
    assert build.plain(DictConfig({key: value for key, value in config.items() if key != "hydra"}))


STUDIES = [
    name for name in _names("experiment") if "experiments.study" in (CONF / f"experiment/{name}.yaml").read_text()
]


@pytest.mark.parametrize("name", STUDIES)
def test_every_method_of_every_study_builds(name: str) -> None:
    """Its options are known to its baseline, or to its agent and environment."""
    config = _compose("study", f"experiment@_global_={name}")
    study.check_names(config)
    problem = layered(n_ops=6, n_devices=2)
    for method in config.methods:
        trial = study.trial_config(config, next(iter(config.workloads)), method, 3)
        rule = build.build_rule(trial)
        if "agent" in trial:
            vec_env = build.build_vector_env(trial, problem, rule)
            assert build.build_agent(trial, vec_env).simulator_calls == 0
            assert trial.budget.simulator_calls > 0
            vec_env.close()
        else:
            build.build_baselines(trial, rule)[method](problem).schedule.check()


@pytest.mark.parametrize("name", _names("workloads"))
def test_every_set_of_workloads_builds(name: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the published files, each with a budget."""
    monkeypatch.setenv("PLACEMENT_GYM_SHARED", str(shared_data.parent))
    config = _compose("study", f"workloads={name}", "+baseline@methods=heft")
    problems = study.build_problems(config)
    assert list(problems) == list(config.workloads)
    assert len({problem.fingerprint for problem in problems.values()}) == len(problems)
    assert all(section.simulator_calls >= 1000 for section in config.workloads.values())


def test_every_folder_of_conf_is_known_here() -> None:
    """A new group of configuration files needs a test of its own."""
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert groups == {"agent", "baseline", "cluster", "costs", "env", "experiment", "tracking", "workload", "workloads"}


@pytest.mark.parametrize(
    ("agent", "defaults"),
    [
        ("reinforce", ReinforceConfig()),
        ("placeto", PlacetoConfig()),
        ("gdp", GdpConfig()),
        ("ppo", PpoConfig()),
        ("dual_policy", DualPolicyConfig()),
    ],
    ids=["reinforce", "placeto", "gdp", "ppo", "dual_policy"],
)
def test_agents_are_configured_as_they_are_by_default(
    agent: str, defaults: LearnerConfig | PpoConfig | DualPolicyConfig
) -> None:
    """The file shows every hyper-parameter, with the value that the class has without the file."""
    shown = OmegaConf.load(Path(__file__).parents[2] / "conf" / "agent" / f"{agent}.yaml")
    values = {name: value for name, value in shown.config.items() if name != "_target_"}
    assert values == asdict(defaults)


def test_an_unknown_option_of_a_rule_is_named() -> None:
    """One line that lists the known ones, whatever the mapping holds."""
    with pytest.raises(InvalidRule, match="unknown option of a rule 'queu'; known: contention, "):
        build.build_rule(OmegaConf.create({"rule": {"queu": "priority"}}))
