"""Capture of torch modules."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from placement_gym.errors import CaptureError
from placement_gym.pytorch.capture import capture, capture_from


class TwoHeads(nn.Module):
    """A shared layer whose output two heads read; views and dropout on the way; tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)
        self.right.weight = self.left.weight
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[5, 8] -> [5, 4]."""
        y = self.dropout(self.shared(x)).view(-1, 8)
        return self.left(y) + self.right(y.reshape(5, 8))


def test_ops_edges_and_bytes_by_hand() -> None:
    """Three linears and an add: FLOPs 2 * rows * in * out, float32 bytes, views folded, tied weights held once."""
    graph = capture(TwoHeads(), (torch.zeros(5, 8),))
    assert graph.op_kinds == ("linear", "linear", "linear", "add")
    assert graph.op_flops.tolist() == [2 * 5 * 8 * 8, 2 * 5 * 8 * 4, 2 * 5 * 8 * 4, 0]
    assert list(zip(graph.edge_src.tolist(), graph.edge_dst.tolist(), graph.edge_bytes.tolist(), strict=True)) == [
        (0, 1, 160.0),
        (0, 2, 160.0),
        (1, 3, 80.0),
        (2, 3, 80.0),
    ]
    assert graph.edge_tensor[0] == graph.edge_tensor[1]  # both heads read one tensor
    shared, head = 4 * (8 * 8 + 8), 4 * (4 * 8 + 4)
    assert graph.op_parameter_bytes.tolist() == [shared, head, 4 * 4, 0]
    assert graph.op_colocation[1] == graph.op_colocation[2] >= 0
    assert graph.op_colocation[0] == graph.op_colocation[3] == -1
    assert graph.op_traffic_bytes.tolist() == [160 + shared + 160, 160 + head + 80, 160 + head + 80, 240]
    assert graph.op_names[0] == "shared.linear"


def test_several_outputs_are_tensors_of_their_own() -> None:
    """Parts of a split are views of one tensor; outputs of topk are two tensors."""

    class Split(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a, b = x.exp().chunk(2)
            values, indices = (a + b).topk(2)
            return values * indices.float()

    graph = capture(Split(), (torch.zeros(4, 6),))
    assert graph.op_kinds == ("exp", "add", "topk", "to", "mul") or graph.op_kinds[:3] == ("exp", "add", "topk")
    topk = graph.op_kinds.index("topk")
    assert len(set(graph.edge_tensor[graph.edge_src == topk].tolist())) == 2
    assert (graph.edge_src == 0).sum() == 1  # both halves are the one tensor of exp, read once by add


def test_in_place_ops_are_followed() -> None:
    """A reader of a tensor that was changed in place reads the op that changed it."""

    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x + 1
            y.relu_()
            return y * 2

    graph = capture(InPlace(), (torch.zeros(3),))
    assert list(zip(graph.edge_src.tolist(), graph.edge_dst.tolist(), strict=True)) == [(0, 1), (1, 2)]


def test_flops_agree_with_torch_on_the_whole_model() -> None:
    """The sum over ops is what torch's counter says of a real forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    from placement_gym.pytorch.models import mixture_of_experts

    module, inputs = mixture_of_experts(n_layers=1, n_experts=2, width=32, hidden=64, tokens=8, batch=2)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    assert capture(module, inputs).op_flops.sum() == pytest.approx(counter.get_total_flops(), rel=1e-9)


def test_default_model_has_room_for_placement() -> None:
    """Total work is at least twice the critical path, without any weight allocated."""
    graph = capture_from("placement_gym.pytorch.models:mixture_of_experts")
    longest = np.zeros(graph.n_ops)
    for op in graph.order:
        tails = graph.edge_src[graph.in_edges[graph.in_start[op] : graph.in_start[op + 1]]]
        longest[op] = graph.op_flops[op] + (longest[tails].max() if tails.size else 0.0)
    assert graph.op_flops.sum() >= 2 * longest.max()


class Branching(nn.Module):
    """Its control flow depends on data, which no export can follow."""

    def forward(self, x: Tensor) -> Tensor:
        """Whatever."""
        if x.sum() > 0:
            return x + 1
        return x


def no_module() -> int:
    """Not a module."""
    return 3


def broken() -> None:
    """Fails."""
    raise RuntimeError("out of coffee")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("test_capture", "expected 'package.module:function'"),
        ("no_such_package:build", "cannot import 'no_such_package'"),
        ("test_capture:absent", "'test_capture' has no function 'absent'"),
        ("test_capture:no_module", r"returned int; expected \(nn.Module, tuple of example inputs\)"),
        ("test_capture:broken", r"test_capture.py:\d+ .*RuntimeError: out of coffee"),
    ],
)
def test_what_is_no_model_is_named(path: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong path or function gives one error that says what is wrong with it."""
    monkeypatch.setitem(sys.modules, "test_capture", sys.modules[__name__])
    with pytest.raises(CaptureError, match=said):
        capture_from(path)


def test_module_that_cannot_be_exported_names_the_line() -> None:
    """Data-dependent control flow: the error is one line with the file and line of the user's `if`."""
    with pytest.raises(CaptureError, match=r"Branching cannot be exported at .*test_capture\.py:\d+") as caught:
        capture(Branching(), (torch.zeros(3),))
    assert "if x.sum() > 0:" in str(caught.value)
    assert "\n" not in str(caught.value)
