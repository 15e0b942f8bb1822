"""Small op graphs that can be run, and a made-up profile that holds their kernels."""

from placement_gym.costs.profile import DeviceModel, Profile, ProfiledDevice
from placement_gym.costs.timing import CopyPoint, CopyTimes, KernelTime, Timing
from placement_gym.graph import OpGraph
from placement_gym.op_kernel import Kernel, Kernels, Operand, Source

AT = "2026-01-01T00:00:00+00:00"


def chain(n_ops: int = 3, size: int = 16) -> OpGraph:
    """A matrix product, then ReLU after ReLU: two distinct kernels from `n_ops` = 2 on."""
    whole = (size, size)
    operands = (Operand(-1, whole, source="x"), Operand(-1, whole, source="w"))
    kernels = [Kernel("einsum", operands, (whole,), ("float32",), "ab,bc->ac")]
    kernels += [Kernel("relu", (Operand(i, whole),), (whole,), ("float32",), "ab->ab") for i in range(n_ops - 1)]
    return OpGraph.build(
        [f"op{i}" for i in range(n_ops)],
        [(i, i + 1, 4.0 * size**2) for i in range(n_ops - 1)],
        flops=[2.0 * size**3] + [float(size**2)] * (n_ops - 1),
        kernels=Kernels(tuple(kernels), {"x": Source("input", whole), "w": Source("parameter", whole)}, {}),
    )


def timing(seconds: float) -> Timing:
    """A measurement without spread."""
    return Timing(seconds, 0.0)


def made_up_profile(graph: OpGraph, *, at: str = AT, kernel_s: float = 1e-3) -> Profile:
    """Two CPU workers on which every kernel takes `kernel_s` alone and twice that loaded; copies at 1 and 0.5 GB/s."""
    assert graph.kernels is not None
    time = KernelTime(timing(kernel_s), timing(2 * kernel_s), at)
    points = tuple(CopyPoint(n, timing(1e-5 + n / 1e9), timing(1e-5 + n / 0.5e9)) for n in (1e3, 1e6))
    return Profile(
        machine="a CPU",
        torch_version="2.0",
        devices=tuple(ProfiledDevice(f"cpu:{k}", f"cpu:{k}", "cpu", 1e9) for k in range(2)),
        models={"cpu": DeviceModel("cpu", {"float32": 1e10}, 1e10, 1e-5, at)},
        kernel_times={"cpu": {kernel.signature: time for kernel in graph.kernels.op_kernels}},
        copies={("cpu", "cpu"): CopyTimes(points, at)},
    )
