"""Engine: the reference simulator with a real clock: what it starts runs on workers, and ends when they say so."""

import heapq
import threading
import time

import numpy as np
import torch
from torch import Tensor

from placement_gym.errors import ExecutionError
from placement_gym.pytorch.executable import Executable, Read
from placement_gym.pytorch.functions import dtype_of
from placement_gym.pytorch.workers import Crew, Stream, copied, timed
from placement_gym.simulator.reference import EventKind, Key, ReferenceSimulator
from placement_gym.trace import Trace

Pair = tuple[int, int]


class Engine(ReferenceSimulator):
    """One run of a placed graph on a crew of workers.

    The order rules are inherited: the simulator decides what starts at an instant, and its queues, channels and trace
    are those of the run. Only time is replaced: an op or transfer that starts is handed to a worker, and when the
    worker has done it, it takes the lock, reads the clock and tells the simulator so, which handles all that follows
    in the same instant. So a worker mostly finds its next op in its queue without another thread having run.
    """

    def __init__(self, executable: Executable, crew: Crew, timeout_s: float) -> None:
        problem, placement = executable.problem, executable.placement
        exact = np.ones(problem.n_ops), np.ones(problem.graph.n_edges)
        super().__init__(problem, placement.op_device, executable.rule, executable.priority, *exact)
        self.executable, self.crew, self.timeout_s = executable, crew, timeout_s
        self.lock, self.done = threading.Lock(), threading.Event()
        self.began = 0.0
        self.n_left = problem.n_ops
        self.failure: tuple[str, BaseException] | None = None
        self.stopped = False
        self.op_kernel_s = np.zeros(problem.n_ops)
        self.waiting: dict[Pair, list[tuple[Key, int]]] = {pair: [] for pair in executable.pairs}
        self.known_channels: dict[Pair, set[int]] = {}
        self.edge_pair = {
            edge: (self.device[src], self.device[dst])
            for edge, (src, dst) in enumerate(
                zip(self.graph.edge_src.tolist(), self.graph.edge_dst.tolist(), strict=True)
            )
        }
        self.in_edges = [
            self.graph.in_edges[a:b].tolist()
            for a, b in zip(self.graph.in_start[:-1].tolist(), self.graph.in_start[1:].tolist(), strict=True)
        ]
        self.held: dict[int, tuple[Tensor, ...]] = {}
        self.readers = list(executable.holder_readers)
        self.live_bytes, self.peak_bytes = [0] * problem.n_devices, [0] * problem.n_devices
        self.dropped: list[tuple[Tensor, ...]] = []
        asked = {piece.op for result in executable.kernels.results.values() for piece in result.pieces}
        self.asked, self.kept = asked, dict[int, tuple[Tensor, ...]]()

    def run(self) -> Trace:
        """Runs everything and returns the trace.

        Raises:
            ExecutionError: An op or transfer failed, or the time is up.
        """
        try:
            with self.lock:
                self.began = time.perf_counter()
                # At time 0 whatever has no inputs starts; every other event waits for a worker.
                super().run()
            self.done.wait(self.timeout_s)
        finally:
            with self.lock:
                self.stopped = True
        if self.failure is not None:
            (what, error), self.failure = self.failure, None  # held no longer, or it and its tensors would be a cycle
            raise ExecutionError(f"{what} {_reason(error)}") from error
        if self.n_left:
            raise ExecutionError(f"timed out after {self.timeout_s} s; still running: {', '.join(self.running())}")
        return self.trace

    # What the simulator asks for, without durations and remembered where it is asked often.

    def schedule(self, time: float, kind: EventKind, item: int) -> None:
        """Hands what starts to a worker; events of this instant stay events."""
        if kind == "op_end":
            self.hold(item, self.device[item])
            self.crew.ops[self.device[item]].put((self.compute, item))
        elif kind == "transfer_end":
            pair = self.edge_pair[item]
            self.hold(self.problem.n_ops + item, pair[1])
            self.crew.transfers[pair].put((self.copy, item))
        else:
            super().schedule(time, kind, item)

    def op_duration(self, op: int) -> float:  # noqa: ARG002
        """Nothing: the worker says when the op ends."""
        return 0.0

    def transfer_times(self, edge: int) -> tuple[float, float]:  # noqa: ARG002
        """Nothing, as `op_duration`."""
        return 0.0, 0.0

    def carried(self, edge: int) -> list[int]:
        """As the simulator's, looked up."""
        return self.executable.edge_carried[edge]

    def channels(self, edge: int) -> set[int]:
        """As the simulator's, remembered by pair of devices."""
        pair = self.edge_pair[edge]
        if pair not in self.known_channels:
            self.known_channels[pair] = super().channels(edge)
        return self.known_channels[pair]

    def start_transfers(self) -> None:
        """As the simulator's, with a queue per pair of devices: all transfers of a pair need the same channels."""
        for key, edge in self.pending:
            heapq.heappush(self.waiting[self.edge_pair[edge]], (key, edge))
        self.pending.clear()
        while True:
            first = [queue for queue in self.waiting.values() if queue and not self.channels(queue[0][1]) & self.taken]
            if not first:
                return
            self.start_transfer(heapq.heappop(min(first, key=lambda queue: queue[0]))[1])

    def end_op(self, op: int) -> None:
        """As the simulator's, after what only this op still needed is let go."""
        for edge in self.in_edges[op]:
            self.let_go(self.executable.edge_holder[edge])
        self.let_go(op)
        super().end_op(op)

    def end_transfer(self, edge: int) -> None:
        """As the simulator's, after the sender's tensor is let go."""
        self.let_go(self.executable.edge_read[edge].holder)
        super().end_transfer(edge)

    def drain(self) -> None:
        """Handles what is left of this instant: its events, and with whole instants the choice of all resources."""
        if self.whole:
            self.start_transfers()
            for device in range(self.problem.n_devices):
                self.start_ops(device)
        while self.events:
            _, _, kind, item = heapq.heappop(self.events)
            if kind == "edge":
                self.deliver(item)
            else:
                self.join_device_queue(item)
                self.start_ops(self.device[item])

    # What workers do.

    def compute(self, op: int, stream: Stream | None) -> None:
        """Computes an op and tells the simulator that it has ended."""
        if self.stopped:
            return
        try:
            operands = [self.found(read) for read in self.executable.op_reads[op]]
            outputs, seconds = timed(self.executable.op_code[op], operands, stream)
            self.check_outputs(op, outputs)
            with self.lock:
                if self.stopped:
                    return
                self.now = time.perf_counter() - self.began
                self.op_kernel_s[op] = seconds
                self.held[op] = outputs
                if op in self.asked:
                    self.kept[op] = outputs
                self.end_op(op)
                self.drain()
                self.n_left -= 1
                if self.n_left == 0:
                    self.trace.last_event_s = self.now
                    self.done.set()
                dropped, self.dropped = self.dropped, []
            # Returning memory to the system takes long: not under the lock.
            dropped.clear()
        except BaseException as error:  # noqa: BLE001  (the main thread raises it)
            self.fail(self.op_text(op), error)

    def copy(self, edge: int, stream: Stream | None) -> None:
        """Makes a transfer and tells the simulator that it has arrived."""
        if self.stopped:
            return
        try:
            read, dst = self.executable.edge_read[edge], self.edge_pair[edge][1]
            copy = copied(self.found(read), self.crew.devices[dst].memory, stream)
            with self.lock:
                if self.stopped:
                    return
                self.now = time.perf_counter() - self.began
                self.held[self.problem.n_ops + edge] = (copy,)
                self.end_transfer(edge)
                self.drain()
                dropped, self.dropped = self.dropped, []
            dropped.clear()
        except BaseException as error:  # noqa: BLE001  (the main thread raises it)
            self.fail(self.transfer_text(edge), error)

    def found(self, read: Read) -> Tensor:
        """An operand."""
        if read.value is not None:
            return read.value
        tensor = self.held[read.holder][read.output]
        return tensor if read.index is None else tensor[read.index]

    def check_outputs(self, op: int, outputs: tuple[Tensor, ...]) -> None:
        """Raises unless the outputs are those that the kernel is said to have.

        Raises:
            ExecutionError: Another number of outputs, another shape or dtype.
        """
        got = tuple((tuple(tensor.shape), tensor.dtype) for tensor in outputs)
        if got != self.executable.op_outputs[op]:
            raise ExecutionError(f"it returned {got}; expected {self.executable.op_outputs[op]}")

    # Memory.

    def hold(self, holder: int, device: int) -> None:
        """Counts the bytes of what is about to be made."""
        self.live_bytes[device] += self.executable.holder_bytes[holder]
        self.peak_bytes[device] = max(self.peak_bytes[device], self.live_bytes[device])

    def let_go(self, holder: int) -> None:
        """One reader less; the last one frees."""
        self.readers[holder] -= 1
        if self.readers[holder] == 0:
            n = self.problem.n_ops
            device = self.device[holder] if holder < n else self.edge_pair[holder - n][1]
            self.live_bytes[device] -= self.executable.holder_bytes[holder]
            self.dropped.append(self.held.pop(holder))

    def results(self) -> dict[str, Tensor]:
        """The results, on the CPU."""
        found = {}
        for name, result in self.executable.kernels.results.items():
            found[name] = torch.empty(result.shape, dtype=dtype_of(result.dtype))
            for piece in result.pieces:
                region = piece.region or tuple((0, size) for size in result.shape)
                found[name][tuple(slice(a, b) for a, b in region)] = self.kept[piece.op][piece.output].cpu()
        return found

    # Failure.

    def fail(self, what: str, error: BaseException) -> None:
        """Stops the run; the first failure counts."""
        with self.lock:
            if not self.stopped:
                self.stopped = True
                self.failure = what, error
                self.done.set()

    def running(self) -> list[str]:
        """Ops and transfers that have started and not ended."""
        trace = self.trace
        ops = np.flatnonzero(np.isfinite(trace.op_start_s) & np.isnan(trace.op_finish_s))
        edges = np.flatnonzero(np.isfinite(trace.transfer_start_s) & np.isnan(trace.transfer_arrival_s))
        return [*(self.op_text(op) for op in ops.tolist()), *(self.transfer_text(edge) for edge in edges.tolist())]

    def op_text(self, op: int) -> str:
        """An op in words."""
        return f"op {self.graph.op_names[op]!r} on {self.device_text(self.device[op])}"

    def transfer_text(self, edge: int) -> str:
        """A transfer in words."""
        src, dst = self.edge_pair[edge]
        name = self.graph.op_names[self.graph.edge_src[edge]]
        return f"transfer of op {name!r} from {self.device_text(src)} to {self.device_text(dst)}"

    def device_text(self, device: int) -> str:
        """A device in words."""
        name, torch_name = self.problem.device_names[device], self.crew.devices[device].name
        return f"device {name!r}" + ("" if name == torch_name else f" ({torch_name})")


def _reason(error: BaseException) -> str:
    # The CPU's allocator raises a plain RuntimeError.
    full = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)
    what = "ran out of memory" if full else "failed"
    return f"{what} ({type(error).__name__}: {error})"
