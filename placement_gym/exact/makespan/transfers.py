"""TransferModel: the transfers' half of the constraint programme for the makespan."""

from dataclasses import dataclass

import numpy as np

from placement_gym.contention import channels_of, egress, half_duplex, link, port
from placement_gym.exact.makespan.grid import FOREVER, Whole, least_off_diagonal
from placement_gym.exact.makespan.model import Case, Linear, Literal, OpModel
from placement_gym.trace import walk_order


@dataclass(slots=True, eq=False)
class Transfer:
    """A transfer that happens if `present`.

    Attributes:
        edge: The edge at which the simulator writes it, unless it is a multicast.
        op: Its producer.
        readers: Ops whose devices it reaches; one, except in a multicast.
        present: Literal.
        start: Units.
        arrival: Units, at most `slack` too early.
        release: Units, at most `slack` too early.
        size: From start to release.
        least_size: A number of units below the size.
        tail: Units that follow the arrival at least.
    """

    edge: int
    op: int
    readers: list[int]
    present: Literal
    start: Linear
    arrival: Linear
    release: Linear
    size: Linear
    least_size: int
    tail: int


@dataclass(slots=True, eq=False)
class Input:
    """A tensor that an op reads (an edge, where every edge pays).

    Attributes:
        edge: The first edge that carries the tensor.
        place: Place in the walk of the last edge that carries it to the op.
        cases: When it is delivered (`OpModel.add_readiness`).
    """

    edge: int
    place: int
    cases: list[Case]


