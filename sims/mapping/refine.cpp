// Fewer packets between cores: neurons move or change places while no limit is broken, behind a plain C interface.
//
// A net is a source neuron's axons: it costs its weight for each core, other than its source's, that holds a target. Moves
// are made on clusters of neurons first and on single neurons last. Whole numbers only and ties by the lowest number, so
// that `refine.py` gives the same result.

#include <algorithm>
#include <cstdint>
#include <vector>

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace {

using Index = std::int64_t;
using Short = std::int32_t;

constexpr Index kVersion = 2;       // of this interface; sims/mapping/native.py asks for the same
constexpr Index kCandidates = 3;    // cores that a neuron's move is tried to
constexpr Index kPartners = 32;     // neurons that a neuron's change of places is tried with
constexpr Index kFruitless = 40;    // moves of a chain that has not saved anything since
constexpr Index kCritical = 8;      // pins of a net that are left on a core, and follow
constexpr Index kLongest = 512;     // pins of a net that says which neurons belong together
constexpr Index kSampled = 16;      // of its pins, at most

struct Random {
  std::uint64_t state;
  std::uint64_t next() {
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return state * 2685821657736338717ull >> 11;
  }
  std::vector<Short> shuffled(Index count) {
    std::vector<Short> order(count);
    for (Index i = 0; i < count; ++i) order[i] = static_cast<Short>(i);
    for (Index i = count - 1; i > 0; --i) std::swap(order[i], order[next() % (i + 1)]);
    return order;
  }
};

struct Graph {
  Index vertices = 0;
  std::vector<Index> pins_at{0}, incident_at, own_at;  // net -> its pins; vertex -> its pins; vertex -> nets it is source of
  std::vector<Short> pins, times;                      // target vertex, and how many neurons of it
  std::vector<Short> incident, incident_times, own;
  std::vector<Short> source, size;                     // of a net (-1: outside); neurons of a vertex that count
  std::vector<char> frozen;

  void turn() {  // from nets to vertices
    const Index nets = static_cast<Index>(source.size());
    incident_at.assign(vertices + 1, 0), own_at.assign(vertices + 1, 0);
    for (Short pin : pins) ++incident_at[pin + 1];
    for (Short from : source) if (from >= 0) ++own_at[from + 1];
    for (Index v = 0; v < vertices; ++v) incident_at[v + 1] += incident_at[v], own_at[v + 1] += own_at[v];
    incident.resize(pins.size()), incident_times.resize(pins.size()), own.resize(own_at[vertices]);
    std::vector<Index> at(incident_at.begin(), incident_at.end() - 1), own_next(own_at.begin(), own_at.end() - 1);
    for (Index e = 0; e < nets; ++e) {
      for (Index i = pins_at[e]; i < pins_at[e + 1]; ++i) {
        incident[at[pins[i]]] = static_cast<Short>(e);
        incident_times[at[pins[i]]++] = times[i];
      }
      if (source[e] >= 0) own[own_next[source[e]]++] = static_cast<Short>(e);
    }
  }
};

struct Problem {
  Index cores, most_neurons, most_in, most_out, most_bits, longest_row;
  const Index* weight;  // [nets]
  const Short* table;   // which row of `rows` says a net's memory [nets]
  const Index* rows;    // [tables][longest_row + 1]: bits of so many synapses of one net on one core
  Index budget;         // places looked at, so that the time is bounded and the result is not the clock's
};

struct Slot {
  Short core, count;
};

class State {
 public:
  State(const Graph& graph, const Problem& problem, std::vector<Short>& part, const Index* fixed)
      : g(graph), p(problem), part(part), neurons(p.cores), in(fixed, fixed + p.cores),
        out(fixed + p.cores, fixed + 2 * p.cores), bits(fixed + 2 * p.cores, fixed + 3 * p.cores), conn(p.cores, 0), seen(p.cores, 0), looped(graph.source.size(), 0) {
    const Index nets = static_cast<Index>(g.source.size());
    slots.resize(nets);
    for (Index e = 0; e < nets; ++e) {
      for (Index i = g.pins_at[e]; i < g.pins_at[e + 1]; ++i) add(e, part[g.pins[i]], g.times[i]);
    }
    for (Index v = 0; v < g.vertices; ++v) neurons[part[v]] += g.size[v];
    over = 0;
    for (Index c = 0; c < p.cores; ++c) {
      over += (neurons[c] > p.most_neurons) + (in[c] > p.most_in) + (out[c] > p.most_out) + (bits[c] > p.most_bits);
    }
  }

  struct Choice {
    Index gain;
    Short core;
  };

  // The cores where a vertex would save most, best first; only those that its nets reach already.
  Index choices(Short v, Choice* best, Index number) {
    const Index base = look(v);
    Index found = 0;
    for (Short core : touched) {
      const Choice choice{base + conn[core], core};
      Index at = found < number ? found++ : number;
      while (at > 0 && better(choice, best[at - 1])) {
        if (at < number) best[at] = best[at - 1];
        --at;
      }
      if (at < number) best[at] = choice;
    }
    return found;
  }

  Index gain(Short v, Short core) {
    const Index base = look(v);
    return base + conn[core];
  }

  void move(Short v, Short to) {
    const Short here = part[v];
    for (Index i = g.own_at[v]; i < g.own_at[v + 1]; ++i) {
      const Index used = static_cast<Index>(slots[g.own[i]].size());
      change(out, here, -used, p.most_out), change(out, to, used, p.most_out);
    }
    change(neurons, here, -g.size[v], p.most_neurons), change(neurons, to, g.size[v], p.most_neurons);
    part[v] = to;
    for (Index i = g.incident_at[v]; i < g.incident_at[v + 1]; ++i) {
      remove(g.incident[i], here, g.incident_times[i]);
      add(g.incident[i], to, g.incident_times[i]);
      looked += static_cast<Index>(slots[g.incident[i]].size());
    }
  }

  Index held(Short e, Short core) const {
    for (const Slot& slot : slots[e]) if (slot.core == core) return slot.count;
    return 0;
  }

  const Graph& g;
  const Problem& p;
  std::vector<Short>& part;
  Index over = 0, looked = 0;
  std::vector<Index> neurons, in, out, bits;

 private:
  static bool better(const Choice& one, const Choice& other) {
    return one.gain > other.gain || (one.gain == other.gain && one.core < other.core);
  }
  // What a vertex saves by leaving its core for one that no net of it reaches; `conn` is what each core of `touched` adds.
  Index look(Short v) {
    for (Short core : touched) conn[core] = 0, seen[core] = 0;
    touched.clear();
    ++round;
    const Short here = part[v];
    Index base = 0;
    for (Index i = g.incident_at[v]; i < g.incident_at[v + 1]; ++i) {
      const Short e = g.incident[i];
      const Index w = p.weight[e];
      const bool mine = g.source[e] == v;
      if (mine) looped[e] = round;
      if (w == 0) continue;
      const Short from = g.source[e] < 0 ? -1 : part[g.source[e]];
      bool at_source = from < 0 || from == here;
      base -= w;
      for (const Slot& slot : slots[e]) {
        if (slot.core != here) {
          reach(slot.core, w);
          at_source |= slot.core == from;
        } else if (slot.count == g.incident_times[i] && (from != here || mine)) {
          base += w;
        }
      }
      if (!at_source) reach(from, w);
      looked += static_cast<Index>(slots[e].size()) + 1;
    }
    for (Index i = g.own_at[v]; i < g.own_at[v + 1]; ++i) {
      const Short e = g.own[i];
      const Index w = p.weight[e];
      if (w == 0 || looped[e] == round) continue;
      for (const Slot& slot : slots[e]) {
        if (slot.core != here) reach(slot.core, w); else base -= w;
      }
      looked += static_cast<Index>(slots[e].size()) + 1;
    }
    return base;
  }
  void reach(Short core, Index w) {
    if (!seen[core]) seen[core] = 1, touched.push_back(core);
    conn[core] += w;
  }
  void change(std::vector<Index>& load, Short core, Index by, Index most) {
    over -= load[core] > most;
    load[core] += by;
    over += load[core] > most;
  }
  void add(Index e, Short core, Short times) {
    const Index* rows = p.rows + p.table[e] * (p.longest_row + 1);
    for (Slot& slot : slots[e]) {
      if (slot.core == core) {
        change(bits, core, rows[slot.count + times] - rows[slot.count], p.most_bits);
        slot.count += times;
        return;
      }
    }
    slots[e].push_back({core, times});
    change(bits, core, rows[times], p.most_bits);
    change(in, core, 1, p.most_in);
    if (g.source[e] >= 0) change(out, part[g.source[e]], 1, p.most_out);
  }
  void remove(Index e, Short core, Short times) {
    const Index* rows = p.rows + p.table[e] * (p.longest_row + 1);
    for (Slot& slot : slots[e]) {
      if (slot.core != core) continue;
      change(bits, core, rows[slot.count - times] - rows[slot.count], p.most_bits);
      slot.count -= times;
      if (slot.count == 0) {
        slot = slots[e].back();
        slots[e].pop_back();
        change(in, core, -1, p.most_in);
        if (g.source[e] >= 0) change(out, part[g.source[e]], -1, p.most_out);
      }
      return;
    }
  }

  std::vector<std::vector<Slot>> slots;
  std::vector<Index> conn;
  std::vector<char> seen;
  std::vector<Short> touched;
  std::vector<Index> looped;  // by net: the last look at a vertex that is its source and a target of it
  Index round = 0;
};

class Refinement {
 public:
  Refinement(const Problem& problem, const Index* fixed, std::uint64_t seed)
      : p(problem), fixed(fixed), random{seed * 2 + 1}, budget(problem.budget) {}

  // Clusters first, neurons last, again with other clusters while it pays -> what was saved. The first clusters join only
  // vertices of one number in `apart`.
  Index run(const Graph& graph, std::vector<Short>& part, const std::vector<Short>& apart, Index rounds) {
    Index saved = 0;
    for (Index round = 0; round < rounds && budget > 0; ++round) {
      const Index gained = cycle(graph, part, round ? part : apart);
      saved += gained;
      if (gained * 1000 < saved) break;
    }
    return saved;
  }

  // Joins vertices of one core (of any, where `part` is empty) that share nets -> the cluster of each, and how many.
  Index cluster(const Graph& g, const std::vector<Short>& part, Index largest, std::vector<Short>& into) {
    std::vector<Short> head(g.vertices), weight(g.size);
    std::vector<char> alone(g.vertices, 1);
    std::vector<Index> rate(g.vertices, 0);
    std::vector<Short> touched;
    for (Index v = 0; v < g.vertices; ++v) head[v] = static_cast<Short>(v);
    for (Short v : random.shuffled(g.vertices)) {
      if (!alone[v] || g.frozen[v]) continue;
      const auto rated = [&](Short e) {
        const Index first = g.pins_at[e], count = g.pins_at[e + 1] - first;
        if (p.weight[e] == 0 || count > kLongest) return;
        const Index score = (p.weight[e] << 8) / (count + 1) + 1, step = (count + kSampled - 1) / kSampled;
        const auto rates = [&](Short u) {
          const Short h = head[u];
          if (u == v || g.frozen[u] || (!part.empty() && part[u] != part[v]) || weight[h] + g.size[v] > largest) return;
          if (rate[h] == 0) touched.push_back(h);
          rate[h] += score;
        };
        for (Index i = step > 1 ? v % step : 0; i < count; i += step) rates(g.pins[first + i]);
        if (g.source[e] >= 0) rates(g.source[e]);
        budget -= count / (step ? step : 1) / 4;
      };
      for (Index i = g.incident_at[v]; i < g.incident_at[v + 1]; ++i) rated(g.incident[i]);
      for (Index i = g.own_at[v]; i < g.own_at[v + 1]; ++i) rated(g.own[i]);
      Short best = -1;
      for (Short h : touched) {
        if (best < 0 || rate[h] > rate[best] || (rate[h] == rate[best] && h < best)) best = h;
      }
      for (Short h : touched) rate[h] = 0;
      touched.clear();
      if (best >= 0) {
        head[v] = best, weight[best] += g.size[v];
        alone[v] = alone[best] = 0;
      }
    }
    into.assign(g.vertices, -1);
    Index number = 0;
    for (Index v = 0; v < g.vertices; ++v) {
      if (head[v] == v) into[v] = static_cast<Short>(number++);
    }
    for (Index v = 0; v < g.vertices; ++v) into[v] = into[head[v]];
    return number;
  }

  static Graph contract(const Graph& g, const std::vector<Short>& into, Index number) {
    Graph c;
    c.vertices = number;
    c.size.assign(number, 0), c.frozen.assign(number, 0);
    for (Index v = 0; v < g.vertices; ++v) c.size[into[v]] += g.size[v], c.frozen[into[v]] |= g.frozen[v];
    std::vector<Index> at(number, -1);
    const Index nets = static_cast<Index>(g.source.size());
    c.source.resize(nets), c.pins_at.reserve(nets + 1);
    for (Index e = 0; e < nets; ++e) {
      const Index first = static_cast<Index>(c.pins.size());
      for (Index i = g.pins_at[e]; i < g.pins_at[e + 1]; ++i) {
        const Short u = into[g.pins[i]];
        if (at[u] < first) {
          at[u] = static_cast<Index>(c.pins.size());
          c.pins.push_back(u), c.times.push_back(0);
        }
        c.times[at[u]] += g.times[i];
      }
      c.pins_at.push_back(static_cast<Index>(c.pins.size()));
      c.source[e] = g.source[e] < 0 ? -1 : into[g.source[e]];
    }
    c.turn();
    return c;
  }

  Index left() const { return budget; }

 private:
  Index cycle(const Graph& finest, std::vector<Short>& part, std::vector<Short> apart) {
    std::vector<Graph> levels;
    std::vector<std::vector<Short>> maps;
    std::vector<std::vector<Short>> parts{part};
    const Graph* g = &finest;
    Index neurons = 0;
    for (Short size : finest.size) neurons += size;
    for (Index largest = 4; largest * 2 * p.cores <= neurons; largest *= 3) {
      std::vector<Short> into;
      const Index number = cluster(*g, apart, largest, into);
      if (number * 10 > g->vertices * 9) break;
      std::vector<Short> coarse(number), coarse_apart(number);
      for (Index v = 0; v < g->vertices; ++v) coarse[into[v]] = parts.back()[v], coarse_apart[into[v]] = apart[v];
      apart = std::move(coarse_apart);
      levels.push_back(contract(*g, into, number));
      maps.push_back(into), parts.push_back(coarse);
      g = &levels.back();
    }
    Index saved = 0;
    for (Index level = static_cast<Index>(levels.size()); level >= 0; --level) {
      std::vector<Short>& now = parts[level];
      saved += improve(level ? levels[level - 1] : finest, now);
      if (level) {
        for (std::size_t v = 0; v < parts[level - 1].size(); ++v) parts[level - 1][v] = now[maps[level - 1][v]];
        levels.pop_back();
      }
    }
    part = parts[0];
    return saved;
  }

  Index improve(const Graph& g, std::vector<Short>& part) {
    State state(g, p, part, fixed);
    if (state.over) return 0;
    Index saved = 0;
    for (Index pass = 0; pass < 4 && budget > 0; ++pass) {
      Index gained = moves(g, state) + swaps(g, state);
      if (gained * 50 <= saved) gained += climb(g, state);
      saved += gained;
      if (gained == 0 || (pass >= 2 && gained * 50 <= saved)) break;
    }
    return saved;
  }

  Index moves(const Graph& g, State& state) {
    Index saved = 0;
    for (Short v : random.shuffled(g.vertices)) {
      if (g.frozen[v] || spent(state)) continue;
      State::Choice best[kCandidates];
      const Index found = state.choices(v, best, kCandidates);
      for (Index i = 0; i < found && best[i].gain >= 0; ++i) {
        if (state.neurons[best[i].core] + g.size[v] > p.most_neurons) continue;
        const Short here = state.part[v];
        state.move(v, best[i].core);
        if (state.over == 0) {
          saved += best[i].gain;
          break;
        }
        state.move(v, here);
      }
    }
    return saved;
  }

  struct Wish {
    Index way, gain;  // from core to core, as one number
    Short vertex;
  };

  // Two vertices change places where that saves something, though either may lose alone.
  Index swaps(const Graph& g, State& state) {
    std::vector<Wish> wishes;
    for (Index v = 0; v < g.vertices && !spent(state); ++v) {
      if (g.frozen[v]) continue;
      State::Choice best[kCandidates];
      const Index found = state.choices(static_cast<Short>(v), best, kCandidates);
      for (Index i = 0; i < found; ++i) {
        wishes.push_back({state.part[v] * p.cores + best[i].core, best[i].gain, static_cast<Short>(v)});
      }
    }
    std::vector<Wish> eager;
    for (const Wish& wish : wishes) if (wish.gain > 0) eager.push_back(wish);
    std::sort(eager.begin(), eager.end(), [](const Wish& a, const Wish& b) {
      return a.gain != b.gain ? a.gain > b.gain : a.vertex != b.vertex ? a.vertex < b.vertex : a.way < b.way;
    });
    std::sort(wishes.begin(), wishes.end(), [](const Wish& a, const Wish& b) {
      return a.way != b.way ? a.way < b.way : a.gain != b.gain ? a.gain > b.gain : a.vertex < b.vertex;
    });
    std::vector<char> moved(g.vertices, 0);
    Index saved = 0;
    for (const Wish& wish : eager) {
      if (moved[wish.vertex]) continue;
      if (spent(state)) break;
      const Short v = wish.vertex, here = static_cast<Short>(wish.way / p.cores), there = static_cast<Short>(wish.way % p.cores);
      const Index back = there * p.cores + here;
      auto partner = std::lower_bound(wishes.begin(), wishes.end(), back, [](const Wish& a, Index way) { return a.way < way; });
      for (Index tries = 0; partner != wishes.end() && partner->way == back && tries < kPartners; ++partner) {
        const Short u = partner->vertex;
        if (moved[u]) continue;
        if (wish.gain + partner->gain <= 0) break;
        ++tries;
        Index gained = state.gain(v, there);
        state.move(v, there);
        gained += state.gain(u, here);
        if (gained > 0) {
          state.move(u, here);
          if (state.over == 0) {
            saved += gained;
            moved[v] = moved[u] = 1;
            break;
          }
          state.move(u, there);
        }
        state.move(v, here);
      }
    }
    return saved;
  }

  // From one vertex after another a chain of moves, the losing ones too, kept up to where most was saved. A vertex moves in
  // one chain at most, whether that was kept or not: a sweep then takes about as many moves as there are vertices.
  Index climb(const Graph& g, State& state) {
    struct Entry {
      Index gain;
      Short vertex;
    };
    const auto lower = [](const Entry& a, const Entry& b) { return a.gain != b.gain ? a.gain < b.gain : a.vertex > b.vertex; };
    struct Step {
      Short vertex, from;
    };
    std::vector<char> moved(g.vertices, 0);
    std::vector<Index> pushed(g.vertices, -1);
    std::vector<Entry> heap;
    std::vector<Step> chain;
    Index saved = 0, search = 0;
    for (Short seed : random.shuffled(g.vertices)) {
      if (g.frozen[seed] || moved[seed]) continue;
      if (spent(state)) break;
      ++search;
      heap.clear(), chain.clear();
      State::Choice best[kCandidates];
      const auto push = [&](Short v) {
        if (g.frozen[v] || moved[v] || pushed[v] == search) return;
        State::Choice first[1];
        if (!state.choices(v, first, 1)) return;
        pushed[v] = search;
        heap.push_back({first[0].gain, v});
        std::push_heap(heap.begin(), heap.end(), lower);
      };
      push(seed);
      Index now = 0, most = 0;
      std::size_t kept = 0;
      while (!heap.empty() && chain.size() < kept + kFruitless) {
        std::pop_heap(heap.begin(), heap.end(), lower);
        const Short v = heap.back().vertex;
        heap.pop_back();
        const Index found = state.choices(v, best, kCandidates);
        if (found && !heap.empty() && best[0].gain < heap.front().gain) {
          heap.push_back({best[0].gain, v});
          std::push_heap(heap.begin(), heap.end(), lower);
          continue;
        }
        const Short here = state.part[v];
        for (Index i = 0; i < found; ++i) {
          if (state.neurons[best[i].core] + g.size[v] > p.most_neurons) continue;
          state.move(v, best[i].core);
          if (state.over) {
            state.move(v, here);
            continue;
          }
          now += best[i].gain;
          moved[v] = 1;
          chain.push_back({v, here});
          if (now > most) most = now, kept = chain.size();
          break;
        }
        pushed[v] = -1;
        if (!moved[v]) continue;
        for (Index i = g.incident_at[v]; i < g.incident_at[v + 1]; ++i) {
          const Short e = g.incident[i];
          const Index count = g.pins_at[e + 1] - g.pins_at[e];
          if (p.weight[e] == 0 || count > kLongest || state.held(e, here) == 0 || state.held(e, here) > kCritical) continue;
          for (Index j = g.pins_at[e]; j < g.pins_at[e + 1]; ++j) if (state.part[g.pins[j]] == here) push(g.pins[j]);
          if (g.source[e] >= 0 && state.part[g.source[e]] == here) push(g.source[e]);
        }
      }
      for (; chain.size() > kept; chain.pop_back()) state.move(chain.back().vertex, chain.back().from);
      saved += most;
    }
    return saved;
  }

  bool spent(State& state) {
    budget -= state.looked;
    state.looked = 0;
    return budget <= 0;
  }

  const Problem& p;
  const Index* fixed;
  Random random;
  Index budget;
};

}  // namespace

