"""`refine.cpp` in plain Python, step by step: the same result where that was not built, hundreds of times slower."""

from __future__ import annotations

import bisect
import heapq
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

CANDIDATES, PARTNERS, FRUITLESS, CRITICAL, LONGEST, SAMPLED = 3, 32, 40, 8, 512, 16  # as in refine.cpp
_MASK = 2**64 - 1
Choice = tuple[int, int]  # (-gain, core): the best comes first


def refine(**given: Any) -> tuple[NDArray[np.int32], int]:
    """The refined part, and the budget that is left."""
    run = _Refinement(given)
    part, apart = ([int(number) for number in given[key]] for key in ("part", "apart"))
    run.run(_Graph.of(given), part, apart, given["rounds"])
    return np.array(part, np.int32), run.budget


def order(**given: Any) -> tuple[NDArray[np.int32], int]:
    """The place of each vertex, and the budget that is left."""
    graph, run = _Graph.of(given), _Refinement(given)
    maps, largest = [], 2
    while graph.vertices > 1:
        into, number = run.cluster(graph, [], largest)
        if number == graph.vertices and largest > given["vertices"]:
            break
        maps.append(into)
        if number < graph.vertices:
            graph = graph.contracted(into, number)
        largest *= 2
    place = list(range(graph.vertices))
    for into in reversed(maps):
        ranked = sorted(range(len(into)), key=lambda v, into=into, place=place: place[into[v]])  # type: ignore[misc]
        place = [0] * len(into)
        for at, v in enumerate(ranked):
            place[v] = at
    return np.array(place, np.int32), run.budget


class _Random:
    def __init__(self, state: int) -> None:
        self._state = state

    def shuffled(self, count: int) -> list[int]:
        found = list(range(count))
        for i in range(count - 1, 0, -1):
            x = self._state
            x ^= x >> 12
            x ^= (x << 25) & _MASK
            x ^= x >> 27
            self._state = x
            j = ((x * 2685821657736338717 & _MASK) >> 11) % (i + 1)
            found[i], found[j] = found[j], found[i]
        return found


class _Graph:
    """Pins of each net as {vertex: neurons of it}, in order; pins and nets of each vertex."""

    def __init__(self, pins: list[dict[int, int]], source: list[int], size: list[int], frozen: list[bool]) -> None:
        self.pins, self.source, self.size, self.frozen = pins, source, size, frozen
        self.vertices = len(size)
        self.listed = [list(net) for net in pins]
        self.incident: list[list[int]] = [[] for _ in size]
        self.own: list[list[int]] = [[] for _ in size]
        for e, net in enumerate(pins):
            for v in net:
                self.incident[v].append(e)
            if source[e] >= 0:
                self.own[source[e]].append(e)

    @classmethod
    def of(cls, given: dict[str, Any]) -> _Graph:
        ends, pins = given["pins_at"].tolist(), given["pins"].tolist()
        nets = [dict.fromkeys(pins[a:b], 1) for a, b in itertools.pairwise(ends)]
        return cls(nets, given["source"].tolist(), given["size"].tolist(), given["frozen"].astype(bool).tolist())

    def contracted(self, into: list[int], number: int) -> _Graph:
        size, frozen = [0] * number, [False] * number
        for v, u in enumerate(into):
            size[u] += self.size[v]
            frozen[u] |= self.frozen[v]
        pins = []
        for net in self.pins:
            merged: dict[int, int] = {}
            for v, times in net.items():
                merged[into[v]] = merged.get(into[v], 0) + times
            pins.append(merged)
        return _Graph(pins, [into[v] if v >= 0 else -1 for v in self.source], size, frozen)


