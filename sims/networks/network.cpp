// Recurrent networks of integrate-and-fire neurons on one core, behind a plain C interface: no header of Python or numpy.
//
// A step does four things, in the order of Brian2: neurons whose refractory time is over return to the reset, every neuron
// moves on by dt, those above the threshold fire, and spikes that are `delay` steps old reach their targets.
//
//   - A refractory neuron has a membrane that is not a number: whatever is added to it, it stays so and is above no
//     threshold. There is no counter to test and no list to clamp.
//   - All spikes lie in one array, step after step. It is the record, the delay line and the list of who is refractory.
//   - In float32 the synaptic variables, whose decay is the same for all neurons, are kept divided by a common factor
//     that shrinks instead: a step reads three numbers of a neuron and writes one. In float64 they are multiplied, so that
//     every operation is that of Brian2's own update, rounded alike.
//   - Every other step goes through the neurons backwards, and finds in the cache what the step before read last.
//
// Products and sums are rounded one after the other (no fused multiply-add), so that every machine gives the same spikes.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

// One build runs on every x86-64 and uses what it finds there. Choosing while loading needs glibc.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif

#if defined(__GNUC__)
#define INLINE inline __attribute__((always_inline))
#define PREFETCH(at) __builtin_prefetch(at)
#else
#define INLINE inline
#define PREFETCH(at) static_cast<void>(at)
#endif

namespace {

using Index = std::int64_t;
using Word = std::uint32_t;

constexpr Index kVersion = 1;  // of this interface; sims/networks/native.py asks for the same
constexpr Index kStrip = 64;   // neurons of a strip: arrays of neurons are padded to a multiple of it
constexpr Index kLanes = kStrip / 4;
constexpr double kSmallest = 1.0 / (1 << 20);  // a common factor below this is multiplied out

}  // namespace

struct Run {
  Index neurons, excitatory, first, steps;  // the first step's number and how many to take
  Index refractory, delay, history;         // steps; history is the greater of the two, at least 1
  const Index* offsets;                     // [neurons + 1]: where the targets of a neuron start
  const void* targets;
  void *v, *e, *i;   // [neurons, padded]
  void* spikes;      // neurons, as wide as targets; those of the `history` steps before come first
  Index* ends;       // [history + steps + 1]: where the spikes of a step start
  double reset, threshold, excite, inhibit;
  double constants[8];
  std::uint64_t key;        // of the random numbers
  const Word* cumulative;   // [num_cumulative]: the drive's count is base + how many of these a random word reaches
  Index num_cumulative, base;
};

