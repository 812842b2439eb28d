// Recurrent networks of integrate-and-fire neurons on one core, behind a plain C interface: no header of Python or numpy.
//
// A step does four things, in the order of Brian2: neurons whose refractory time is over return to the reset, every neuron
// moves on by dt, those above the threshold fire, and spikes that are `delay` steps old reach their targets.
//
//   - A refractory neuron has a membrane that is not a number: whatever is added to it, it stays so and is above no
//     threshold. There is no counter to test and no list to clamp.
//   - All spikes lie in one array, step after step. It is the record, the delay line and the list of who is refractory.
//   - In float32 all variables that decay by the same factor everywhere are kept divided by a common scale, which decays
//     instead: a neuron costs three reads and one write a step, and few operations. The current-based network costs less,
//     where it is not large: it is looked at every few steps (ahead.hpp). In float64 every operation is that of
//     Brian2's own update, rounded alike.
//   - Every other step goes through the neurons backwards, and finds in the cache what the step before read last.
//
// Products and sums are rounded one after the other (no fused multiply-add), so that every width of vectors gives the same spikes.
//
// The file includes itself once for each width of vectors, so that one build runs on every x86-64 and uses what it finds.

#ifndef WIDTH

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>
#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

#if defined(__GNUC__)
#define INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#define PREFETCH(at) __builtin_prefetch(at)
#define LOWEST(bits) __builtin_ctzll(bits)
#define HIGHEST(bits) (63 - __builtin_clzll(bits))
#else
#define INLINE inline
#define NOINLINE
#define PREFETCH(at) static_cast<void>(at)
#define LOWEST(bits) bit_of(bits, false)
#define HIGHEST(bits) bit_of(bits, true)
#endif

namespace {

using Index = std::int64_t;
using Word = std::uint32_t;

constexpr Index kVersion = 1;                  // of this interface; sims/networks/native.py asks for the same
constexpr Index kBlock = 64;                   // neurons whose random words are made at once
constexpr Index kQuarter = kBlock / 4;         // Philox makes four words at a time
constexpr Index kAhead = 4;                    // spikes whose targets are asked for before their turn
constexpr double kSmallest = 1.0 / (1 << 20);  // a scale below this is multiplied out

#if !defined(__GNUC__)
inline int bit_of(std::uint64_t bits, bool highest) {
  int at = highest ? 63 : 0;
  while (!(bits >> at & 1)) at += highest ? -1 : 1;
  return at;
}
#endif

}  // namespace

struct Run {
  Index neurons, excitatory, first, steps;  // the first step's number and how many to take
  Index refractory, delay, history;         // in steps; history is the greater of the two, at least 1
  const Index* offsets;                     // [neurons + 1]: where the targets of a neuron start
  const void* targets;
  void *v, *e, *i;  // [neurons, padded to a multiple of 512]
  void* spikes;     // neurons, as wide as targets; those of the `history` steps before come first
  Index* ends;      // [history + steps + 1]: where the spikes of a step start
  double reset, threshold, excite, inhibit;
  double constants[8];
  std::uint64_t key;       // of the random numbers
  const Word* cumulative;  // [num_cumulative]: the drive's count is base + how many of these a random word reaches
  Index num_cumulative, base;
};

#if defined(__GNUC__) && defined(__x86_64__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed between functions that are all inlined
#endif

#define WIDTH 16
namespace narrow {
#include "network.cpp"
}
#undef WIDTH

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#define WIDER 1
#define WIDTH 32
#pragma GCC push_options
#pragma GCC target("avx2")
namespace wide {
#include "network.cpp"
}
#pragma GCC pop_options
#undef WIDTH
#define WIDTH 64
#pragma GCC push_options
#pragma GCC target("avx512f")
namespace widest {
#include "network.cpp"
}
#pragma GCC pop_options
#undef WIDTH
#endif

EXPORT Index neuro_network_version() { return kVersion; }

// `width` in bytes, 0 for the widest that this machine has.
EXPORT Index neuro_network_width(Index width) {
#if defined(WIDER)
  const Index here = __builtin_cpu_supports("avx512f") ? 64 : __builtin_cpu_supports("avx2") ? 32 : 16;
  return width > 0 && width < here ? width : here;
#else
  return width > 0 && width < 16 ? width : 16;
#endif
}