class _State:
    def __init__(self, graph: _Graph, given: dict[str, Any], part: list[int]) -> None:
        self.g, self.part = graph, part
        self.weight, self.table = given["weight"].tolist(), given["table"].tolist()
        self.rows = given["rows"].tolist()
        self.most = [given[key] for key in ("most_neurons", "most_in", "most_out", "most_bits")]
        into, out, bits = given["fixed"].tolist()
        self.loads = [[0] * given["cores"], into, out, bits]
        self.over = self.looked = 0
        self.slots: list[dict[int, int]] = [{} for _ in graph.pins]
        for e, net in enumerate(graph.pins):
            for v, times in net.items():
                self._add(e, part[v], times)
        for v, core in enumerate(part):
            self.loads[0][core] += graph.size[v]
        pairs = zip(self.loads, self.most, strict=True)
        self.over = sum(load > most for loads, most in pairs for load in loads)

    def look(self, v: int) -> tuple[int, dict[int, int]]:
        here, base = self.part[v], 0
        conn: dict[int, int] = {}
        looped: set[int] = set()
        for e in self.g.incident[v]:
            w, mine, slots = self.weight[e], self.g.source[e] == v, self.slots[e]
            if mine:
                looped.add(e)
            if w == 0:
                continue
            origin = self.part[self.g.source[e]] if self.g.source[e] >= 0 else -1
            base -= w
            for core, count in slots.items():
                if core != here:
                    conn[core] = conn.get(core, 0) + w
                elif count == self.g.pins[e][v] and (origin != here or mine):
                    base += w
            if origin not in (-1, here) and origin not in slots:
                conn[origin] = conn.get(origin, 0) + w
            self.looked += len(slots) + 1
        for e in self.g.own[v]:
            w = self.weight[e]
            if w == 0 or e in looped:
                continue
            for core in self.slots[e]:
                if core != here:
                    conn[core] = conn.get(core, 0) + w
                else:
                    base -= w
            self.looked += len(self.slots[e]) + 1
        return base, conn

    def choices(self, v: int, number: int) -> list[Choice]:
        base, conn = self.look(v)
        return heapq.nsmallest(number, [(-base - w, core) for core, w in conn.items()])

    def gain(self, v: int, core: int) -> int:
        base, conn = self.look(v)
        return base + conn.get(core, 0)

    def move(self, v: int, to: int) -> None:
        here = self.part[v]
        for e in self.g.own[v]:
            used = len(self.slots[e])
            self._change(2, here, -used)
            self._change(2, to, used)
        self._change(0, here, -self.g.size[v])
        self._change(0, to, self.g.size[v])
        self.part[v] = to
        for e in self.g.incident[v]:
            times = self.g.pins[e][v]
            self._remove(e, here, times)
            self._add(e, to, times)
            self.looked += len(self.slots[e])

    def _change(self, kind: int, core: int, by: int) -> None:
        loads, most = self.loads[kind], self.most[kind]
        self.over -= loads[core] > most
        loads[core] += by
        self.over += loads[core] > most

    def _add(self, e: int, core: int, times: int) -> None:
        held, rows = self.slots[e].get(core, 0), self.rows[self.table[e]]
        self.slots[e][core] = held + times
        self._change(3, core, rows[held + times] - (rows[held] if held else 0))
        if not held:
            self._change(1, core, 1)
            if self.g.source[e] >= 0:
                self._change(2, self.part[self.g.source[e]], 1)

    def _remove(self, e: int, core: int, times: int) -> None:
        held, rows = self.slots[e][core], self.rows[self.table[e]]
        self._change(3, core, rows[held - times] - rows[held])
        if held > times:
            self.slots[e][core] = held - times
            return
        del self.slots[e][core]
        self._change(1, core, -1)
        if self.g.source[e] >= 0:
            self._change(2, self.part[self.g.source[e]], -1)