extern "C" {

struct Run {
  Index vertices, nets, cores, most_neurons, most_in, most_out, most_bits, longest_row;
  Index budget;  // in and out: what is left of it
  Index rounds, seed;
  const Index* pins_at;     // [nets + 1]
  const Short* pins;        // targets of each net, each once
  const Short* source;      // [nets]
  const Index* weight;      // [nets]
  const Short* table;       // [nets]
  const Index* rows;        // [tables, longest_row + 1]
  const Index* fixed;       // [3, cores]: in-axons, out-axons and bits that nothing here changes
  const Short* size;        // [vertices]
  const char* frozen;       // [vertices]
  const Short* apart;       // [vertices]: only those of one number are joined at first; within one core
  Short* part;              // [vertices], in and out; for the order: the place of each vertex
};
}

namespace {

Graph graph_of(const Run& run) {
  Graph g;
  g.vertices = run.vertices;
  g.pins_at.assign(run.pins_at, run.pins_at + run.nets + 1);
  g.pins.assign(run.pins, run.pins + g.pins_at.back());
  g.times.assign(g.pins.size(), 1);
  g.source.assign(run.source, run.source + run.nets);
  g.size.assign(run.size, run.size + run.vertices);
  g.frozen.assign(run.frozen, run.frozen + run.vertices);
  g.turn();
  return g;
}

Problem problem_of(const Run& run) {
  return {run.cores, run.most_neurons, run.most_in, run.most_out, run.most_bits, run.longest_row,
          run.weight, run.table, run.rows, run.budget};
}

}  // namespace

