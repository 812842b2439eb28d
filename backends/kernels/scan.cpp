// The two time loops of the brain, forward and backward, and the matrix times one vector that decoding is made of, behind a
// plain C interface: no header of torch or Python.
//
// Memory is the only cost here, and what it costs depends on the order of addresses (measured on an AMD EPYC):
//   - Whole rows at a time, with their state in the first cache. Blocks narrow enough to keep the state in registers jump
//     from page to page: 1.5 to 2 times slower.
//   - The backward passes go down within a row too, as they do from row to row, so that addresses fall without a break.
//     Where only a part of each row is read (a thread's share) they break anyway, and going up is quicker.
//   - The spiking loop keeps a membrane in sixteen and computes the others again, sixteen steps of a row at a time:
//     20 bytes move for an element forward and backward, and a sixteenth of a tensor stays from one to the other.
//   - Its rows are asked for ahead, and large outputs go past the caches from a strip of 64: 1.1 to 1.2 times quicker.
//   - At most three tensors at a time. Five large ones that begin at the same place of a page, as large allocations do,
//     are 2 to 5 times slower: the gradient of a is made in a second sweep, while that of b is still in the second cache.
//
// Products and sums are rounded one after the other (no fused multiply-add): the result is that of a * h + b in torch, bit
// for bit, for one token or many. setup.py passes the flag; the pragma is for compilers that want it said here.

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <memory>

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#endif

#include "common.hpp"

// Before a loop whose channels do not touch each other's memory, with more pointers in it than a compiler cares to compare.
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define INDEPENDENT _Pragma("GCC ivdep")
#elif defined(_MSC_VER)
#define INDEPENDENT __pragma(loop(ivdep))
#else
#define INDEPENDENT
#endif

// After the parameters of a lambda that a clone calls: it is compiled with the clone's instructions only if it is inlined.
#if defined(__GNUC__)
#define INLINED __attribute__((always_inline))
#else
#define INLINED
#endif

namespace {

constexpr Index kVersion = 4;            // of this interface; backends/kernels/cpu.py asks for the same
constexpr Index kStrip = 64;             // channels of a strip: what the vectorizer sees as one loop
constexpr Index kWidest = 1 << 14;       // channels carried at a time: their state fits the first or second cache
constexpr Index kLifRow = 1 << 17;       // bytes of a row of the spiking loop; a quarter where more is kept of each step
constexpr Index kAhead = 2048;           // bytes of a row between what is asked for and what is worked on
constexpr Index kSweep = 1 << 17;        // bytes of one tensor between two sweeps: they fit the second cache
constexpr Index kWorthAThread = 1 << 18; // elements: below, starting a thread costs more than it saves
constexpr Index kLanes = 32;             // partial sums of a dot product: two vectors of AVX-512 in float32

}  // namespace

// A tensor [T, B, D] with unit stride in D; strides in elements.
struct Rows {
  void* data;
  Index token, batch;
};

struct Shape {
  Index tokens, batch, width, threads;
};

