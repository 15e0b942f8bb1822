"""What the functions that kernels name compute, in torch."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name everyone uses)
from torch.nn import grad

from placement_gym.errors import ExecutionError, unknown_name
from placement_gym.op_kernel import Kernel, Source

Code = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
aten = torch.ops.aten


def dtype_of(name: str) -> torch.dtype:
    """The torch dtype of that name."""
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def _aligned(kernel: Kernel, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Views of the tensors whose axes are those of the output, of size 1 where a tensor lacks one."""
    inputs, _, output = kernel.equation.partition("->")
    views = []
    for tensor, axes in zip(tensors, inputs.split(","), strict=True):
        order = [axes.index(a) for a in output if a in axes]
        shape = [tensor.shape[axes.index(a)] if a in axes else 1 for a in output]
        views.append(tensor.permute(order).reshape(shape))
    return views


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the pair (axis -2) of every feature by its angle (Su et al., 2021, eq. 34)."""
    first, second = x.unbind(-2)
    c, s = cos.squeeze(-2), sin.squeeze(-2)
    return torch.stack([first * c - second * s, second * c + first * s], dim=-2)


ELEMENTWISE: Mapping[str, Callable[..., Tensor]] = {
    "exp": torch.exp,
    "log": torch.log,
    "relu": torch.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "square": torch.square,
    "rsqrt": torch.rsqrt,
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "relu_gradient": lambda dy, y: dy * (y > 0),
    "gelu_gradient": lambda dy, x: aten.gelu_backward(dy, x),
    "silu_gradient": lambda dy, x: aten.silu_backward(dy, x),
    "tanh_gradient": lambda dy, y: aten.tanh_backward(dy, y),
    "rsqrt_gradient": lambda dy, y: -0.5 * dy * y**3,
    "rotary": _rotate,
    "rotary_inverse": lambda x, cos, sin: _rotate(x, cos, -sin),
}


def _summed_axes(kernel: Kernel) -> list[int]:
    """Axes of the one input that the output lacks."""
    inputs, _, output = kernel.equation.partition("->")
    return [axis for axis, label in enumerate(inputs) if label not in output]


def _reduced(kernel: Kernel, tensors: Sequence[Tensor]) -> Tensor:
    inputs, _, output = kernel.equation.partition("->")
    axes = _summed_axes(kernel)
    x = tensors[0]
    small = x.sum(axes) if kernel.function == "sum" else x.amax(axes)
    left = [label for label in inputs if label in output]
    return small.permute([left.index(label) for label in output])


def _number(kernel: Kernel, name: str) -> int:
    option = dict(kernel.options)[name]
    assert isinstance(option, int)
    return option


def _real(kernel: Kernel, name: str) -> float:
    option = dict(kernel.options)[name]
    assert isinstance(option, (int, float))
    return option


def _convolution(kernel: Kernel, tensors: Sequence[Tensor]) -> Tensor:
    a, b = tensors
    stride, padding = _number(kernel, "stride"), _number(kernel, "padding")
    if kernel.function == "conv2d":
        return F.conv2d(a, b, stride=stride, padding=padding)
    shape = kernel.output_shapes[0]
    if kernel.function == "conv2d_input_gradient":
        made = grad.conv2d_input(shape, b, a, stride=stride, padding=padding)  # type: ignore[no-untyped-call]
    else:
        made = grad.conv2d_weight(a, shape, b, stride=stride, padding=padding)  # type: ignore[no-untyped-call]
    assert isinstance(made, Tensor)
    return made


def _pooling(kernel: Kernel, tensors: Sequence[Tensor]) -> Tensor:
    window, stride, padding = (_number(kernel, name) for name in ("window", "stride", "padding"))
    if kernel.function == "max_pool2d":
        return F.max_pool2d(tensors[0], window, stride=stride, padding=padding)
    dy, x = tensors
    at = F.max_pool2d(x, window, stride=stride, padding=padding, return_indices=True)[1]
    dx: Tensor = aten.max_pool2d_with_indices_backward(
        dy, x, [window] * 2, [stride] * 2, [padding] * 2, [1, 1], False, at
    )
    return dx


def _gather(kernel: Kernel, tensors: Sequence[Tensor]) -> Tensor:
    if kernel.function == "embedding":
        return F.embedding(tensors[1], tensors[0])
    shape = kernel.output_shapes[0]
    if kernel.function == "embedding_gradient":
        ids, dy = tensors
        return dy.new_zeros(shape).index_add_(0, ids.reshape(-1), dy.reshape(-1, shape[1]))
    axis, index = _number(kernel, "axis"), _number(kernel, "index")
    if kernel.function == "select":
        return tensors[0].select(axis, index)
    dx = tensors[0].new_zeros(shape)
    dx.select(axis, index).copy_(tensors[0])
    return dx


def _join(kernel: Kernel, tensors: Sequence[Tensor]) -> Tensor:
    """The sum, or the largest, of partial results."""
    if kernel.function == "join_max":
        out = torch.maximum(tensors[0], tensors[1])
        for tensor in tensors[2:]:
            torch.maximum(out, tensor, out=out)
        return out
    out = tensors[0] + tensors[1]
    for tensor in tensors[2:]:
        out += tensor
    return out


def _repartition(kernel: Kernel, tensors: Sequence[Tensor]) -> Tensor:
    """A tensor put together from pieces; the option `offsets` says where each begins, axis after axis."""
    shape = kernel.output_shapes[0]
    offsets = dict(kernel.options)["offsets"]
    assert isinstance(offsets, tuple)
    out = tensors[0].new_empty(shape)
    for k, tensor in enumerate(tensors):
        at = offsets[k * len(shape) : (k + 1) * len(shape)]
        out[tuple(slice(a, a + size) for a, size in zip(at, tensor.shape, strict=True))] = tensor
    return out


def _elementwise(kernel: Kernel, tensors: Sequence[Tensor]) -> Tensor:
    return ELEMENTWISE[kernel.function](*_aligned(kernel, tensors))


def _affine(kernel: Kernel, tensors: Sequence[Tensor]) -> Tensor:
    return _aligned(kernel, tensors)[0] * _real(kernel, "factor") + _real(kernel, "shift")


def _sgd(kernel: Kernel, tensors: Sequence[Tensor]) -> Tensor:
    w, dw = _aligned(kernel, tensors)
    return torch.add(w, dw, alpha=-_real(kernel, "learning_rate"))


def _expand(kernel: Kernel, tensors: Sequence[Tensor]) -> Tensor:
    return _aligned(kernel, tensors)[0].expand(kernel.output_shapes[0])


def _einsum(kernel: Kernel, tensors: Sequence[Tensor]) -> Tensor:
    return torch.einsum(kernel.equation, *tensors)


# Code of every function that a kernel may name.
CODE: Mapping[str, Callable[[Kernel, Sequence[Tensor]], Tensor]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("conv2d", "conv2d_input_gradient", "conv2d_weight_gradient"), _convolution),
    **dict.fromkeys(("max_pool2d", "max_pool2d_gradient"), _pooling),
    **dict.fromkeys(("embedding", "embedding_gradient", "select", "select_gradient"), _gather),
    **dict.fromkeys(("sum", "max"), _reduced),
    **dict.fromkeys(("join_add", "join_max"), _join),
    "einsum": _einsum,
    "affine": _affine,
    "sgd": _sgd,
    "expand": _expand,
    "repartition": _repartition,
}


def code_of(kernel: Kernel) -> Code:
    """What runs the kernel: takes its operands, returns its outputs, each contiguous.

    Raises:
        ExecutionError: The kernel's function is not known.
    """
    call = kernel.call
    if call is not None:

        def called(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
            made = call(*tensors)
            return tuple(made) if isinstance(made, (tuple, list)) else (made,)

        return called
    if kernel.function not in CODE:
        raise ExecutionError(unknown_name("kernel function", kernel.function, CODE))
    code = CODE[kernel.function]

    def computed(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (code(kernel, tensors).contiguous(),)

    return computed


def source_value(source: Source, generator: torch.Generator) -> Tensor:
    """A random tensor for a source, on the generator's device.

    Inputs are standard normal; weights are scaled by the root of about how many are summed over, so that activations
    keep their size: the rows of a matrix, all axes but the longest of what has more (kernels of convolutions, heads of
    attention); vectors (biases and gains) are near one; ids are uniform.
    """
    device = generator.device
    if source.n_values:
        return torch.randint(source.n_values, source.shape, generator=generator, device=device)
    value = torch.randn(source.shape, generator=generator, device=device, dtype=torch.float32)
    if source.kind == "parameter":
        shape = source.shape
        n_summed = shape[0] if len(shape) == 2 else value.numel() / max(shape, default=1)
        value = value / math.sqrt(n_summed) if len(shape) > 1 else 1 + 0.1 * value
    return value.to(dtype_of(source.dtype))