EXPORT Index neuro_mapping_version() { return kVersion; }

// Refines `part` -> what was saved, in units of the weights.
EXPORT Index neuro_mapping_refine(Run* run) {
  const Graph g = graph_of(*run);
  const Problem problem = problem_of(*run);
  std::vector<Short> part(run->part, run->part + run->vertices);
  Refinement refinement(problem, run->fixed, static_cast<std::uint64_t>(run->seed));
  const std::vector<Short> apart(run->apart, run->apart + run->vertices);
  const Index saved = refinement.run(g, part, apart, run->rounds);
  run->budget = refinement.left();
  std::copy(part.begin(), part.end(), run->part);
  return saved;
}

// Fills `part` with an order in which vertices that share nets are near each other: clusters of clusters, side by side.
EXPORT void neuro_mapping_order(Run* run) {
  Graph g = graph_of(*run);
  const Problem problem = problem_of(*run);
  Refinement refinement(problem, run->fixed, static_cast<std::uint64_t>(run->seed));
  std::vector<std::vector<Short>> maps;
  for (Index largest = 2; g.vertices > 1; largest *= 2) {
    std::vector<Short> into;
    const Index number = refinement.cluster(g, {}, largest, into);
    if (number == g.vertices && largest > run->vertices) break;
    maps.push_back(into);
    if (number < g.vertices) g = Refinement::contract(g, into, number);
  }
  std::vector<Index> place(g.vertices);
  for (Index v = 0; v < g.vertices; ++v) place[v] = v;
  for (auto map = maps.rbegin(); map != maps.rend(); ++map) {  // children in the order of their parents
    std::vector<Index> parent(map->size()), order(map->size());
    for (std::size_t v = 0; v < map->size(); ++v) parent[v] = place[(*map)[v]], order[v] = static_cast<Index>(v);
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return parent[a] < parent[b]; });
    place.assign(map->size(), 0);
    for (std::size_t i = 0; i < order.size(); ++i) place[order[i]] = static_cast<Index>(i);
  }
  for (Index v = 0; v < run->vertices; ++v) run->part[v] = static_cast<Short>(place[v]);
}
