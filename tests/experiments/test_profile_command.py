"""python -m experiments.profile: measures a workload; profiled costs and clusters read what it wrote."""

from pathlib import Path

import pytest
from executable import AT, chain, made_up_profile

from experiments import profile, solve
from placement_gym.costs.profile import Profile
from placement_gym.pytorch.devices import known_torch_devices

CHAIN = ["workload=toy", "workload._target_=executable.chain"]
CPUS = known_torch_devices()[:2]
QUICK = [*CHAIN, "seconds_per_kernel=0.002", f"torch_devices=[{','.join(CPUS)}]"]
SOLVE = [*CHAIN, "cluster=profiled", "costs=profiled", "baseline=heft", "tracking.wandb=disabled"]


def test_a_measured_workload_can_be_solved(
    workbench: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Profile, solve, profile again: the second time nothing is left to measure; a larger workload adds to it."""
    path = workbench / "profiles" / "here.json"
    monkeypatch.setenv("PLACEMENT_GYM_PROFILE", str(path))
    assert profile.main(QUICK) == 0
    out = capfd.readouterr().out
    assert "einsum[ab,bc->ac]" in out
    assert "relu[ab->ab]" in out
    assert "GFLOP/s" in out
    assert "cpu -> cpu" in out
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    first = Profile.load(path)
    assert len(first.kernel_times["cpu"]) == 2
    assert solve.main(SOLVE) == 0
    assert "toys" not in capfd.readouterr().err
    assert profile.main(QUICK) == 0
    assert Profile.load(path) == first
    assert profile.main([*QUICK, "+workload.size=8"]) == 0
    assert len(Profile.load(path).kernel_times["cpu"]) == 4


def test_an_interrupt_loses_nothing(
    workbench: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What was measured is in the file, and is not measured again."""
    from placement_gym.pytorch import profiler

    whole = profiler._Bench._kernel

    def interrupted(bench: object, model: object, workers: object, job: object) -> Profile:
        if job.kernel.function == "relu":  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return whole(bench, model, workers, job)  # type: ignore[arg-type]

    monkeypatch.setattr(profiler._Bench, "_kernel", interrupted)
    assert profile.main([*QUICK, "path=here.json"]) == 130
    before = Profile.load("here.json")
    assert [signature[:6] for signature in before.kernel_times["cpu"]] == ["einsum"]
    monkeypatch.setattr(profiler._Bench, "_kernel", whole)
    assert profile.main([*QUICK, "path=here.json"]) == 0
    after = Profile.load("here.json")
    assert len(after.kernel_times["cpu"]) == 2
    assert after.models == before.models
    assert before.kernel_times["cpu"].items() <= after.kernel_times["cpu"].items()


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        ([], 2, ["workload"]),
        (["workload=layered"], 1, ["'layered'", "a Problem", "ops with kernels"]),
        ([*CHAIN, "torch_devices=[tpu:0]"], 1, ["unknown torch device 'tpu:0'", "cpu:0"]),
        ([*CHAIN, "torch_devices=[]"], 1, ["torch_devices is empty"]),
        ([*CHAIN, "seconds_per_kernel=0"], 1, ["seconds_per_kernel is 0"]),
        ([*CHAIN, "path=other.json"], 1, ["not ", "'a CPU'", "expected one machine"]),
        ([*CHAIN, "path=broken.json"], 1, ["broken.json", "truncated"]),
        ([*CHAIN, "path=broken.json/p.json"], 1, ["broken.json"]),
        ([*CHAIN, "second=1"], 2, ["second"]),
    ],
)
def test_a_mistake_is_one_line(
    workbench: Path, capfd: pytest.CaptureFixture[str], argv: list[str], code: int, said: list[str]
) -> None:
    """With an exit code, and no profile written or changed."""
    made_up_profile(chain()).save("other.json")
    Path("broken.json").write_text("{")
    assert profile.main(argv) == code
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert "profile: error: " in lines[0]
    assert all(word in lines[0] for word in said), lines[0]
    assert sorted(path.name for path in workbench.rglob("*.json")) == ["broken.json", "other.json"]
    assert Profile.load("other.json") == made_up_profile(chain())


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([*SOLVE, "cluster.path=gone.json"], ["gone.json", "python -m experiments.profile workload=..."]),
        ([*SOLVE, "+workload.size=5"], ["'op0'", "einsum[ab,bc->ac]()(float32[5,5]", "python -m experiments.profile"]),
        ([*SOLVE, "cluster=4xp100_pcie"], ["p100-0", "cluster=profiled"]),
        ([*SOLVE[2:], "workload=pytorch"], ["aten.embedding.default", "was not measured on 'cpu'"]),
        ([*SOLVE, "costs.load=heavy"], ["unknown load 'heavy'", "alone, loaded, mean"]),
    ],
)
def test_costs_that_were_not_measured_are_one_line(
    workbench: Path, profile_file: Path, capfd: pytest.CaptureFixture[str], argv: list[str], said: list[str]
) -> None:
    """The line says which command measures them."""
    assert solve.main(argv) == 1
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert all(word in lines[0] for word in said), lines[0]


def test_the_table_has_the_kernels_with_most_time_first() -> None:
    """Times in milliseconds, speed from the op's FLOPs, long names cut."""
    graph = chain(3)
    lines = profile.kernel_lines(made_up_profile(graph), graph)
    assert [line[:3] for line in lines] == [
        ("relu[ab->ab]()(float32[16,16])->(float32[16…", "cpu", "2"),
        ("einsum[ab,bc->ac]()(float32[16,16],float32[1…"[:43] + "…", "cpu", "1"),
    ]
    assert lines[1][3:] == ("1.0000", "2.0000", "0 %", "0.004096")
    assert profile.copy_lines(made_up_profile(graph, at=AT)) == [
        ("cpu -> cpu", "alone", "10.0", "1.00", "0 %"),
        ("cpu -> cpu", "loaded", "10.0", "0.50", "0 %"),
    ]