namespace {

struct AffineForward {
  Rows a, b, h;
  const void* h0;
};

struct AffineBackward {
  Rows grad, a, h, grad_a, grad_b;
  const void* h0;
  void* grad_h0;
};

// What one neuron does, with every choice of backends/contract.py's LifRule as a number: after a spike the membrane u is
// keep * u + lift - drop * threshold (soft: 1, 0, 1; hard: 0, v_reset, 0; none: 1, 0, 0). It fires where u >= fire, which is
// the threshold or, where the comparison is strict, the next number above it.
struct Neuron {
  const void *decays, *thresholds, *fires;  // [B, D] each, or all null where one number stands for every channel
  double decay, threshold, fire;
  double keep, lift, drop;
  double attach;  // 1 where gradients flow through the spike of the reset, else 0
  double slope;   // of the surrogate
  Index kind;     // backends/surrogate.py's KINDS, in that order
  Index delayed;  // the reset follows a step later
  Index every;    // steps between two checkpoints
  Index stream;   // outputs go past the caches
};

struct LifForward {
  Rows current, spikes;
  void* v;           // [B, D]: before the first step, then after the last
  void* checkpoint;  // [ceil(T / every), B, D]: v before steps 0, every, ...; null where nobody will ask for gradients
  Index channels;    // B * D
  Neuron neuron;
};

struct LifBackward {
  Rows grad_spikes, current, grad;
  void* grad_v;            // [B, D]: of the last membrane, then of the first
  const void* checkpoint;
  void *grad_decay, *grad_threshold;  // [B, D] of zeros, where the constants are tensors
  Index channels;
  Neuron neuron;
};

template <class Real>
INLINE Real* at(const Rows& rows, Index token, Index batch, Index channel) {
  return static_cast<Real*>(rows.data) + token * rows.token + batch * rows.batch + channel;
}

// Channels [first, first + count) of one batch row; `flat` is where they start in a [B, D] tensor.
struct Span {
  Index batch, first, count, flat;
};

template <class Real>
INLINE void run(const AffineForward& s, Index tokens, const Span& x) {
  const Real* before = static_cast<const Real*>(s.h0) + x.flat;
  for (Index t = 0; t < tokens; ++t) {
    const Real* __restrict previous = before;
    const Real* __restrict a = at<Real>(s.a, t, x.batch, x.first);
    const Real* __restrict b = at<Real>(s.b, t, x.batch, x.first);
    Real* __restrict h = at<Real>(s.h, t, x.batch, x.first);
    for (Index i = 0; i < x.count; ++i) h[i] = a[i] * previous[i] + b[i];
    before = h;
  }
}

// The channels of strip k of a row, walking down or up.
struct Strip {
  Index start, stop;
};

INLINE Strip strip(Index k, Index strips, bool down, Index count) {
  const Index start = (down ? strips - 1 - k : k) * kStrip;
  return {start, std::min(start + kStrip, count)};
}

template <class Real>
INLINE void run(const AffineBackward& s, Index tokens, const Span& x) {
  // What flows into h_t from its future is carried where the gradient of h_0 will be.
  Real* __restrict carried = static_cast<Real*>(s.grad_h0) + x.flat;
  std::fill_n(carried, x.count, Real(0));
  const Index strips = (x.count + kStrip - 1) / kStrip;
  const bool down = x.count == s.grad_b.token;
  const Index rows = std::max<Index>(1, kSweep / static_cast<Index>(sizeof(Real)) / x.count);
  for (Index last = tokens; last > 0; last -= rows) {
    const Index first = std::max<Index>(last - rows, 0);
    for (Index t = last - 1; t >= first; --t) {
      const Real* __restrict grad = at<Real>(s.grad, t, x.batch, x.first);
      const Real* __restrict a = at<Real>(s.a, t, x.batch, x.first);
      Real* __restrict grad_b = at<Real>(s.grad_b, t, x.batch, x.first);
      for (Index k = 0; k < strips; ++k) {
        const Strip strip_k = strip(k, strips, down, x.count);
        for (Index i = strip_k.start; i < strip_k.stop; ++i) {
          const Real g = grad[i] + carried[i];
          grad_b[i] = g;
          carried[i] = g * a[i];
        }
      }
    }
    for (Index t = first; t < last; ++t) {
      const Real* __restrict grad_b = at<Real>(s.grad_b, t, x.batch, x.first);
      const Real* __restrict h = t ? at<Real>(s.h, t - 1, x.batch, x.first) : static_cast<const Real*>(s.h0) + x.flat;
      Real* __restrict grad_a = at<Real>(s.grad_a, t, x.batch, x.first);
      for (Index i = 0; i < x.count; ++i) grad_a[i] = grad_b[i] * h[i];
    }
  }
}

// Whether a spike takes off the threshold (or nothing) and its reset carries no gradient: what most neurons do, in fewer
// operations.
INLINE bool plain(const Neuron& n) { return n.keep == 1 && n.attach == 0; }

// A neuron's constants as a loop over channels wants them: numbers, or tensors that are read beside the membrane.
template <class Real, bool Learned, bool Plain>
struct Constants {
  const Real *decays, *thresholds, *fires;
  Real one_decay, one_threshold, one_fire, keep, lift, drop, attach;

