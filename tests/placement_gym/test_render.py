"""Pictures: charts of placements under construction, animated GIFs, windows."""

from itertools import pairwise
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from matplotlib import pyplot
from PIL import Image

import placement_gym as pg
from placement_gym.errors import InvalidFile, InvalidOption
from placement_gym.render import Window, gantt_of_ops, save_gif


def episode(env_id: str) -> list[np.ndarray]:
    """The frames of an episode, from the reset on."""
    env = gym.make(f"placement_gym/{env_id}", render_mode="rgb_array")
    env.reset(seed=0)
    env.action_space.seed(0)
    frames, done = [env.render()], False
    while not done:
        _, _, done, _, _ = env.step(env.action_space.sample())
        frames.append(env.render())
    return frames  # type: ignore[return-value]


def test_a_chart_under_construction_shows_the_placed_ops_alone() -> None:
    """Two of three ops are placed, on devices 0 and 1, from 1 to 3 s and from 0 to 4 s."""
    problem = pg.Problem.from_times(pg.OpGraph.build(list("abc"), []), np.ones((3, 2)))
    figure = gantt_of_ops(problem, np.array([0, 1, -1]), np.array([1.0, 0.0, 9.0]), np.array([3.0, 4.0, 99.0]))
    (axes,) = figure.axes
    boxes = [path.get_extents().extents.tolist() for drawn in axes.collections for path in drawn.get_paths()]
    assert [(box[0], box[2]) for box in boxes] == [(1.0, 3.0), (0.0, 4.0)]
    assert axes.get_title() == f"{problem.name}: 2 of 3 ops placed, until 4 s"


def test_an_episode_is_saved_as_a_gif(tmp_path: Path) -> None:
    """One frame per step and one before; the picture grows, and the last one is the simulator's schedule."""
    frames = episode("Assign-v0")
    assert len(frames) == 13
    assert all((a != b).any() for a, b in pairwise(frames))
    save_gif(frames, tmp_path / "episode.gif", frames_per_s=8)
    with Image.open(tmp_path / "episode.gif") as image:
        assert (image.n_frames, image.size, image.info["duration"]) == (13, frames[0].shape[1::-1], 120)


def test_what_cannot_be_saved_says_so(tmp_path: Path) -> None:
    """No frames, frames of two sizes, no folder."""
    with pytest.raises(InvalidOption, match="at least one"):
        save_gif([], tmp_path / "none.gif")
    with pytest.raises(InvalidOption, match=r"\(2, 2, 3\), \(3, 2, 3\)"):
        save_gif([np.zeros((2, 2, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)], tmp_path / "two.gif")
    with pytest.raises(InvalidFile):
        save_gif([np.zeros((2, 2, 3), np.uint8)], tmp_path / "nowhere" / "one.gif")
    assert list(tmp_path.iterdir()) == []


def test_without_a_display_nothing_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Matplotlib's backend without windows is named, and what to use instead; the episode goes on."""
    before = pyplot.get_backend()
    pyplot.switch_backend("agg")
    try:
        env = gym.make("placement_gym/Assign-v0", render_mode="human")
        env.reset()
        env.step(env.action_space.sample())
        assert env.render() is None
        env.close()
        check_env(gym.make("placement_gym/Assign-v0", invalid="nearest").unwrapped)
    finally:
        pyplot.switch_backend(before)
    assert pyplot.get_fignums() == []
    assert "backend is 'agg'" in caplog.text
    assert "rgb_array" in caplog.text


def test_a_window_shows_one_image_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a backend that stands for one with windows: one figure, whose image is the last one shown."""
    monkeypatch.setattr(pyplot, "get_backend", lambda: "tkagg")
    window = Window()
    for grey in (10, 20):
        window.show(np.full((4, 6, 3), grey, np.uint8))
    (number,) = pyplot.get_fignums()
    assert pyplot.figure(number).axes[0].images[0].get_array()[0, 0, 0] == 20
    window.show(np.full((5, 6, 3), 30, np.uint8))
    assert len(pyplot.get_fignums()) == 1
    window.close()
    window.close()
    assert pyplot.get_fignums() == []
