// The two time loops of the brain, forward and backward, and the matrix times one vector that decoding is made of, behind a
// plain C interface: no header of torch or Python.
//
// Memory is the only cost here, and what it costs depends on the order of addresses (measured on an AMD EPYC):
//   - Whole rows at a time, with their state in the first cache. Blocks narrow enough to keep the state in registers jump
//     from page to page: 1.5 to 2 times slower.
//   - The backward passes go down within a row too, as they do from row to row, so that addresses fall without a break.
//     Where only a part of each row is read (a thread's share) they break anyway, and going up is quicker.
//   - At most three tensors at a time. Five large ones that begin at the same place of a page, as large allocations do,
//     are 2 to 5 times slower: the gradient of a is made in a second sweep, while that of b is still in the second cache.
//
// Products and sums are rounded one after the other (no fused multiply-add): the result is that of a * h + b in torch, bit
// for bit, for one token or many. setup.py passes the flag; the pragma is for compilers that want it said here.

#include <algorithm>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <thread>
#include <vector>

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
#else
#define INLINE inline
#endif

namespace {

using Index = std::int64_t;

constexpr Index kVersion = 2;            // of this interface; backends/kernels/cpu.py asks for the same
constexpr Index kStrip = 64;             // channels of a strip: what the vectorizer sees as one loop
constexpr Index kWidest = 1 << 14;       // channels carried at a time: their state fits the first or second cache
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

struct LifForward {
  Rows current, u, spikes;  // u.data is null where nobody will ask for gradients
  void* v;                  // [B, D]: before the first token, then after the last
  double decay, threshold;
};

struct LifBackward {
  Rows grad_spikes, u, grad;
  void* grad_v;  // [B, D]: of the last membrane, then of the first
  double decay, threshold, slope;
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

template <class Real>
INLINE void run(const LifForward& s, Index tokens, const Span& x) {
  Real* __restrict v = static_cast<Real*>(s.v) + x.flat;
  const Real decay = static_cast<Real>(s.decay), threshold = static_cast<Real>(s.threshold);
  for (Index t = 0; t < tokens; ++t) {
    const Real* __restrict current = at<Real>(s.current, t, x.batch, x.first);
    Real* __restrict spikes = at<Real>(s.spikes, t, x.batch, x.first);
    if (s.u.data) {
      Real* __restrict u = at<Real>(s.u, t, x.batch, x.first);
      for (Index i = 0; i < x.count; ++i) {
        u[i] = decay * v[i] + current[i];
        spikes[i] = u[i] >= threshold ? Real(1) : Real(0);
        v[i] = u[i] - threshold * spikes[i];
      }
    } else {
      for (Index i = 0; i < x.count; ++i) {
        const Real u = decay * v[i] + current[i];
        spikes[i] = u >= threshold ? Real(1) : Real(0);
        v[i] = u - threshold * spikes[i];
      }
    }
  }
}

template <class Real>
INLINE void run(const LifBackward& s, Index tokens, const Span& x) {
  Real* __restrict carried = static_cast<Real*>(s.grad_v) + x.flat;
  const Real decay = static_cast<Real>(s.decay), threshold = static_cast<Real>(s.threshold);
  const Real slope = static_cast<Real>(s.slope);
  const Index strips = (x.count + kStrip - 1) / kStrip;
  const bool down = x.count == s.grad.token;
  for (Index t = tokens - 1; t >= 0; --t) {
    const Real* __restrict grad_spikes = at<Real>(s.grad_spikes, t, x.batch, x.first);
    const Real* __restrict u = at<Real>(s.u, t, x.batch, x.first);
    Real* __restrict grad = at<Real>(s.grad, t, x.batch, x.first);
    for (Index k = 0; k < strips; ++k) {
      const Strip strip_k = strip(k, strips, down, x.count);
      for (Index i = strip_k.start; i < strip_k.stop; ++i) {
        const Real above = u[i] - threshold;
        const Real distance = (above < 0 ? -above : above) * slope + Real(1);
        const Real g = Real(1) / (distance * distance) * grad_spikes[i] + carried[i];
        grad[i] = g;
        carried[i] = g * decay;
      }
    }
  }
}

// Channels [first, last) of the flattened [B, D], one batch row (or a part of a very wide one) after the other.
template <class Real, class Scan>
INLINE void cover(const Scan& scan, const Shape& shape, Index first, Index last) {
  while (first < last) {
    const Index batch = first / shape.width, channel = first % shape.width;
    const Index count = std::min({shape.width - channel, last - first, kWidest});
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

// [0, all) in parts, the first of them here. Threads that are started for the call, and not OpenMP: a second OpenMP runtime
// beside torch's would keep its own pool spinning, and its pool does not survive a fork.
template <class Work>
void spread(Index all, Index part, const Work& work) {
  std::vector<std::thread> helpers;
  Index rest = std::min(part, all);
  try {
    for (; rest < all; rest += part) {
      const Index first = rest, last = std::min(rest + part, all);
      helpers.emplace_back([&work, first, last] { work(first, last); });
    }
  } catch (const std::exception&) {
    work(rest, all);  // no thread to be had: this one does it all
  }
  work(0, std::min(part, all));
  for (std::thread& helper : helpers) helper.join();
}

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
  EXPORT void neuro_lif_scan_##name(Rows current, Rows u, Rows spikes, void* v, double decay, double threshold,       \
                                    Shape shape) {                                                                    \
    share<Real>(LifForward{current, u, spikes, v, decay, threshold}, shape, {current.batch, u.batch, spikes.batch});  \
  }                                                                                                                   \
  EXPORT void neuro_lif_scan_backward_##name(Rows grad_spikes, Rows u, Rows grad, void* grad_v, double decay,         \
                                             double threshold, double slope, Shape shape) {                           \
    share<Real>(LifBackward{grad_spikes, u, grad, grad_v, decay, threshold, slope}, shape,                            \
                {grad_spikes.batch, u.batch, grad.batch});                                                            \
  }                                                                                                                   \
  EXPORT void neuro_product_##name(const void* weight, const void* x, const void* bias, void* y, Index rows,          \
                                   Index columns, Index threads) {                                                    \
    share<Real>(Product{weight, x, bias, y, rows, columns}, threads);                                                 \
  }

SCANS(float, float32)
SCANS(double, float64)