  INLINE Constants(const Neuron& n, Index flat)
      : decays(static_cast<const Real*>(n.decays)), thresholds(static_cast<const Real*>(n.thresholds)),
        fires(static_cast<const Real*>(n.fires)), one_decay(static_cast<Real>(n.decay)),
        one_threshold(static_cast<Real>(n.threshold)), one_fire(static_cast<Real>(n.fire)),
        keep(static_cast<Real>(n.keep)), lift(static_cast<Real>(n.lift)), drop(static_cast<Real>(n.drop)),
        attach(static_cast<Real>(n.attach)) {
    if (Learned) decays += flat, thresholds += flat, fires += flat;
  }
  INLINE Constants from(Index i) const {
    Constants c = *this;
    if (Learned) c.decays += i, c.thresholds += i, c.fires += i;
    return c;
  }
  INLINE Real decay(Index i) const { return Learned ? decays[i] : one_decay; }
  INLINE Real threshold(Index i) const { return Learned ? thresholds[i] : one_threshold; }
  INLINE Real fire(Index i) const { return Learned ? fires[i] : one_fire; }
  INLINE Real shift(Index i) const { return lift - drop * threshold(i); }
  INLINE Real kept(Real x) const { return Plain ? x : keep * x; }  // of what a spike leaves
  INLINE bool attached() const { return !Plain && attach != 0; }
};

// One step of `count` channels: v moves on in place, the spikes come out.
template <class Real, bool Delayed, bool Learned, bool Plain>
INLINE void step(const Constants<Real, Learned, Plain>& c, const Real* current, Real* v,
                 Real* spikes, Index count) {
  INDEPENDENT
  for (Index i = 0; i < count; ++i) {
    const Real u = c.decay(i) * v[i] + current[i];
    const Real reset = c.kept(u) + c.shift(i);
    if (Delayed) {
      const Real after = v[i] >= c.fire(i) ? reset : u;
      v[i] = after;
      spikes[i] = after >= c.fire(i) ? Real(1) : Real(0);
    } else {
      spikes[i] = u >= c.fire(i) ? Real(1) : Real(0);
      v[i] = u >= c.fire(i) ? reset : u;
    }
  }
}

// The same step for the backward pass, which asks for membranes: u before the reset, v after it. `before` and `v` may be one.
template <class Real, bool Delayed, bool Learned, bool Plain>
INLINE void retrace(const Constants<Real, Learned, Plain>& c, const Real* current, const Real* before,
                    Real* u_out, Real* v, Index count) {
  INDEPENDENT
  for (Index i = 0; i < count; ++i) {
    const Real u = c.decay(i) * before[i] + current[i];
    const Real reset = c.kept(u) + c.shift(i);
    u_out[i] = u;
    v[i] = (Delayed ? before[i] : u) >= c.fire(i) ? reset : u;
  }
}

// The derivative of a spike, as backends/surrogate.py says it.
template <class Real, int Kind>
struct Derivative {
  Real slope, half, bend;
  INLINE explicit Derivative(double k)
      : slope(static_cast<Real>(k)), half(static_cast<Real>(k / 2)),
        bend(static_cast<Real>(1.57079632679489661923 * k)) {}
  INLINE Real operator()(Real x) const {
    const Real scaled = (x < 0 ? -x : x) * slope;
    if (Kind == 0) return Real(1) / ((scaled + Real(1)) * (scaled + Real(1)));
    if (Kind == 1) return half / (x * bend * (x * bend) + Real(1));
    if (Kind == 2) return scaled < Real(1) ? Real(1) - scaled : Real(0);
    return scaled <= Real(1) ? Real(1) : Real(0);
  }
};

// What one step back reads and writes, `count` channels of each. carried: the gradient of v after the step, then before it.
// late (delayed only): the gradient of the spike that the next step's reset used, then of the one this step's used.
template <class Real>
struct Back {
  const Real *grad_spikes, *u, *before, *after;
  Real *grad, *carried, *late, *grad_decay, *grad_threshold;