class TransferModel:
    """Adds transfers to an `OpModel`; what it adds holds for rounded simulated schedules as well.

    * A transfer starts when its producer is done or later (at once without contention); its readers' inputs arrive
      with it. A tensor that several ops of one device read is carried once, by the transfer of the first of them in
      walking order.
    * A channel carries one transfer at a time, each until its release.
    * Nothing idles: a transfer starts when its producer is done or when one releases a channel that it uses too.
    * Let all channels of transfer a be channels of transfer b too. If a was made ready before b, a `fifo` queue cannot
      start b first: whenever b can start, so can a. Transfers of one op are made ready in walking order.

    More constraints on transfers with two channels are in `ports.py`.
    """

    def __init__(self, ops: OpModel) -> None:
        self.ops, self.model, self.rule, self.grid = ops, ops.model, ops.rule, ops.grid
        self.problem, self.reach = ops.problem, ops.reach
        self._and: dict[tuple[int, int], Literal] = {}
        self.pairs = channels_of(self.rule.contention, self.problem.device_node)
        self.contended = bool((self.pairs >= 0).any())
        # The rules that more can be said of than that a channel carries one transfer, told by their channels.
        alike = (
            rule.__name__
            for rule in (link, egress, port, half_duplex)
            if np.array_equal(self.pairs, channels_of(rule.__name__, self.problem.device_node))
        )
        self.shape = next(alike, "other")
        self._parts = self._channel_parts()
        tensors: dict[int, list[int]] = {}
        walk = walk_order(self.problem.graph, self.rule).tolist()
        for e in walk:
            one = e if self.rule.transfers == "edge" else -1 - int(self.problem.graph.edge_tensor[e])
            tensors.setdefault(one, []).append(e)
        inputs: list[list[Input]] = [[] for _ in range(self.problem.n_ops)]
        self.transfers: list[Transfer] = []
        for edges in tensors.values():
            ops.deadline.check()
            readers = list(dict.fromkeys(self.problem.graph.edge_dst[edges].tolist()))
            for reader, cases in zip(readers, self._add_tensor(edges, readers), strict=True):
                places = [walk.index(e) for e in edges if self.problem.graph.edge_dst[e] == reader]
                inputs[reader].append(Input(edges[0], places[-1], cases))
        last = [ops.add_readiness(op, [one.cases for one in ones]) for op, ones in enumerate(inputs)]
        if self.rule.queue == "fifo":
            self._add_ties(inputs, last)
        if self.contended:
            self._add_channels()
            for a, one in enumerate(self.transfers):
                self._add_turns(a, one)

    def _add_tensor(self, edges: list[int], readers: list[int]) -> list[list[Case]]:
        """Transfers of one tensor, carried by `edges` in walking order; the cases of delivery to each reader."""
        graph, ops = self.problem.graph, self.ops
        op = int(graph.edge_src[edges[0]])
        local = ops.end[op]
        away = [~ops.same(op, reader) for reader in readers]
        if self.rule.transfers == "multicast":
            one = self._transfer(edges[0], readers, self.any_of(away))
            return [[([~a], local), ([a], one.arrival)] for a in away]
        every: list[list[Case]] = []
        made: list[Transfer] = []
        for reader, remote in zip(readers, away, strict=True):
            together = [ops.same(earlier, reader) for earlier in readers[: len(made)]]
            first = next(e for e in edges if graph.edge_dst[e] == reader)
            made.append(self._transfer(first, [reader], self.all_of([remote, *(~t for t in together)])))
            cases: list[Case] = [([~remote], local), ([made[-1].present], made[-1].arrival)]
            # Delivered with what the first reader on this device gets.
            cases += [([m.present, t], m.arrival) for m, t in zip(made[:-1], together, strict=True)]
            every.append(cases)
            cheapest = least_off_diagonal(self.grid.flight[first])[0]
            self.model.add(ops.ready[reader] >= local + cheapest - cheapest * ~remote)
        return every

    def _transfer(self, edge: int, readers: list[int], present: Literal) -> Transfer:
        op, flight = int(self.problem.graph.edge_src[edge]), self.grid.flight[edge]
        ops, ready = self.ops, self.ops.end[op]
        time, after = self._longest(op, readers, flight), self._longest(op, readers, self.grid.after)
        tail = min(int(self.reach.tail[r] + ops.least[r]) for r in readers)
        start = ready
        if self.contended:
            start = self.model.new_int_var(int(self.reach.head[op] + ops.least[op]), ops.latest, "")
            self.model.add(start >= ready).only_enforce_if(present)
        least_size = least_off_diagonal(flight)[0] + least_off_diagonal(self.grid.after)[0]
        size, release = time + after, start + time + after
        if self.contended and not isinstance(size, int):
            # An interval takes no sums of several variables.
            size, release = (self.model.new_int_var(0, 2 * ops.latest + 2 * int(FOREVER), "") for _ in range(2))
            self.model.add(size == time + after)
            self.model.add(release == start + size)
        one = Transfer(edge, op, readers, present, start, start + time, release, size, least_size, tail)
        if self.rule.makespan == "last_event":
            self.model.add(ops.makespan >= one.release).only_enforce_if(present)
        if self.contended:
            self.transfers.append(one)
        return one

    def _longest(self, op: int, readers: list[int], values: Whole) -> Linear:
        """The largest value of [n_devices, n_devices] from the op's device to its readers' other devices."""
        least, most = least_off_diagonal(values)
        if least == most:
            return least
        each = []
        for reader in readers:
            each.append(self.model.new_int_var(0, most, ""))
            for k in range(len(values)):
                for d in range(len(values)):
                    given = [self.ops.on(op, k), self.ops.on(reader, d)]
                    self.model.add(each[-1] == int(values[k, d])).only_enforce_if(given)
        if len(each) == 1:
            return each[0]
        longest = self.model.new_int_var(0, most, "")
        self.model.add_max_equality(longest, each)
        return longest

    def all_of(self, literals: list[Literal]) -> Literal:
        """Whether all are true."""
        if len(literals) == 1:
            return literals[0]
        both = self.model.new_bool_var("")
        for literal in literals:
            self.model.add_implication(both, literal)
        self.model.add_bool_or([both, *(~literal for literal in literals)])
        return both

    def any_of(self, literals: list[Literal]) -> Literal:
        """Whether one is true."""
        return ~self.all_of([~literal for literal in literals])

    def _add_ties(self, inputs: list[list[Input]], last: list[list[Literal]]) -> None:
        """Ops that one event makes ready join a `fifo` queue in the order in which it delivers to them.

        If the last input of op a is delivered by an event that later in its walk delivers to op b of the same
        device, a is ready before b. Such an event is the arrival of a tensor that both read, or the end of a producer
        on their own device. Without contention, the same holds for two arrivals that are sent at once, one after the
        other, and take equally long.
        """
        graph, ops = self.problem.graph, self.ops
        at_once = not self.contended and self.rule.transfers != "multicast"
        for a, ones in enumerate(inputs):
            for one, is_last in zip(ones, last[a], strict=True):
                ops.deadline.check()
                for b, other in ((b, other) for b, others in enumerate(inputs) for other in others):
                    if a == b or graph.edge_src[one.edge] != graph.edge_src[other.edge] or one.place > other.place:
                        continue
                    longer = bool(graph.edge_bytes[one.edge] <= graph.edge_bytes[other.edge])
                    together = one.edge == other.edge or (at_once and longer)
                    given = [is_last, ops.same(a, b)]
                    if not together:
                        given.append(ops.same(a, int(graph.edge_src[one.edge])))
                    self.model.add_bool_or([*(~literal for literal in given), ops.first(a, b)])

    def _channel_parts(self) -> dict[int, list[tuple[int, int]]]:
        """What makes up each channel: (k, -1) all that leaves device k, (-1, d) all that enters d, (k, d) one pair."""
        n_devices = self.problem.n_devices
        parts: dict[int, list[tuple[int, int]]] = {}
        for channel in range(int(self.pairs.max(initial=-1)) + 1):
            left = set(zip(*(x.tolist() for x in np.nonzero((self.pairs == channel).any(axis=2))), strict=True))
            every = range(n_devices)
            lines = [((k, -1), {(k, d) for d in every if d != k}) for k in every]
            lines += [((-1, d), {(k, d) for k in every if d != k}) for d in every]
            parts[channel] = []
            for part, line in lines:
                if line and line <= left:
                    left -= line
                    parts[channel].append(part)
            parts[channel] += sorted(left)
        return parts

    def _add_channels(self) -> None:
        """No channel carries two transfers; the sendings and receptions of a device take their turns."""
        n_devices = self.problem.n_devices
        self.channels = channels = dict[int, list[tuple[Transfer, Literal]]]()
        self.uses: dict[int, dict[int, Literal]] = {}
        for one in self.transfers:
            self.ops.deadline.check()
            send = [self.all_of([one.present, self.ops.on(one.op, k)]) for k in range(n_devices)]
            reach = [[self.ops.on(r, d) for r in one.readers] for d in range(n_devices)]
            receive = [
                self.all_of([one.present, ~self.ops.on(one.op, d), self.any_of(reach[d])]) for d in range(n_devices)
            ]
            self.uses[id(one)] = {}
            for channel, parts in self._parts.items():
                literals = [
                    send[k] if d < 0 else receive[d] if k < 0 else self.all_of([send[k], receive[d]]) for k, d in parts
                ]
                literal = self.uses[id(one)][channel] = self.any_of(literals)
                channels.setdefault(channel, []).append((one, literal))
        for users in channels.values():
            intervals = [
                self.model.new_optional_fixed_size_interval_var(one.start, one.size, literal, "")
                if isinstance(one.size, int)
                else self.model.new_optional_interval_var(one.start, one.size, one.release, literal, "")
                for one, literal in users
            ]
            self.model.add_no_overlap(intervals)
            head = min(int(self.reach.head[one.op] + self.ops.least[one.op]) for one, _ in users)
            tail = min(one.tail for one, _ in users)
            load = sum(one.least_size * literal for one, literal in users)
            held = least_off_diagonal(self.grid.after)[1]
            self.model.add(load <= self.ops.makespan - head - tail + held)

    def shared(self, a: Transfer, b: Transfer) -> list[list[Literal]]:
        """Ways in which the two use one channel: what must hold for it, as literals."""
        if self.shape == "other":
            used = self.uses[id(b)]
            return [[uses, used[channel]] for channel, uses in self.uses[id(a)].items()]
        same = self.ops.same
        ends = [[same(a.op, b.op)]]
        if self.shape == "egress":
            return ends
        received = [[same(r, q)] for r in a.readers for q in b.readers]
        if self.rule.transfers == "multicast":
            # A reader on the producer's device receives nothing.
            pairs = [(r, q) for r in a.readers for q in b.readers]
            received = [[same(r, q), ~same(a.op, r), ~same(b.op, q)] for r, q in pairs]
        if self.shape == "link":
            return [ends[0] + one for one in received]
        if self.shape == "half_duplex":
            received += [[same(a.op, q)] for q in b.readers] + [[same(r, b.op)] for r in a.readers]
        return ends + received

    def _covered(self, a: Transfer, b: Transfer) -> list[list[Literal]]:
        """Ways in which a uses no channel that b does not use."""
        if self.shape == "other":
            return []
        if self.shape == "egress":
            return [[self.ops.same(a.op, b.op)]]
        if len(a.readers) > 1 or len(b.readers) > 1:
            return []
        (r,), (q,) = a.readers, b.readers
        ways = [[self.ops.same(a.op, b.op), self.ops.same(r, q)]]
        if self.shape == "half_duplex":
            ways.append([self.ops.same(a.op, q), self.ops.same(r, b.op)])
        return ways

    def _add_turns(self, a: int, one: Transfer) -> None:
        """Transfer a starts as soon as it can, and shares no channel with another at one time."""
        model, slack, ready = self.model, self.grid.slack, self.ops.end[one.op]
        idle: list[Literal] = [~one.present, model.new_bool_var("")]
        model.add(one.start <= ready + slack).only_enforce_if(idle[1])
        for b, other in enumerate(self.transfers):
            self.ops.deadline.check()
            if b == a or self.must_follow(other, one):
                continue
            before = self.first(b, a)
            for way in self.shared(other, one):
                blocked = model.new_bool_var("")
                idle.append(blocked)
                for literal in [other.present, before, *way]:
                    model.add_implication(blocked, literal)
                model.add(one.start <= other.release + slack).only_enforce_if(blocked)
                given = [one.present, other.present, before, *way]
                model.add(one.start >= other.release).only_enforce_if(given)
            if self.rule.queue != "fifo":
                continue
            for way in self._covered(one, other):
                given = [one.present, other.present, before, *way]
                if other.op == one.op:
                    # Both are made ready at once, the one that comes first in the walk before the other.
                    if b > a:
                        model.add_bool_or([~literal for literal in given])
                else:
                    model.add(self.ops.end[other.op] <= ready + slack).only_enforce_if(given)
        model.add_bool_or(idle)

    def must_follow(self, a: Transfer, b: Transfer) -> bool:
        """Whether transfer a cannot start before b has arrived everywhere, so that b never waits for a."""
        ahead = self.reach.ahead
        return all(bool(ahead[r, a.op]) or r == a.op for r in b.readers)

    def first(self, a: int, b: int) -> Literal:
        """Whether transfer a starts before transfer b where they share a channel."""
        if (min(a, b), max(a, b)) not in self._and:
            self._and[min(a, b), max(a, b)] = self.model.new_bool_var("")
        literal = self._and[min(a, b), max(a, b)]
        return literal if a < b else ~literal
