"""Profile: merged, saved, loaded, and made a cluster."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from executable import AT, chain, made_up_profile

from placement_gym.costs.profile import Profile, ProfiledDevice, default_path, profiled_cluster
from placement_gym.errors import InvalidFile, InvalidProblem

LATER = "2026-01-02T00:00:00+00:00"


def test_a_saved_profile_is_loaded_as_it_was(tmp_path: Path) -> None:
    """Every measurement, to the last bit."""
    profile = made_up_profile(chain(), kernel_s=0.1 / 3)
    profile.save(tmp_path / "profile.json")
    assert Profile.load(tmp_path / "profile.json") == profile


def _without(content: dict[str, object], key: str) -> str:
    return json.dumps({name: value for name, value in content.items() if name != key})


@pytest.mark.parametrize("key", ["machine", "devices", "models", "kernel_times", "copies"])
def test_a_damaged_file_is_named(tmp_path: Path, key: str) -> None:
    """So is what is wrong with it."""
    path = tmp_path / "profile.json"
    made_up_profile(chain()).save(path)
    path.write_text(_without(json.loads(path.read_text()), key))
    with pytest.raises(InvalidFile, match=rf"profile\.json: damaged profile \(KeyError: '{key}'\)"):
        Profile.load(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format"', "truncated"),
        ('{"format": "x"}', "'x'; expected 'placement_gym.profile.v1'"),
        ("[]", "None; expected"),
    ],
)
def test_another_file_is_no_profile(tmp_path: Path, text: str, said: str) -> None:
    """The message says which format was expected."""
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(InvalidFile, match=rf"file\.json.*{said}"):
        Profile.load(tmp_path / "file.json")


def test_a_time_that_is_none_is_damage(tmp_path: Path) -> None:
    """The numbers are checked as those that are measured."""
    path = tmp_path / "profile.json"
    made_up_profile(chain()).save(path)
    path.write_text(path.read_text().replace('"median_s": 0.001', '"median_s": -0.001'))
    with pytest.raises(InvalidFile, match=r"damaged.*-0\.001; expected seconds > 0"):
        Profile.load(path)


def test_a_missing_profile_says_what_makes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is that of the environment variable, or the host's."""
    monkeypatch.setenv("PLACEMENT_GYM_PROFILE", str(tmp_path / "gone.json"))
    with pytest.raises(InvalidFile, match=r"gone\.json: no such profile.*python -m experiments\.profile"):
        profiled_cluster()
    monkeypatch.delenv("PLACEMENT_GYM_PROFILE")
    assert default_path().parent == Path("profiles")
    assert default_path().suffix == ".json"


def test_a_merged_profile_has_both_and_the_later_of_the_same() -> None:
    """Whichever of the two is given to the other."""
    early, late = made_up_profile(chain(2), kernel_s=1.0), made_up_profile(chain(1), at=LATER, kernel_s=2.0)
    (both,) = early.kernel_times["cpu"].keys() & late.kernel_times["cpu"].keys()
    for merged in (early.merged(late), late.merged(early)):
        assert merged.kernel_times["cpu"].keys() == early.kernel_times["cpu"].keys()
        assert merged.kernel_times["cpu"][both].alone.median_s == 2.0
        assert merged.models["cpu"].measured_at == LATER
        assert len(merged.devices) == 2
    assert early.merged(replace(late, models={}, copies={})).copies == early.copies


def test_profiles_of_two_machines_are_not_merged() -> None:
    """A time holds where it was measured."""
    profile = made_up_profile(chain())
    with pytest.raises(InvalidProblem, match="'a CPU', not 'another'"):
        profile.merged(replace(profile, machine="another"))


def test_a_cluster_has_the_measured_devices_and_links() -> None:
    """Copies at the speed that the load says; some of the devices, in the order asked for."""
    profile = made_up_profile(chain())
    cluster = profile.cluster()
    assert [device.name for device in cluster.devices] == ["cpu:0", "cpu:1"]
    assert cluster.devices[0].kind == "cpu"
    assert cluster.devices[0].launch_overhead_s == 1e-5
    np.testing.assert_allclose(cluster.latency_s, [[0, 1e-5], [1e-5, 0]])
    np.testing.assert_allclose(cluster.bytes_per_s, [[np.inf, 0.5e9], [0.5e9, np.inf]])
    np.testing.assert_allclose(profile.cluster(load="alone").bytes_per_s[0, 1], 1e9)
    assert [device.name for device in profile.cluster(["cpu:1"]).devices] == ["cpu:1"]


def test_a_cluster_of_what_was_not_measured_is_refused() -> None:
    """Unknown devices, models and copies are named, with what measures them."""
    profile = made_up_profile(chain())
    with pytest.raises(InvalidProblem, match="unknown device 'gpu'; known: cpu:0, cpu:1"):
        profile.cluster(["gpu"])
    with pytest.raises(InvalidProblem, match=r"no copy from 'cpu:0' to 'cpu:1'.*torch_devices=\[cpu:0,cpu:1\]"):
        replace(profile, copies={}).cluster()
    with pytest.raises(InvalidProblem, match="'cpu:0' was not measured to the end"):
        replace(profile, models={}).cluster()
    gpu = ProfiledDevice("cuda:0", "cuda:0", "a GPU", 1e9)
    with pytest.raises(InvalidProblem, match="no copy from 'cpu:0' to 'cuda:0'"):
        replace(profile, devices=(*profile.devices, gpu)).cluster()


def test_a_file_makes_a_cluster(tmp_path: Path) -> None:
    """With the options of `Profile.cluster`."""
    made_up_profile(chain(), at=AT).save(tmp_path / "p.json")
    cluster = profiled_cluster(str(tmp_path / "p.json"), ["cpu:1", "cpu:0"], load="alone")
    assert [device.name for device in cluster.devices] == ["cpu:1", "cpu:0"]
    assert cluster.bytes_per_s[0, 1] == pytest.approx(1e9)