  INLINE Back from(Index i) const {
    return {grad_spikes + i, u + i, before + i, after + i, grad + i,
            carried + i, late + i, grad_decay + i, grad_threshold + i};
  }
};

template <class Real, bool Delayed, bool Learned, bool Plain, int Kind>
INLINE void back(const Constants<Real, Learned, Plain>& c, const Derivative<Real, Kind>& derivative, const Back<Real>& rows,
                 Index count) {
  const Real *grad_spikes = rows.grad_spikes, *u = rows.u, *before = rows.before, *after = rows.after;
  Real *grad = rows.grad, *carried = rows.carried, *late = rows.late;
  Real *grad_decay = rows.grad_decay, *grad_threshold = rows.grad_threshold;
  const bool attached = c.attached();
  INDEPENDENT
  for (Index i = 0; i < count; ++i) {
    const Real membrane = Delayed ? after[i] : u[i];
    // dv / d(the spike of the reset)
    const Real through = attached ? (c.keep - Real(1)) * u[i] + c.shift(i) : Real(0);
    const Real surrogate = derivative(membrane - c.threshold(i));
    const Real spike = surrogate * (grad_spikes[i] + (Delayed ? late[i] : attached ? through * carried[i] : Real(0)));
    const Real grad_after = Delayed ? carried[i] + spike : carried[i];
    const bool fired = (Delayed ? before[i] : u[i]) >= c.fire(i);
    const Real kept = fired ? c.kept(grad_after) : grad_after;
    const Real g = Delayed ? kept : spike + kept;
    grad[i] = g;
    carried[i] = c.decay(i) * g;
    if (Delayed) late[i] = through * grad_after;
    if (Learned) {
      grad_decay[i] += g * before[i];
      grad_threshold[i] -= spike + (fired ? c.drop * grad_after : Real(0));
    }
  }
}

// Before the first step a delayed reset asks whether v_0 is above the threshold.
template <class Real, bool Learned, bool Plain, int Kind>
INLINE void back_to_start(const Constants<Real, Learned, Plain>& c, const Derivative<Real, Kind>& derivative,
                          const Back<Real>& rows, Index count) {
  INDEPENDENT
  for (Index i = 0; i < count; ++i) {
    const Real spike = derivative(rows.before[i] - c.threshold(i)) * rows.late[i];
    rows.carried[i] += spike;
    if (Learned) rows.grad_threshold[i] -= spike;
  }
}

// Asks for what a strip of the same row will read soon: the hardware's own foresight ends with the page.
template <class Real>
INLINE void fetch_ahead(const Real* row) {
#if defined(__GNUC__)
  for (Index i = 0; i < kStrip; i += 64 / static_cast<Index>(sizeof(Real)))
    __builtin_prefetch(reinterpret_cast<const char*>(row + i) + kAhead);
#endif
}

// Writes past the caches: what is not read again soon, in lines that are written whole and need not be fetched first.
template <class Real>
INLINE void stream(Real* out, const Real* in, Index count) {
#if defined(__SSE2__) || defined(_M_X64)
  constexpr Index kLine = 64 / sizeof(Real), kPart = 16 / sizeof(Real);
  const Index ragged = static_cast<Index>(-reinterpret_cast<std::uintptr_t>(out) & 63) / static_cast<Index>(sizeof(Real));
  const Index head = std::min(count, ragged);
  Index i = head;
  std::copy_n(in, head, out);
  for (; i + kLine <= count; i += kLine)
    for (Index k = i; k < i + kLine; k += kPart)
      _mm_stream_ps(reinterpret_cast<float*>(out + k), _mm_loadu_ps(reinterpret_cast<const float*>(in + k)));
  std::copy_n(in + i, count - i, out + i);
#else
  std::copy_n(in, count, out);
#endif
}

INLINE void stream_done() {
#if defined(__SSE2__) || defined(_M_X64)
  _mm_sfence();
#endif
}

// Calls work(start, channels) for the strips of a row: how long whole ones are is known when it is compiled.
template <class Work>
INLINE void by_strip(Index count, const Work& work) {
  Index i = 0;
  for (; i + kStrip <= count; i += kStrip) work(i, kStrip);
  if (i < count) work(i, count - i);
}

template <class Real, bool Delayed, bool Learned, bool Plain>
INLINE void forward(const LifForward& s, Index tokens, const Span& x) {
  const Constants<Real, Learned, Plain> constants(s.neuron, x.flat);
  Real* v = static_cast<Real*>(s.v) + x.flat;
  Real* checkpoint = static_cast<Real*>(s.checkpoint);
  alignas(64) Real passing[kStrip];
  for (Index t = 0; t < tokens; ++t) {
    if (checkpoint && t % s.neuron.every == 0)
      std::copy_n(v, x.count, checkpoint + t / s.neuron.every * s.channels + x.flat);
    const Real* current = at<Real>(s.current, t, x.batch, x.first);
    Real* spikes = at<Real>(s.spikes, t, x.batch, x.first);
    by_strip(x.count, [&](Index i, Index count) INLINED {
      fetch_ahead(current + i);
      step<Real, Delayed>(constants.from(i), current + i, v + i, s.neuron.stream ? passing : spikes + i, count);
      if (s.neuron.stream) stream(spikes + i, passing, count);
    });
  }
  if (s.neuron.stream) stream_done();
}

template <class Real>
INLINE void run(const LifForward& s, Index tokens, const Span& x) {
  const bool delayed = s.neuron.delayed, learned = s.neuron.decays;
  if (delayed && learned) return forward<Real, true, true, false>(s, tokens, x);
  if (delayed) return forward<Real, true, false, false>(s, tokens, x);
  if (learned) return forward<Real, false, true, false>(s, tokens, x);
  if (plain(s.neuron)) return forward<Real, false, false, true>(s, tokens, x);
  forward<Real, false, false, false>(s, tokens, x);
}

template <class Real, bool Delayed, bool Learned, bool Plain, int Kind>
INLINE void descend(const LifBackward& s, Index tokens, const Span& x) {
  constexpr bool kBefore = Delayed || Learned;  // every v is asked for, and not only every u
  const Constants<Real, Learned, Plain> constants(s.neuron, x.flat);
  const Derivative<Real, Kind> derivative(s.neuron.slope);
  const Index every = std::min(s.neuron.every, tokens), count = x.count;
  const Index rows_kept = every + 1 + (kBefore ? every + 1 : 1);
  const std::unique_ptr<Real[]> scratch(new Real[static_cast<std::size_t>(count * rows_kept)]);
  Real* const u = scratch.get();
  Real* const late = u + count * every;
  Real* const v = late + count;  // before step `first` of a chunk, and after each of its steps where that is asked for
  alignas(64) Real passing[kStrip];
  std::fill_n(late, count, Real(0));
  Back<Real> rows{};
  rows.carried = static_cast<Real*>(s.grad_v) + x.flat;
  rows.late = late;
  rows.before = v;
  if (Learned) {
    rows.grad_decay = static_cast<Real*>(s.grad_decay) + x.flat;
    rows.grad_threshold = static_cast<Real*>(s.grad_threshold) + x.flat;
  }
  for (Index chunk = (tokens - 1) / every; chunk >= 0; --chunk) {
    const Index first = chunk * every, last = std::min(first + every, tokens);
    std::copy_n(static_cast<const Real*>(s.checkpoint) + chunk * s.channels + x.flat, count, v);
    for (Index t = first; t < last; ++t) {
      Real* const before = kBefore ? v + (t - first) * count : v;
      const Real* current = at<Real>(s.current, t, x.batch, x.first);
      Real* const after = kBefore ? before + count : v;
      Real* const membrane = u + (t - first) * count;
      by_strip(count, [&](Index i, Index part) INLINED {
        fetch_ahead(current + i);
        retrace<Real, Delayed>(constants.from(i), current + i, before + i, membrane + i, after + i, part);
      });
    }
    for (Index t = last - 1; t >= first; --t) {
      Real* grad = at<Real>(s.grad, t, x.batch, x.first);
      rows.grad_spikes = at<Real>(s.grad_spikes, t, x.batch, x.first);
      rows.u = u + (t - first) * count;
      if (kBefore) rows.before = v + (t - first) * count, rows.after = rows.before + count;
      rows.grad = grad;
      by_strip(count, [&](Index i, Index part) INLINED {
        Back<Real> some = rows.from(i);
        if (s.neuron.stream) some.grad = passing;
        fetch_ahead(some.grad_spikes);
        back<Real, Delayed>(constants.from(i), derivative, some, part);
        if (s.neuron.stream) stream(grad + i, passing, part);
      });
    }
  }
  if (Delayed) back_to_start(constants, derivative, rows, count);
  if (s.neuron.stream) stream_done();
}

template <class Real, bool Delayed, bool Learned, bool Plain>
INLINE void backward(const LifBackward& s, Index tokens, const Span& x) {
  if (s.neuron.kind == 0) return descend<Real, Delayed, Learned, Plain, 0>(s, tokens, x);
  if (s.neuron.kind == 1) return descend<Real, Delayed, Learned, Plain, 1>(s, tokens, x);
  if (s.neuron.kind == 2) return descend<Real, Delayed, Learned, Plain, 2>(s, tokens, x);
  descend<Real, Delayed, Learned, Plain, 3>(s, tokens, x);
}

template <class Real>
INLINE void run(const LifBackward& s, Index tokens, const Span& x) {
  const bool delayed = s.neuron.delayed, learned = s.neuron.decays;
  if (delayed && learned) return backward<Real, true, true, false>(s, tokens, x);
  if (delayed) return backward<Real, true, false, false>(s, tokens, x);
  if (learned) return backward<Real, false, true, false>(s, tokens, x);
  if (plain(s.neuron)) return backward<Real, false, false, true>(s, tokens, x);
  backward<Real, false, false, false>(s, tokens, x);
}

template <class Real, class Scan>
INLINE Index widest(const Scan&) {
  return kWidest;
}
template <class Real>
INLINE Index widest(const LifForward& s) {
  return (s.neuron.decays ? kLifRow / 4 : kLifRow) / static_cast<Index>(sizeof(Real));
}
template <class Real>
INLINE Index widest(const LifBackward& s) {
  return (s.neuron.decays || s.neuron.delayed ? kLifRow / 4 : kLifRow) / static_cast<Index>(sizeof(Real));
}

// Channels [first, last) of the flattened [B, D], one batch row (or a part of a very wide one) after the other.
template <class Real, class Scan>
INLINE void cover(const Scan& scan, const Shape& shape, Index first, Index last) {
  while (first < last) {
    const Index batch = first / shape.width, channel = first % shape.width;
    const Index count = std::min({shape.width - channel, last - first, widest<Real>(scan)});
    run<Real>(scan, shape.tokens, Span{batch, channel, count, first});
    first += count;
  }
}

// A function a type, because clones cannot be made of a template.
#define COVER(Scan, Real)                                                                \
  CLONES void work(const Scan& scan, const Shape& shape, Index first, Index last, Real) { \
    cover<Real>(scan, shape, first, last);                                               \
  }
COVER(AffineForward, float)
COVER(AffineForward, double)
COVER(AffineBackward, float)
COVER(AffineBackward, double)
COVER(LifForward, float)
COVER(LifForward, double)
COVER(LifBackward, float)
COVER(LifBackward, double)

template <class Real, class Scan>
void share(const Scan& scan, Shape shape, std::initializer_list<Index> batch_strides) {
  // Rows without a gap between them are one long row.
  if (std::all_of(batch_strides.begin(), batch_strides.end(), [&](Index stride) { return stride == shape.width; })) {
    shape.width *= shape.batch;
    shape.batch = 1;
  }
  const Index channels = shape.batch * shape.width;
  const Index threads = std::max<Index>(1, std::min(shape.threads, shape.tokens * channels / kWorthAThread));
  const Index strips = (channels + kStrip - 1) / kStrip;
  const Index part = (strips + threads - 1) / threads * kStrip;  // whole strips: no two threads write one cache line
  spread(channels, part, [&](Index first, Index last) { work(scan, shape, first, last, Real()); });
}

struct Product {
  const void *weight, *x, *bias;  // [rows, columns] without gaps, [columns], [rows] or null
  void* y;                        // [rows]
  Index rows, columns;
};

// Rows [first, last) of y = W x + bias. One row after the other, so that the weights are read in the order they lie in: a
// library's product of two matrices, asked for one row of the first, reads them at half the rate (measured, as above).
template <class Real>
INLINE void multiply(const Product& p, Index first, Index last) {
  const Real* __restrict x = static_cast<const Real*>(p.x);
  const Real* bias = static_cast<const Real*>(p.bias);
  Real* __restrict y = static_cast<Real*>(p.y);
  const Index whole = p.columns / kLanes * kLanes;
  for (Index row = first; row < last; ++row) {
    const Real* __restrict w = static_cast<const Real*>(p.weight) + row * p.columns;
    Real sums[kLanes] = {};
    for (Index i = 0; i < whole; i += kLanes)
      for (Index k = 0; k < kLanes; ++k) sums[k] += w[i + k] * x[i + k];
    for (Index i = whole; i < p.columns; ++i) sums[i - whole] += w[i] * x[i];
    for (Index half = kLanes / 2; half > 0; half /= 2)
      for (Index k = 0; k < half; ++k) sums[k] += sums[k + half];
    y[row] = bias ? sums[0] + bias[row] : sums[0];
  }
}

CLONES void product(const Product& p, Index first, Index last, float) { multiply<float>(p, first, last); }
CLONES void product(const Product& p, Index first, Index last, double) { multiply<double>(p, first, last); }

template <class Real>
void share(const Product& p, Index threads) {
  threads = std::max<Index>(1, std::min(threads, p.rows * p.columns / kWorthAThread));
  spread(p.rows, (p.rows + threads - 1) / threads, [&p](Index first, Index last) { product(p, first, last, Real()); });
}

}  // namespace