#if defined(WIDER)
#define CHOOSE(name)                  \
  if (width == 64) widest::name(*r);  \
  else if (width == 32) wide::name(*r); \
  else narrow::name(*r)
#else
#define CHOOSE(name) narrow::name(*r)
#endif

#define EACH(name)                                                          \
  EXPORT void neuro_network_##name(const Run* r, Index width) {             \
    width = neuro_network_width(width);                                     \
    CHOOSE(name);                                                           \
  }

EACH(cuba_float32_uint16)
EACH(cuba_float32_uint32)
EACH(cuba_float64_uint16)
EACH(cuba_float64_uint32)
EACH(coba_float32_uint16)
EACH(coba_float32_uint32)
EACH(coba_float64_uint16)
EACH(coba_float64_uint32)
EACH(brunel_float32_uint16)
EACH(brunel_float32_uint32)
EACH(brunel_float64_uint16)
EACH(brunel_float64_uint32)

#else  // WIDTH: what follows is compiled for one width

#if defined(__GNUC__)
template <class T>
struct Lanes {
  static constexpr int kCount = WIDTH / sizeof(T);
  typedef T Vector __attribute__((vector_size(WIDTH), may_alias));
};
#else
template <class T>
struct Lanes {
  static constexpr int kCount = 1;
  using Vector = T;
};
#endif

#if WIDTH == 16
template <class Flag>
INLINE unsigned occupied_one_by_one(typename Lanes<Flag>::Vector found) {
  Flag flags[Lanes<Flag>::kCount];
  std::memcpy(flags, &found, sizeof flags);
  unsigned lanes = 0;
  for (int j = 0; j < Lanes<Flag>::kCount; ++j) lanes |= static_cast<unsigned>(flags[j] != 0) << j;
  return lanes;
}
#endif

// Bit j: lane j is not zero.
INLINE unsigned occupied(Lanes<std::uint32_t>::Vector found) {
#if WIDTH == 64
  return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(found), reinterpret_cast<__m512i>(found));
#elif WIDTH == 32
  const __m256i zero = _mm256_cmpeq_epi32(reinterpret_cast<__m256i>(found), _mm256_setzero_si256());
  return 0xFFu ^ static_cast<unsigned>(_mm256_movemask_ps(reinterpret_cast<__m256>(zero)));
#else
  return occupied_one_by_one<std::uint32_t>(found);
#endif
}

INLINE unsigned occupied(Lanes<std::uint64_t>::Vector found) {
#if WIDTH == 64
  return _mm512_test_epi64_mask(reinterpret_cast<__m512i>(found), reinterpret_cast<__m512i>(found));
#elif WIDTH == 32
  const __m256i zero = _mm256_cmpeq_epi64(reinterpret_cast<__m256i>(found), _mm256_setzero_si256());
  return 0xFu ^ static_cast<unsigned>(_mm256_movemask_pd(reinterpret_cast<__m256d>(zero)));
#else
  return occupied_one_by_one<std::uint64_t>(found);
#endif
}