class _Refinement:
    def __init__(self, given: dict[str, Any]) -> None:
        self.given, self.budget, self.random = given, given["budget"], _Random(given["seed"] * 2 + 1)
        self.weight, self.cores = given["weight"].tolist(), given["cores"]

    def run(self, graph: _Graph, part: list[int], apart: list[int], rounds: int) -> None:
        saved = 0
        for number in range(rounds):
            if self.budget <= 0:
                break
            gained = self._cycle(graph, part, part if number else apart)
            saved += gained
            if gained * 1000 < saved:
                break

    def cluster(self, g: _Graph, part: list[int], largest: int) -> tuple[list[int], int]:
        head, weight, alone = list(range(g.vertices)), list(g.size), [True] * g.vertices
        for v in self.random.shuffled(g.vertices):
            if not alone[v] or g.frozen[v]:
                continue
            rate: dict[int, int] = {}
            for e in (*g.incident[v], *g.own[v]):
                count = len(g.listed[e])
                if self.weight[e] == 0 or count > LONGEST:
                    continue
                score, step = (self.weight[e] << 8) // (count + 1) + 1, -(-count // SAMPLED)
                near = g.listed[e][v % step if step > 1 else 0 :: step]
                for u in (*near, g.source[e]):
                    if u < 0 or u == v or g.frozen[u] or (part and part[u] != part[v]):
                        continue
                    if weight[head[u]] + g.size[v] <= largest:
                        rate[head[u]] = rate.get(head[u], 0) + score
                self.budget -= count // (step or 1) // 4
            if rate:
                best = min(rate, key=lambda h, rate=rate: (-rate[h], h))  # type: ignore[misc]
                head[v] = best
                weight[best] += g.size[v]
                alone[v] = alone[best] = False
        numbers = {v: number for number, v in enumerate(v for v in range(g.vertices) if head[v] == v)}
        return [numbers[h] for h in head], len(numbers)

    def _cycle(self, finest: _Graph, part: list[int], apart: list[int]) -> int:
        levels, maps, parts = [finest], [], [part]
        neurons, largest = sum(finest.size), 4
        while largest * 2 * self.cores <= neurons:
            into, number = self.cluster(levels[-1], apart, largest)
            if number * 10 > levels[-1].vertices * 9:
                break
            coarse, coarse_apart = [0] * number, [0] * number
            for v, u in enumerate(into):
                coarse[u], coarse_apart[u] = parts[-1][v], apart[v]
            apart = coarse_apart
            levels.append(levels[-1].contracted(into, number))
            maps.append(into)
            parts.append(coarse)
            largest *= 3
        saved = 0
        for level in range(len(levels) - 1, -1, -1):
            saved += self._improve(levels[level], parts[level])
            if level:
                for v, u in enumerate(maps[level - 1]):
                    parts[level - 1][v] = parts[level][u]
        return saved

    def _improve(self, g: _Graph, part: list[int]) -> int:
        state = _State(g, self.given, part)
        if state.over:
            return 0
        saved = 0
        for number in range(4):
            if self.budget <= 0:
                break
            gained = self._moves(g, state) + self._swaps(g, state)
            if gained * 50 <= saved:
                gained += self._climb(g, state)
            saved += gained
            if gained == 0 or (number >= 2 and gained * 50 <= saved):
                break
        return saved

    def _moves(self, g: _Graph, state: _State) -> int:
        saved = 0
        for v in self.random.shuffled(g.vertices):
            if g.frozen[v] or self._spent(state):
                continue
            for loss, core in state.choices(v, CANDIDATES):
                if loss > 0:
                    break
                if self._moved(g, state, v, core):
                    saved -= loss
                    break
        return saved

    def _moved(self, g: _Graph, state: _State, v: int, core: int) -> bool:
        """Whether a vertex could move; it has then."""
        if state.loads[0][core] + g.size[v] > state.most[0]:
            return False
        here = state.part[v]
        state.move(v, core)
        if state.over == 0:
            return True
        state.move(v, here)
        return False

    def _swaps(self, g: _Graph, state: _State) -> int:
        wishes: list[tuple[int, int, int]] = []  # way, -gain, vertex
        for v in range(g.vertices):
            if self._spent(state):
                break
            if not g.frozen[v]:
                found = state.choices(v, CANDIDATES)
                wishes += [(state.part[v] * self.cores + core, loss, v) for loss, core in found]
        eager = sorted((wish for wish in wishes if wish[1] < 0), key=lambda wish: (wish[1], wish[2], wish[0]))
        wishes.sort()
        moved, saved = [False] * g.vertices, 0
        for way, loss, v in eager:
            if moved[v]:
                continue
            if self._spent(state):
                break
            here, there = divmod(way, self.cores)
            back, tries = there * self.cores + here, 0
            for at in range(bisect.bisect_left(wishes, (back, -(2**62), 0)), len(wishes)):
                if wishes[at][0] != back or tries >= PARTNERS:
                    break
                u = wishes[at][2]
                if moved[u]:
                    continue
                if loss + wishes[at][1] >= 0:
                    break
                tries += 1
                gained = state.gain(v, there)
                state.move(v, there)
                gained += state.gain(u, here)
                if gained > 0:
                    state.move(u, here)
                    if state.over == 0:
                        saved += gained
                        moved[v] = moved[u] = True
                        break
                    state.move(u, there)
                state.move(v, here)
        return saved

    def _climb(self, g: _Graph, state: _State) -> int:
        saved, search = 0, 0
        moved, pushed = [False] * g.vertices, [-1] * g.vertices
        for seed in self.random.shuffled(g.vertices):
            if g.frozen[seed] or moved[seed]:
                continue
            if self._spent(state):
                break
            search += 1
            heap: list[tuple[int, int]] = []  # -gain, vertex

            def push(v: int, heap: list[tuple[int, int]] = heap, search: int = search) -> None:
                if g.frozen[v] or moved[v] or pushed[v] == search:
                    return
                if first := state.choices(v, 1):
                    pushed[v] = search
                    heapq.heappush(heap, (first[0][0], v))

            push(seed)
            chain: list[tuple[int, int]] = []
            now = most = kept = 0
            while heap and len(chain) < kept + FRUITLESS:
                _, v = heapq.heappop(heap)
                found = state.choices(v, CANDIDATES)
                if found and heap and found[0][0] > heap[0][0]:
                    heapq.heappush(heap, (found[0][0], v))
                    continue
                here = state.part[v]
                for loss, core in found:
                    if self._moved(g, state, v, core):
                        now -= loss
                        moved[v] = True
                        chain.append((v, here))
                        if now > most:
                            most, kept = now, len(chain)
                        break
                pushed[v] = -1
                if not moved[v]:
                    continue
                for e in g.incident[v]:
                    left = state.slots[e].get(here, 0)
                    if self.weight[e] == 0 or len(g.listed[e]) > LONGEST or not 0 < left <= CRITICAL:
                        continue
                    for u in g.listed[e]:
                        if state.part[u] == here:
                            push(u)
                    if g.source[e] >= 0 and state.part[g.source[e]] == here:
                        push(g.source[e])
            for v, core in reversed(chain[kept:]):
                state.move(v, core)
            saved += most
        return saved

    def _spent(self, state: _State) -> bool:
        self.budget -= state.looked
        state.looked = 0
        return self.budget <= 0