EXPORT Index neuro_scan_version() { return kVersion; }

#define SCANS(Real, name)                                                                                             \
  EXPORT void neuro_affine_scan_##name(Rows a, Rows b, const void* h0, Rows h, Shape shape) {                         \
    share<Real>(AffineForward{a, b, h, h0}, shape, {a.batch, b.batch, h.batch});                                      \
  }                                                                                                                   \
  EXPORT void neuro_affine_scan_backward_##name(Rows grad, Rows a, Rows h, const void* h0, Rows grad_a, Rows grad_b,  \
                                                void* grad_h0, Shape shape) {                                         \
    share<Real>(AffineBackward{grad, a, h, grad_a, grad_b, h0, grad_h0}, shape,                                       \
                {grad.batch, a.batch, h.batch, grad_a.batch, grad_b.batch});                                          \
  }                                                                                                                   \
  EXPORT void neuro_lif_scan_##name(Rows current, Rows spikes, void* v, void* checkpoint, Neuron neuron, Shape shape) { \
    share<Real>(LifForward{current, spikes, v, checkpoint, shape.batch * shape.width, neuron}, shape,                 \
                {current.batch, spikes.batch});                                                                       \
  }                                                                                                                   \
  EXPORT void neuro_lif_scan_backward_##name(Rows grad_spikes, Rows current, Rows grad, void* grad_v,                 \
                                             const void* checkpoint, void* grad_decay, void* grad_threshold,          \
                                             Neuron neuron, Shape shape) {                                            \
    share<Real>(LifBackward{grad_spikes, current, grad, grad_v, checkpoint, grad_decay, grad_threshold,               \
                            shape.batch * shape.width, neuron},                                                       \
                shape, {grad_spikes.batch, current.batch, grad.batch});                                               \
  }                                                                                                                   \
  EXPORT void neuro_product_##name(const void* weight, const void* x, const void* bias, void* y, Index rows,          \
                                   Index columns, Index threads) {                                                    \
    share<Real>(Product{weight, x, bias, y, rows, columns}, threads);                                                 \
  }

SCANS(float, float32)
SCANS(double, float64)