// Philox4x32-10: Salmon et al. 2011, doi:10.1145/2063384.2063405. Word w of counter c in out[w * kQuarter + c].
INLINE void philox(Index block, Index step, std::uint64_t key, Word* out) {
  Word x0[kQuarter], x1[kQuarter], x2[kQuarter], x3[kQuarter];
  for (Index c = 0; c < kQuarter; ++c) {
    x0[c] = static_cast<Word>(block * kQuarter + c);
    x1[c] = static_cast<Word>(step);
    x2[c] = static_cast<Word>(static_cast<std::uint64_t>(step) >> 32);
    x3[c] = 0;
  }
  Word k0 = static_cast<Word>(key), k1 = static_cast<Word>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    for (Index c = 0; c < kQuarter; ++c) {
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
  for (Index c = 0; c < kQuarter; ++c) {
    out[c] = x0[c];
    out[kQuarter + c] = x1[c];
    out[2 * kQuarter + c] = x2[c];
    out[3 * kQuarter + c] = x3[c];
  }
}

// Two synaptic variables and a membrane; in float32 each is divided by its scale, the membrane counted from `rest`.
template <class Real>
struct Decaying {
  static constexpr bool kScaled = std::is_same<Real, float>::value;
  const Run& r;
  const double decay_v, decay_e, decay_i, rest;
  double scale_v = 1.0, scale_e = 1.0, scale_i = 1.0;

  INLINE Decaying(const Run& r, double decay_v, double decay_e, double decay_i, double rest)
      : r(r), decay_v(decay_v), decay_e(decay_e), decay_i(decay_i), rest(kScaled ? rest : 0.0) {
    if (kScaled) move_by(-rest);
  }

  INLINE void move_by(double what) const {
    Real* const v = static_cast<Real*>(r.v);
    for (Index n = 0; n < r.neurons; ++n) v[n] += static_cast<Real>(what);
  }

  INLINE void multiply(void* row, double what) const {
    Real* const x = static_cast<Real*>(row);
    for (Index n = 0; n < r.neurons; ++n) x[n] *= static_cast<Real>(what);
  }

  INLINE void multiply_out() {
    multiply(r.v, scale_v);
    multiply(r.e, scale_e);
    multiply(r.i, scale_i);
    scale_v = scale_e = scale_i = 1.0;
  }

  INLINE void after_sweep() {
    if (!kScaled) return;
    scale_v *= decay_v;
    scale_e *= decay_e;
    scale_i *= decay_i;
    if (scale_v < kSmallest || scale_e < kSmallest || scale_i < kSmallest) multiply_out();
  }

  INLINE void finish() {
    if (!kScaled) return;
    multiply_out();
    move_by(rest);
  }

  INLINE Real reset() const { return static_cast<Real>((r.reset - rest) / scale_v); }
  INLINE Real* row(bool excites) const { return static_cast<Real*>(excites ? r.e : r.i); }
  INLINE Real weight(bool excites) const { return static_cast<Real>(excites ? r.excite / scale_e : r.inhibit / scale_i); }
};

// tau dv/dt = ge + gi + rest - v solved exactly: v = c0 + ((c1 ge + c2 gi) + c3 v).
template <class Real>
struct Cuba : Decaying<Real> {
  const Real c0, c3, c4, c5;
  Real ce, ci, threshold;

  INLINE explicit Cuba(const Run& r)
      : Decaying<Real>(r, r.constants[3], r.constants[4], r.constants[5], r.constants[0] / (1.0 - r.constants[3])),
        c0(static_cast<Real>(r.constants[0])), c3(static_cast<Real>(r.constants[3])),
        c4(static_cast<Real>(r.constants[4])), c5(static_cast<Real>(r.constants[5])) {}

  INLINE void before_sweep(Index) {
    const double unit = this->kScaled ? this->scale_v * this->decay_v : 1.0;
    ce = static_cast<Real>(this->r.constants[1] * this->scale_e / unit);
    ci = static_cast<Real>(this->r.constants[2] * this->scale_i / unit);
    threshold = static_cast<Real>((this->r.threshold - this->rest) / unit);
  }

  template <class Vector>
  INLINE void move(Vector& v, Vector& e, Vector& i) const {
    if (this->kScaled) {
      v = v + (ce * e + ci * i);
    } else {
      v = c0 + ((ce * e + ci * i) + c3 * v);
      e = c4 * e;
      i = c5 * i;
    }
  }
};

// v += c0 ((c1 + (-ge v + gi (c2 - v))) - v), the step of Euler; conductances in units of the leak.
template <class Real>
struct Coba : Decaying<Real> {
  const Real c0, c1, c2, c3, c4, keep, leak, threshold;
  Real ce, ci;

  INLINE explicit Coba(const Run& r)
      : Decaying<Real>(r, 1.0, 1.0 + r.constants[3], 1.0 + r.constants[4], 0.0),
        c0(static_cast<Real>(r.constants[0])), c1(static_cast<Real>(r.constants[1])),
        c2(static_cast<Real>(r.constants[2])), c3(static_cast<Real>(r.constants[3])),
        c4(static_cast<Real>(r.constants[4])), keep(static_cast<Real>(1.0 - r.constants[0])),
        leak(static_cast<Real>(r.constants[0] * r.constants[1])), threshold(static_cast<Real>(r.threshold)) {}

  INLINE void before_sweep(Index) {
    ce = static_cast<Real>(this->r.constants[0] * this->scale_e);
    ci = static_cast<Real>(this->r.constants[0] * this->scale_i);
  }

  template <class Vector>
  INLINE void move(Vector& v, Vector& e, Vector& i) const {
    if (this->kScaled) {
      const Vector ge = ce * e, gi = ci * i;
      v = (keep - (ge + gi)) * v + (gi * c2 + leak);
    } else {
      const Vector ge = e, gi = i;
      v = (c0 * ((c1 + (((-ge) * v) + (gi * (c2 - v)))) - v)) + v;
      e = (c3 * ge) + ge;
      i = (c4 * gi) + gi;
    }
  }
};

// v = c0 v + J count, with a Poisson count of external spikes; recurrent spikes jump the membrane itself.
template <class Real>
struct Brunel {
  const Run& r;
  const Real threshold, c0;

  INLINE explicit Brunel(const Run& r)
      : r(r), threshold(static_cast<Real>(r.threshold)), c0(static_cast<Real>(r.constants[0])) {}

  INLINE void before_sweep(Index step) {
    Real* const e = static_cast<Real*>(r.e);
    const Real jump = static_cast<Real>(r.excite);
    for (Index start = 0; start < r.neurons; start += kBlock) {
      Word random[kBlock];
      Word count[kBlock];
      philox(start / kBlock, step, r.key, random);
      for (Index n = 0; n < kBlock; ++n) count[n] = static_cast<Word>(r.base);
      for (Index k = 0; k < r.num_cumulative; ++k) {
        const Word least = r.cumulative[k];
        for (Index n = 0; n < kBlock; ++n) count[n] += random[n] >= least;
      }
      for (Index n = 0; n < kBlock; ++n) e[start + n] = jump * static_cast<Real>(static_cast<std::int32_t>(count[n]));
    }
  }

  template <class Vector>
  INLINE void move(Vector& v, Vector& e, Vector&) const {
    v = c0 * v + e;
  }

  INLINE void after_sweep() {}
  INLINE void finish() {}
  INLINE Real reset() const { return static_cast<Real>(r.reset); }
  INLINE Real* row(bool) const { return static_cast<Real*>(r.v); }
  INLINE Real weight(bool excites) const { return static_cast<Real>(excites ? r.excite : r.inhibit); }
};

template <class Real>
struct Flagged {
  using Bits = typename std::conditional<sizeof(Real) == 4, std::uint32_t, std::uint64_t>::type;
  static constexpr int kLanes = Lanes<Real>::kCount, kBits = 8 * sizeof(Bits);
  static constexpr Index kStrip = kLanes * kBits;
  alignas(WIDTH) Bits flags[kLanes];  // bit s of flag j: neuron s * kLanes + j of the strip is above the threshold
};

// Moves a strip -> the lanes in which anything is above the threshold. Nothing is combined across lanes before that. A
// function of its own, with the flags in the caller's memory: inlined, compilers keep them there for every vector.
template <class Model, class Real>
NOINLINE unsigned sweep(const Model model, const Run& r, Index start, Flagged<Real>& above) {
  using Reals = typename Lanes<Real>::Vector;
  using Flags = typename Lanes<typename Flagged<Real>::Bits>::Vector;
  Reals* const v = reinterpret_cast<Reals*>(static_cast<Real*>(r.v) + start);
  Reals* const e = reinterpret_cast<Reals*>(static_cast<Real*>(r.e) + start);
  Reals* const i = reinterpret_cast<Reals*>(static_cast<Real*>(r.i) + start);
  const Flags none = {};
  Flags found = none, bit = none + 1;
  for (int s = 0; s < Flagged<Real>::kBits; ++s) {
    model.move(v[s], e[s], i[s]);
    found |= v[s] > model.threshold ? bit : none;
    bit += bit;
  }
  *reinterpret_cast<Flags*>(above.flags) = found;
  return occupied(found);
}

// Appends the neurons of a strip that are above the threshold, upwards or downwards, and makes them refractory.
template <bool kDown, class Real, class Target>
INLINE Target* fire(const Flagged<Real>& above, unsigned lanes, Real* v, Index start, Target* out) {
  using Bits = typename Flagged<Real>::Bits;
  Bits any = 0;
  for (unsigned left = lanes; left; left &= left - 1) any |= above.flags[LOWEST(left)];
  while (any) {
    const int s = kDown ? HIGHEST(any) : LOWEST(any);
    any ^= static_cast<Bits>(1) << s;
    for (unsigned left = lanes; left;) {
      const int j = kDown ? HIGHEST(left) : LOWEST(left);
      left ^= 1u << j;
      if (above.flags[j] >> s & 1) {
        const Index n = start + s * Flagged<Real>::kLanes + j;
        v[n] = std::numeric_limits<Real>::quiet_NaN();
        *out++ = static_cast<Target>(n);
      }
    }
  }
  return out;
}

template <class Target>
INLINE void ask_for(const Target* targets, const Index* offsets, Index source) {
  const char* const end = reinterpret_cast<const char*>(targets + offsets[source + 1]);
  for (const char* at = reinterpret_cast<const char*>(targets + offsets[source]); at < end; at += 64) PREFETCH(at);
}

template <template <class> class Model, class Real, class Target>
void run(const Run& r) {
  constexpr Index kStrip = Flagged<Real>::kStrip;
  Flagged<Real> above;
  Model<Real> model(r);
  Target* const spikes = static_cast<Target*>(r.spikes);
  const Target* const targets = static_cast<const Target*>(r.targets);
  Real* const v = static_cast<Real*>(r.v);
  const Index strips = (r.neurons + kStrip - 1) / kStrip;
  for (Index k = r.history; k < r.history + r.steps; ++k) {
    const Real reset = model.reset();
    for (Index s = r.ends[k - r.refractory]; s < r.ends[k - r.refractory + 1]; ++s) v[spikes[s]] = reset;
    const Index step = r.first + k - r.history;
    model.before_sweep(step);
    Target *out = spikes + r.ends[k], *from = out;
    if (step % 2) {
      for (Index start = (strips - 1) * kStrip; start >= 0; start -= kStrip) {
        const unsigned lanes = sweep(model, r, start, above);
        if (lanes) out = fire<true>(above, lanes, v, start, out);
      }
      for (Target* to = out - 1; from < to; ++from, --to) {
        const Target other = *from;
        *from = *to;
        *to = other;
      }
    } else {
      for (Index start = 0; start < strips * kStrip; start += kStrip) {
        const unsigned lanes = sweep(model, r, start, above);
        if (lanes) out = fire<false>(above, lanes, v, start, out);
      }
    }
    r.ends[k + 1] = out - spikes;
    model.after_sweep();
    const Index start = r.ends[k - r.delay], end = r.ends[k - r.delay + 1];
    for (Index s = start; s < end && s < start + kAhead; ++s) ask_for(targets, r.offsets, spikes[s]);
    for (Index s = start; s < end; ++s) {
      if (s + kAhead < end) ask_for(targets, r.offsets, spikes[s + kAhead]);
      const Index source = spikes[s];
      const bool excites = source < r.excitatory;
      Real* const row = model.row(excites);
      const Real weight = model.weight(excites);
      const Target *at = targets + r.offsets[source], *const last = targets + r.offsets[source + 1];
      for (; at < last; ++at) row[*at] += weight;
    }
  }
  model.finish();
}

#include "ahead.hpp"

template <template <class> class Model, class Real, class Target>
void start(const Run& r) {
  if constexpr (std::is_same<Model<Real>, Cuba<float>>::value)
    if (Ahead::suits(r)) return run_ahead<Target>(r);
  run<Model, Real, Target>(r);
}

#define REALS(name, Model)                                                                 \
  void name##_float32_uint16(const Run& r) { start<Model, float, std::uint16_t>(r); }        \
  void name##_float32_uint32(const Run& r) { start<Model, float, std::uint32_t>(r); }        \
  void name##_float64_uint16(const Run& r) { start<Model, double, std::uint16_t>(r); }       \
  void name##_float64_uint32(const Run& r) { start<Model, double, std::uint32_t>(r); }

REALS(cuba, Cuba)
REALS(coba, Coba)
REALS(brunel, Brunel)

#undef REALS

#endif  // WIDTH