namespace {

// Philox4x32-10: Salmon et al. 2011, doi:10.1145/2063384.2063405. Word w of counter c in out[w * kLanes + c].
INLINE void philox(Index strip, Index step, std::uint64_t key, Word* __restrict out) {
  Word x0[kLanes], x1[kLanes], x2[kLanes], x3[kLanes];
  for (Index c = 0; c < kLanes; ++c) {
    x0[c] = static_cast<Word>(strip * kLanes + c);
    x1[c] = static_cast<Word>(step);
    x2[c] = static_cast<Word>(static_cast<std::uint64_t>(step) >> 32);
    x3[c] = 0;
  }
  Word k0 = static_cast<Word>(key), k1 = static_cast<Word>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    for (Index c = 0; c < kLanes; ++c) {
      const std::uint64_t p0 = static_cast<std::uint64_t>(0xD2511F53u) * x0[c];
      const std::uint64_t p1 = static_cast<std::uint64_t>(0xCD9E8D57u) * x2[c];
      x0[c] = static_cast<Word>(p1 >> 32) ^ x1[c] ^ k0;
      x2[c] = static_cast<Word>(p0 >> 32) ^ x3[c] ^ k1;
      x1[c] = static_cast<Word>(p1);
      x3[c] = static_cast<Word>(p0);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (Index c = 0; c < kLanes; ++c) {
    out[c] = x0[c];
    out[kLanes + c] = x1[c];
    out[2 * kLanes + c] = x2[c];
    out[3 * kLanes + c] = x3[c];
  }
}

// Two synaptic variables that decay by the same factors everywhere.
template <class Real>
struct Decaying {
  static constexpr bool kFolded = std::is_same<Real, float>::value;
  const Index padded;
  Real *const v, *const e, *const i;
  const Real threshold;
  const double decay_e, decay_i, excite, inhibit;
  double scale_e = 1.0, scale_i = 1.0;

  INLINE Decaying(const Run& r, double decay_e, double decay_i)
      : padded((r.neurons + kStrip - 1) / kStrip * kStrip),
        v(static_cast<Real*>(r.v)), e(static_cast<Real*>(r.e)), i(static_cast<Real*>(r.i)),
        threshold(static_cast<Real>(r.threshold)),
        decay_e(decay_e), decay_i(decay_i), excite(r.excite), inhibit(r.inhibit) {}

  INLINE void unfold() {
    const Real by_e = static_cast<Real>(scale_e), by_i = static_cast<Real>(scale_i);
    for (Index n = 0; n < padded; ++n) e[n] *= by_e;
    for (Index n = 0; n < padded; ++n) i[n] *= by_i;
    scale_e = scale_i = 1.0;
  }

  INLINE void after_sweep() {
    if (!kFolded) return;
    scale_e *= decay_e;
    scale_i *= decay_i;
    if (scale_e < kSmallest || scale_i < kSmallest) unfold();
  }

  INLINE void finish() {
    if (kFolded) unfold();
  }

  INLINE Real* row(bool excites) const { return excites ? e : i; }
  INLINE Real weight(bool excites) const { return static_cast<Real>(excites ? excite / scale_e : inhibit / scale_i); }
};

// v += dt / tau (ge + gi + rest - v) solved exactly: v = c0 + ((c1 ge + c2 gi) + c3 v).
template <class Real>
struct Cuba : Decaying<Real> {
  const double* const c;
  Real to_e, to_i;

  INLINE explicit Cuba(const Run& r) : Decaying<Real>(r, r.constants[4], r.constants[5]), c(r.constants) {}

  INLINE void before_sweep(Index) {
    to_e = static_cast<Real>(c[1] * this->scale_e);
    to_i = static_cast<Real>(c[2] * this->scale_i);
  }

  INLINE void strip(Index start) {
    Real* __restrict v = this->v + start;
    Real* __restrict e = this->e + start;
    Real* __restrict i = this->i + start;
    const Real c0 = static_cast<Real>(c[0]), c3 = static_cast<Real>(c[3]), ce = to_e, ci = to_i;
    for (Index n = 0; n < kStrip; ++n) v[n] = c0 + ((ce * e[n] + ci * i[n]) + c3 * v[n]);
    if (!this->kFolded) {
      const Real de = static_cast<Real>(this->decay_e), di = static_cast<Real>(this->decay_i);
      for (Index n = 0; n < kStrip; ++n) {
        e[n] = de * e[n];
        i[n] = di * i[n];
      }
    }
  }
};

// v += c0 ((c1 + (-ge v + gi (c2 - v))) - v), the step of Euler; conductances in units of the leak.
template <class Real>
struct Coba : Decaying<Real> {
  const double* const c;
  Real to_e, to_i;

  INLINE explicit Coba(const Run& r) : Decaying<Real>(r, 1.0 + r.constants[3], 1.0 + r.constants[4]), c(r.constants) {}

  INLINE void before_sweep(Index) {
    to_e = static_cast<Real>(c[0] * this->scale_e);
    to_i = static_cast<Real>(c[0] * this->scale_i);
  }

  INLINE void strip(Index start) {
    Real* __restrict v = this->v + start;
    Real* __restrict e = this->e + start;
    Real* __restrict i = this->i + start;
    if (this->kFolded) {
      const Real keep = static_cast<Real>(1.0 - c[0]), rest = static_cast<Real>(c[0] * c[1]);
      const Real reversal = static_cast<Real>(c[2]), ce = to_e, ci = to_i;
      for (Index n = 0; n < kStrip; ++n) {
        const Real ge = ce * e[n], gi = ci * i[n];
        v[n] = (keep - (ge + gi)) * v[n] + (gi * reversal + rest);
      }
    } else {
      const Real c0 = static_cast<Real>(c[0]), c1 = static_cast<Real>(c[1]), c2 = static_cast<Real>(c[2]);
      const Real c3 = static_cast<Real>(c[3]), c4 = static_cast<Real>(c[4]);
      for (Index n = 0; n < kStrip; ++n) {
        const Real ge = e[n], gi = i[n], was = v[n];
        v[n] = (c0 * ((c1 + (((-ge) * was) + (gi * (c2 - was)))) - was)) + was;
        e[n] = (c3 * ge) + ge;
        i[n] = (c4 * gi) + gi;
      }
    }
  }
};

// v = c0 v + J count, with a Poisson count of external spikes; recurrent spikes jump the membrane itself.
template <class Real>
struct Brunel {
  const Run& r;
  Real* const v;
  const Real threshold;
  Index step = 0;

  INLINE explicit Brunel(const Run& r)
      : r(r), v(static_cast<Real*>(r.v)), threshold(static_cast<Real>(r.threshold)) {}

  INLINE void before_sweep(Index now) { step = now; }

  INLINE void strip(Index start) {
    Word random[kStrip];
    std::int32_t count[kStrip];
    philox(start / kStrip, step, r.key, random);
    for (Index n = 0; n < kStrip; ++n) count[n] = static_cast<std::int32_t>(r.base);
    for (Index k = 0; k < r.num_cumulative; ++k) {
      const Word least = r.cumulative[k];
      for (Index n = 0; n < kStrip; ++n) count[n] += random[n] >= least;
    }
    Real* __restrict at = v + start;
    const Real c0 = static_cast<Real>(r.constants[0]), jump = static_cast<Real>(r.excite);
    for (Index n = 0; n < kStrip; ++n) at[n] = c0 * at[n] + jump * static_cast<Real>(count[n]);
  }

  INLINE void after_sweep() {}
  INLINE void finish() {}
  INLINE Real* row(bool) const { return v; }
  INLINE Real weight(bool excites) const { return static_cast<Real>(excites ? r.excite : r.inhibit); }
};

// Appends the neurons of a strip that are above the threshold, in ascending or descending order.
template <bool kDown, class Real, class Target>
INLINE Target* fire(Real* __restrict v, Index start, Real threshold, Target* out) {
  using Flag = typename std::conditional<sizeof(Real) == 4, std::int32_t, std::int64_t>::type;
  Flag any = 0;
  for (Index n = 0; n < kStrip; ++n) any |= v[n] > threshold;
  if (any) {
    for (Index k = 0; k < kStrip; ++k) {
      const Index n = kDown ? kStrip - 1 - k : k;
      if (v[n] > threshold) {
        v[n] = std::numeric_limits<Real>::quiet_NaN();
        *out++ = static_cast<Target>(start + n);
      }
    }
  }
  return out;
}

template <template <class> class Model, class Real, class Target>
INLINE void run(const Run& r) {
  Model<Real> model(r);
  Target* const spikes = static_cast<Target*>(r.spikes);
  const Target* const targets = static_cast<const Target*>(r.targets);
  Real* const v = static_cast<Real*>(r.v);
  const Real reset = static_cast<Real>(r.reset);
  const Index strips = (r.neurons + kStrip - 1) / kStrip;
  for (Index k = r.history; k < r.history + r.steps; ++k) {
    for (Index s = r.ends[k - r.refractory]; s < r.ends[k - r.refractory + 1]; ++s) v[spikes[s]] = reset;
    const Index step = r.first + k - r.history;
    Target* out = spikes + r.ends[k];
    model.before_sweep(step);
    if (step % 2) {
      for (Index strip = strips - 1; strip >= 0; --strip) {
        model.strip(strip * kStrip);
        out = fire<true>(v + strip * kStrip, strip * kStrip, model.threshold, out);
      }
      std::reverse(spikes + r.ends[k], out);
    } else {
      for (Index strip = 0; strip < strips; ++strip) {
        model.strip(strip * kStrip);
        out = fire<false>(v + strip * kStrip, strip * kStrip, model.threshold, out);
      }
    }
    r.ends[k + 1] = out - spikes;
    model.after_sweep();
    const Index end = r.ends[k - r.delay + 1];
    for (Index s = r.ends[k - r.delay]; s < end; ++s) {
      if (s + 1 < end) PREFETCH(targets + r.offsets[spikes[s + 1]]);
      const Index source = spikes[s];
      const bool excites = source < r.excitatory;
      Real* const row = model.row(excites);
      const Real weight = model.weight(excites);
      for (Index at = r.offsets[source]; at < r.offsets[source + 1]; ++at) row[targets[at]] += weight;
    }
  }
  model.finish();
}

}  // namespace

EXPORT Index neuro_network_version() { return kVersion; }

#define EACH(model, Model)                                                                                       \
  EXPORT CLONES void neuro_network_##model##_float32_uint16(const Run* r) { run<Model, float, std::uint16_t>(*r); }  \
  EXPORT CLONES void neuro_network_##model##_float32_uint32(const Run* r) { run<Model, float, std::uint32_t>(*r); }  \
  EXPORT CLONES void neuro_network_##model##_float64_uint16(const Run* r) { run<Model, double, std::uint16_t>(*r); } \
  EXPORT CLONES void neuro_network_##model##_float64_uint32(const Run* r) { run<Model, double, std::uint32_t>(*r); }

EACH(cuba, Cuba)
EACH(coba, Coba)
EACH(brunel, Brunel)
