// Products of a matrix with vectors that are mostly zeros (spikes), behind a plain C interface: no header of torch or Python.
//
// A row of spikes becomes the list of its non-zero columns (16-bit, so at most 65,536 of them), and y = W x the sum of the
// rows of W' in that list. What that costs is set by where those rows lie (measured on an AMD EPYC):
//   - Many vectors: W' is cut into panels of a few dozen columns, each a dense [K, columns] block that fits the second cache,
//     with the sums of one vector in registers. Cutting plain rows instead makes equal cache sets of them all.
//   - Few vectors: a row of W' is read once from memory, so whole rows, eight at a time into sums that stay in the first cache.
//   - The gradient of W is the same sum with the roles exchanged: over the list of vectors in which a column is not zero,
//     panels of the gradient of y.
//
// Order of summation, the same on every path and with any number of threads: up the list in blocks of eight, each summed
// for itself and then added, at last the bias. (One long sum errs 2.8 times as much where thousands are added.) A value
// other than one is multiplied first; products and sums are rounded apart (no fused multiply-add).

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#if defined(__SSE2__) || defined(_M_X64)
#define NEURO_SSE2
#include <emmintrin.h>
#if defined(_MSC_VER)
#include <intrin.h>
#endif
#endif

#include "common.hpp"

using Column = std::uint16_t;

// The non-zeros of x [rows, width], row after row: `columns` and `values` of row r are those from offsets[r] to offsets[r+1].
struct Events {
  const Column* columns;
  const float* values;  // null where all are one
  const Index* offsets;
  Index rows, width;
};

// W' as panels [panels][inputs][kWide], the last filled with zeros.
struct Panels {
  const float *data, *bias;  // bias [outputs] or null
  Index outputs;
};

// What a neuron does; the numbers are those of backends/kernels/spikes.py.
struct Rule {
  double decay, threshold, v_reset;
  Index reset;  // 0 none, 1 soft, 2 hard, 3 and 4 soft and hard one step later
  Index strict;
};

namespace {

constexpr Index kVersion = 2;            // of this interface; backends/kernels/spikes.py asks for the same
constexpr Index kWide = 32;              // columns of a panel: 16 are slower below a density of 5 %, 64 above
constexpr Index kSquare = 16;            // rows and columns transposed at once
constexpr Index kBlock = 8;              // events summed before they are added to the rest
constexpr Index kWorthAThread = 1 << 19; // additions: below, starting a thread costs more than it saves
constexpr Index kWorthListing = 1 << 20; // inputs: likewise
constexpr Index kGradRows = 1024;        // vectors of a panel of the gradient of y: it fits the second cache

// N float32 in one vector of the processor: what is wider than its registers goes through memory, 2 times slower.
#if defined(__GNUC__)
template <Index N>
struct Vector {
  typedef float Lane __attribute__((vector_size(4 * N), aligned(4), may_alias));
  typedef std::int32_t Mask __attribute__((vector_size(4 * N), aligned(4)));
};
#define UNROLL _Pragma("GCC unroll 8")
#else
template <Index N>
struct Vector {
  struct Mask {
    bool at[N];
  };
  struct Lane {
    float at[N];
#define EACH(Out, expression)                                    \
  Out out;                                                       \
  for (Index i = 0; i < N; ++i) out.at[i] = at[i] expression b.at[i]; \
  return out
    Lane operator+(const Lane& b) const { EACH(Lane, +); }
    Lane operator-(const Lane& b) const { EACH(Lane, -); }
    Lane operator*(const Lane& b) const { EACH(Lane, *); }
    Mask operator>(const Lane& b) const { EACH(Mask, >); }
    Mask operator>=(const Lane& b) const { EACH(Mask, >=); }
#undef EACH
  };
};
#define UNROLL
#endif

// A panel's columns in vectors of N, and what is done with them.
template <Index N>
struct Lanes {
  using Lane = typename Vector<N>::Lane;
  using Mask = typename Vector<N>::Mask;
  static constexpr Index kLanes = kWide / N;
  using Row = Lane[kLanes];

  static INLINE Lane& at(float* data, Index i) { return *reinterpret_cast<Lane*>(data + i * N); }
  static INLINE const Lane& at(const float* data, Index i) { return *reinterpret_cast<const Lane*>(data + i * N); }
#if defined(__GNUC__)
  static INLINE void fill(Lane& a, float x) { a = Lane{} + x; }
  static INLINE void choose(Lane& out, const Mask& mask, const Lane& yes, const Lane& no) { out = mask ? yes : no; }
#else
  static INLINE void fill(Lane& a, float x) { std::fill_n(a.at, N, x); }
  static INLINE void choose(Lane& out, const Mask& mask, const Lane& yes, const Lane& no) {
    for (Index i = 0; i < N; ++i) out.at[i] = mask.at[i] ? yes.at[i] : no.at[i];
  }
#endif

  // One event's row of a panel, times its value where that is not one.
  template <bool kOnes>
  static INLINE void take(const Events& x, Index e, const float* panel, Row& row) {
    const float* w = panel + x.columns[e] * kWide;
    Lane value;
    if (!kOnes) fill(value, x.values[e]);
    UNROLL for (Index i = 0; i < kLanes; ++i) row[i] = kOnes ? at(w, i) : value * at(w, i);
  }

  // Adds one row of events in one panel to its sums.
  template <bool kOnes>
  static INLINE void gather(const Events& x, Index row, const float* panel, Row& sums) {
    const Index last = x.offsets[row + 1];
    Index e = x.offsets[row];
    Row part, next;
    for (; e + kBlock <= last; e += kBlock) {
      take<kOnes>(x, e, panel, part);
      UNROLL for (Index j = 1; j < kBlock; ++j) {
        take<kOnes>(x, e + j, panel, next);
        UNROLL for (Index i = 0; i < kLanes; ++i) part[i] = part[i] + next[i];
      }
      UNROLL for (Index i = 0; i < kLanes; ++i) sums[i] = sums[i] + part[i];
    }
    if (e == last) return;
    take<kOnes>(x, e, panel, part);
    for (++e; e < last; ++e) {
      take<kOnes>(x, e, panel, next);
      UNROLL for (Index i = 0; i < kLanes; ++i) part[i] = part[i] + next[i];
    }
    UNROLL for (Index i = 0; i < kLanes; ++i) sums[i] = sums[i] + part[i];
  }

  // The bias of one panel's columns, zeros where there is none.
  static INLINE void bias_of(const Panels& w, Index first, Row& bias) {
    float padded[kWide] = {};
    if (w.bias) std::memcpy(padded, w.bias + first, sizeof(float) * std::min(kWide, w.outputs - first));
    UNROLL for (Index i = 0; i < kLanes; ++i) bias[i] = at(padded, i);
  }

  static INLINE void write(const Row& from, float* to, Index count) {
    if (count == kWide) {
      UNROLL for (Index i = 0; i < kLanes; ++i) at(to, i) = from[i];
    } else {
      float whole[kWide];
      UNROLL for (Index i = 0; i < kLanes; ++i) at(whole, i) = from[i];
      std::memcpy(to, whole, sizeof(float) * count);
    }
  }

  // Rows [first, last) of y [rows, outputs], in one panel.
  template <bool kOnes>
  static INLINE void rows_of_panel(const Events& x, const Panels& w, float* y, Index p, Index first, Index last) {
    const float* panel = w.data + p * x.width * kWide;
    const Index count = std::min(kWide, w.outputs - p * kWide);
    Row bias;
    bias_of(w, p * kWide, bias);
    for (Index row = first; row < last; ++row) {
      Row sums = {};
      gather<kOnes>(x, row, panel, sums);
      if (w.bias) {
        UNROLL for (Index i = 0; i < kLanes; ++i) sums[i] = sums[i] + bias[i];
      }
      write(sums, y + row * w.outputs + p * kWide, count);
    }
  }

  // One panel of linear + LIF: rows are [T, B] in x, `v` is [B, outputs], before the first step and after the last.
  template <bool kOnes, Index kReset, bool kStrict>
  static INLINE void fire_panel(const Events& x, const Panels& w, const Rule& rule, Index batch, float* v, float* spikes, Index p) {
    const float* panel = w.data + p * x.width * kWide;
    const Index count = std::min(kWide, w.outputs - p * kWide);
    std::vector<float> state(batch * kWide, 0.0f);
    for (Index b = 0; b < batch; ++b) std::memcpy(&state[b * kWide], v + b * w.outputs + p * kWide, sizeof(float) * count);
    Row bias;
    Lane decay, threshold, after, zero = {}, one;
    bias_of(w, p * kWide, bias);
    fill(decay, static_cast<float>(rule.decay));
    fill(threshold, static_cast<float>(rule.threshold));
    fill(after, static_cast<float>(rule.v_reset));
    fill(one, 1.0f);
    for (Index row = 0, b = 0; row < x.rows; ++row, b = b + 1 < batch ? b + 1 : 0) {
      Row sums = {};
      gather<kOnes>(x, row, panel, sums);
      UNROLL for (Index i = 0; i < kLanes; ++i) {
        if (w.bias) sums[i] = sums[i] + bias[i];
        Lane& before = at(&state[b * kWide], i);
        Lane u = decay * before + sums[i], s;
        const Mask fired = kStrict ? before > threshold : before >= threshold;
        if (kReset == 3) {
          choose(s, fired, threshold, zero);
          u = u - s;
        }
        if (kReset == 4) choose(u, fired, after, u);
        const Mask fires = kStrict ? u > threshold : u >= threshold;
        choose(sums[i], fires, one, zero);
        if (kReset == 1) {
          choose(s, fires, threshold, zero);
          u = u - s;
        }
        if (kReset == 2) choose(u, fires, after, u);
        before = u;
      }
      write(sums, spikes + row * w.outputs + p * kWide, count);
    }
    for (Index b = 0; b < batch; ++b) std::memcpy(v + b * w.outputs + p * kWide, &state[b * kWide], sizeof(float) * count);
  }

  template <bool kOnes>
  static INLINE void fire_rule(const Events& x, const Panels& w, const Rule& r, Index batch, float* v, float* spikes, Index p) {
    switch (2 * r.reset + (r.strict ? 1 : 0)) {
      case 0: return fire_panel<kOnes, 0, false>(x, w, r, batch, v, spikes, p);
      case 1: return fire_panel<kOnes, 0, true>(x, w, r, batch, v, spikes, p);
      case 2: return fire_panel<kOnes, 1, false>(x, w, r, batch, v, spikes, p);
      case 3: return fire_panel<kOnes, 1, true>(x, w, r, batch, v, spikes, p);
      case 4: return fire_panel<kOnes, 2, false>(x, w, r, batch, v, spikes, p);
      case 5: return fire_panel<kOnes, 2, true>(x, w, r, batch, v, spikes, p);
      case 6: return fire_panel<kOnes, 3, false>(x, w, r, batch, v, spikes, p);
      case 7: return fire_panel<kOnes, 3, true>(x, w, r, batch, v, spikes, p);
      case 8: return fire_panel<kOnes, 4, false>(x, w, r, batch, v, spikes, p);
      default: return fire_panel<kOnes, 4, true>(x, w, r, batch, v, spikes, p);
    }
  }

  template <bool kOnes>
  static INLINE void add_to_grad(const Events& x, const float* panel, float* grad) {
    for (Index column = 0; column < x.rows; ++column) {
      if (x.offsets[column] == x.offsets[column + 1]) continue;
      Row sums;
      UNROLL for (Index i = 0; i < kLanes; ++i) sums[i] = at(grad + column * kWide, i);
      gather<kOnes>(x, column, panel, sums);
      UNROLL for (Index i = 0; i < kLanes; ++i) at(grad + column * kWide, i) = sums[i];
    }
  }
};

// `spread` in as many parts as there are threads.
template <class Work>
void divide(Index all, Index threads, const Work& work) {
  spread(all, std::max<Index>(1, (all + threads - 1) / std::max<Index>(1, threads)), work);
}

Index threads_for(Index additions, Index threads) {
  return std::max<Index>(1, std::min(threads, additions / kWorthAThread));
}

INLINE Index lowest(std::uint64_t bits) {
#if defined(_MSC_VER)
  unsigned long at;
  _BitScanForward64(&at, bits);
  return at;
#else
  return __builtin_ctzll(bits);
#endif
}

// Appends the non-zero columns of x [width] to `out`; `ones` becomes false where a value is not one.
INLINE Column* list(const float* x, Index width, Column* out, bool& ones) {
  Index k = 0;
#if defined(NEURO_SSE2)
  const __m128 zero = _mm_setzero_ps();
  for (; k + 64 <= width; k += 64) {
    std::uint64_t bits = 0;
    for (Index part = 0; part < 4; ++part) {
      const float* at = x + k + 16 * part;
      const __m128i a = _mm_castps_si128(_mm_cmpneq_ps(_mm_loadu_ps(at), zero));
      const __m128i b = _mm_castps_si128(_mm_cmpneq_ps(_mm_loadu_ps(at + 4), zero));
      const __m128i c = _mm_castps_si128(_mm_cmpneq_ps(_mm_loadu_ps(at + 8), zero));
      const __m128i d = _mm_castps_si128(_mm_cmpneq_ps(_mm_loadu_ps(at + 12), zero));
      const __m128i bytes = _mm_packs_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d));
      bits |= static_cast<std::uint64_t>(static_cast<unsigned>(_mm_movemask_epi8(bytes))) << (16 * part);
    }
    for (; bits; bits &= bits - 1) {
      const Index column = k + lowest(bits);
      ones &= x[column] == 1.0f;
      *out++ = static_cast<Column>(column);
    }
  }
#endif
  for (; k < width; ++k) {
    if (x[k] == 0.0f) continue;
    ones &= x[k] == 1.0f;
    *out++ = static_cast<Column>(k);
  }
  return out;
}

CLONES void count(const float* x, Index stride, Index width, Index* counts, Index first, Index last) {
  for (Index row = first; row < last; ++row) {
    const float* at = x + row * stride;
    std::int32_t found = 0;
    for (Index k = 0; k < width; ++k) found += at[k] != 0.0f;
    counts[row] = found;
  }
}

// The three loops over panels, each compiled for vectors of N with the instructions that have them.
struct Loops {
  void (*product)(const Events&, const Panels&, float*, Index, Index, Index);
  void (*fire)(const Events&, const Panels&, const Rule&, Index, float*, float*, Index);
  void (*add_grad)(const Events&, const float*, float*);
};

#define LOOPS(name, N, instructions)                                                                             \
  instructions void product_##name(const Events& x, const Panels& w, float* y, Index p, Index first, Index last) { \
    if (x.values) return Lanes<N>::rows_of_panel<false>(x, w, y, p, first, last);                                \
    Lanes<N>::rows_of_panel<true>(x, w, y, p, first, last);                                                      \
  }                                                                                                              \
  instructions void fire_##name(const Events& x, const Panels& w, const Rule& r, Index batch, float* v,          \
                                float* spikes, Index p) {                                                        \
    if (x.values) return Lanes<N>::fire_rule<false>(x, w, r, batch, v, spikes, p);                               \
    Lanes<N>::fire_rule<true>(x, w, r, batch, v, spikes, p);                                                     \
  }                                                                                                              \
  instructions void add_grad_##name(const Events& x, const float* panel, float* grad) {                          \
    if (x.values) return Lanes<N>::add_to_grad<false>(x, panel, grad);                                           \
    Lanes<N>::add_to_grad<true>(x, panel, grad);                                                                 \
  }                                                                                                              \
  constexpr Loops name{product_##name, fire_##name, add_grad_##name};

LOOPS(plain, 4, )
#if defined(__GNUC__) && defined(__x86_64__)
LOOPS(avx2, 8, __attribute__((target("avx2"))))
LOOPS(avx512, 16, __attribute__((target("avx512f"))))
#endif

const Loops& loops() {
#if defined(__GNUC__) && defined(__x86_64__)
  static const Loops& best = __builtin_cpu_supports("avx512f") ? avx512 : __builtin_cpu_supports("avx2") ? avx2 : plain;
  return best;
#else
  return plain;
#endif
}

// Columns [first, last) of one row of y: the sum of the rows of W' [width, outputs] in its list.
template <bool kOnes>
INLINE void sum_rows(const Events& x, Index row, const float* weight, const float* bias, Index outputs, float* out,
                     Index first, Index last) {
  const Index width = last - first;
  float* __restrict y = out + row * outputs + first;
  std::fill_n(y, width, 0.0f);
  const Index events = x.offsets[row + 1];
  const float *w[kBlock], *s = x.values;
  Index e = x.offsets[row];
  for (; e + kBlock <= events; e += kBlock) {
    UNROLL for (Index j = 0; j < kBlock; ++j) w[j] = weight + x.columns[e + j] * outputs + first;
    for (Index i = 0; i < width; ++i) {
      float part = kOnes ? w[0][i] : s[e] * w[0][i];
      UNROLL for (Index j = 1; j < kBlock; ++j) part += kOnes ? w[j][i] : s[e + j] * w[j][i];
      y[i] += part;
    }
  }
  const Index rest = events - e;
  if (rest) {
    for (Index j = 0; j < rest; ++j) w[j] = weight + x.columns[e + j] * outputs + first;
    for (Index i = 0; i < width; ++i) {
      float part = kOnes ? w[0][i] : s[e] * w[0][i];
      for (Index j = 1; j < rest; ++j) part += kOnes ? w[j][i] : s[e + j] * w[j][i];
      y[i] += part;
    }
  }
  if (bias)
    for (Index i = 0; i < width; ++i) y[i] += bias[first + i];
}

CLONES void whole_rows(const Events& x, const float* weight, const float* bias, Index outputs, float* y, Index first,
                       Index last) {
  for (Index row = 0; row < x.rows; ++row)
    if (x.values)
      sum_rows<false>(x, row, weight, bias, outputs, y, first, last);
    else
      sum_rows<true>(x, row, weight, bias, outputs, y, first, last);
}

// from [rows, columns] to its transpose, with the given distances between rows, in squares that fit the first cache.
CLONES void transpose(const float* from, Index from_row, float* to, Index to_row, Index rows, Index columns) {
  for (Index column = 0; column < columns; column += kSquare)
    for (Index row = 0; row < rows; row += kSquare) {
      const Index width = std::min(kSquare, columns - column), height = std::min(kSquare, rows - row);
      const float* __restrict a = from + row * from_row + column;
      float* __restrict b = to + column * to_row + row;
      for (Index j = 0; j < width; ++j)
        for (Index i = 0; i < height; ++i) b[j * to_row + i] = a[i * from_row + j];
    }
}

// The same events by column: rows [first, last) of x in which each column is not zero, as numbers from `first`.
struct ByColumn {
  std::vector<Index> offsets;
  std::vector<Column> rows;
  std::vector<float> values;
};

void by_column(const Events& x, Index first, Index last, ByColumn& out) {
  const Index begin = x.offsets[first], end = x.offsets[last];
  out.offsets.assign(x.width + 2, 0);
  out.rows.resize(end - begin);
  out.values.resize(x.values ? end - begin : 0);
  for (Index e = begin; e < end; ++e) ++out.offsets[x.columns[e] + 2];
  for (Index k = 2; k < x.width + 2; ++k) out.offsets[k] += out.offsets[k - 1];
  for (Index row = first; row < last; ++row)
    for (Index e = x.offsets[row]; e < x.offsets[row + 1]; ++e) {
      const Index at = out.offsets[x.columns[e] + 1]++;
      out.rows[at] = static_cast<Column>(row - first);
      if (x.values) out.values[at] = x.values[e];
    }
}

// Panels [first, last) of the gradient of W [outputs, width], from that of y [rows, outputs].
void weight_grad(const std::vector<ByColumn>& events, const Events& x, const float* grad_y, Index outputs, float* grad_w,
                 Index first, Index last) {
  std::vector<float> panel(std::min(kGradRows, x.rows) * kWide), sums(x.width * kWide);
  for (Index p = first; p < last; ++p) {
    const Index count = std::min(kWide, outputs - p * kWide);
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (std::size_t part = 0; part < events.size(); ++part) {
      const Index start = static_cast<Index>(part) * kGradRows, rows = std::min(kGradRows, x.rows - start);
      for (Index r = 0; r < rows; ++r)
        std::memcpy(&panel[r * kWide], grad_y + (start + r) * outputs + p * kWide, sizeof(float) * count);
      const ByColumn& e = events[part];
      const Events columns{e.rows.data(), x.values ? e.values.data() : nullptr, e.offsets.data(), x.width, rows};
      loops().add_grad(columns, panel.data(), sums.data());
    }
    transpose(sums.data(), kWide, grad_w + p * kWide * x.width, x.width, x.width, count);
  }
}

}  // namespace

EXPORT Index neuro_spikes_version() { return kVersion; }

EXPORT Index neuro_spikes_panel() { return kWide; }

// Lists the non-zeros of x [rows, width]: their number, or -1 once there are more than `most`. `columns` holds most + width
// of them. `ones`: whether each is one. Several threads count first, so that each knows where its rows go.
EXPORT Index neuro_spikes_find(const float* x, Index stride, Index rows, Index width, Column* columns, Index* offsets,
                               Index most, Index* ones, Index threads) {
  offsets[0] = 0;
  threads = std::max<Index>(1, std::min(threads, rows * width / kWorthListing));
  if (threads == 1) {
    bool all_ones = true;
    Column* at = columns;
    for (Index row = 0; row < rows; ++row) {
      at = list(x + row * stride, width, at, all_ones);
      offsets[row + 1] = at - columns;
      if (offsets[row + 1] > most) return -1;
    }
    *ones = all_ones;
    return at - columns;
  }
  divide(rows, threads, [=](Index first, Index last) { count(x, stride, width, offsets + 1, first, last); });
  for (Index row = 0; row < rows; ++row) offsets[row + 1] += offsets[row];
  if (offsets[rows] > most) return -1;
  std::atomic<bool> every{true};
  divide(rows, threads, [=, &every](Index first, Index last) {
    bool all_ones = true;
    for (Index row = first; row < last; ++row) list(x + row * stride, width, columns + offsets[row], all_ones);
    if (!all_ones) every = false;
  });
  *ones = every;
  return offsets[rows];
}

EXPORT void neuro_spikes_values(const float* x, Index stride, Events events, float* values) {
  for (Index row = 0; row < events.rows; ++row)
    for (Index e = events.offsets[row]; e < events.offsets[row + 1]; ++e) values[e] = x[row * stride + events.columns[e]];
}

// A number that changes, as good as always, when an optimizer has written the weight: of 64 values scattered over it.
EXPORT Index neuro_spikes_mark(const float* weight, Index count) {
  std::uint64_t mark = 0;
  for (Index i = 0; i < 64; ++i) {
    const std::uint64_t at = static_cast<std::uint32_t>(i * 2654435769u);  // multiples of the golden section of 2^32
    std::uint32_t bits;
    std::memcpy(&bits, weight + static_cast<Index>((at * static_cast<std::uint64_t>(count)) >> 32), sizeof bits);
    mark = (mark ^ bits) * 1099511628211u;
  }
  return static_cast<Index>(mark);
}

// W [outputs, inputs] to panels [inputs, wide] of W', the last filled with zeros; wide = outputs makes W' itself.
EXPORT void neuro_spikes_pack(const float* weight, Index outputs, Index inputs, Index wide, float* panels) {
  for (Index first = 0; first < outputs; first += wide) {
    const Index count = std::min(wide, outputs - first);
    float* panel = panels + first * inputs;
    if (count < wide) std::fill_n(panel, inputs * wide, 0.0f);
    transpose(weight + first * inputs, inputs, panel, wide, count, inputs);
  }
}

// y [rows, outputs] = W x + bias
EXPORT void neuro_spikes_product(Events x, Panels w, float* y, Index threads) {
  const Index panels = (w.outputs + kWide - 1) / kWide;
  threads = threads_for(x.offsets[x.rows] * w.outputs, threads);
  if (panels >= threads)
    return divide(panels, threads, [&](Index first, Index last) {
      for (Index p = first; p < last; ++p) loops().product(x, w, y, p, 0, x.rows);
    });
  divide(x.rows, threads, [&](Index first, Index last) {
    for (Index p = 0; p < panels; ++p) loops().product(x, w, y, p, first, last);
  });
}

// Neurons driven by W x + bias: rows of x are [T, batch], `v` [batch, outputs] goes from before the first step to after the
// last, `spikes` is [T, batch, outputs].
EXPORT void neuro_spikes_lif(Events x, Panels w, Rule rule, Index batch, float* v, float* spikes, Index threads) {
  const Index panels = (w.outputs + kWide - 1) / kWide;
  divide(panels, threads_for(x.offsets[x.rows] * w.outputs, threads), [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) loops().fire(x, w, rule, batch, v, spikes, p);
  });
}

// The same from W' [width, outputs], for few rows.
EXPORT void neuro_spikes_few(Events x, const float* weight, const float* bias, Index outputs, float* y, Index threads) {
  const Index parts = (outputs + kSquare - 1) / kSquare;  // whole cache lines
  divide(parts, threads_for(x.offsets[x.rows] * outputs, threads), [&](Index first, Index last) {
    whole_rows(x, weight, bias, outputs, y, first * kSquare, std::min(last * kSquare, outputs));
  });
}

// The gradient of W [outputs, width] from that of y [rows, outputs].
EXPORT void neuro_spikes_weight_grad(Events x, const float* grad_y, Index outputs, float* grad_w, Index threads) {
  std::vector<ByColumn> events((x.rows + kGradRows - 1) / kGradRows);
  for (std::size_t part = 0; part < events.size(); ++part) {
    const Index start = static_cast<Index>(part) * kGradRows;
    by_column(x, start, std::min(start + kGradRows, x.rows), events[part]);
  }
  divide((outputs + kWide - 1) / kWide, threads_for(x.offsets[x.rows] * outputs, threads),
         [&](Index first, Index last) { weight_grad(events, x, grad_y, outputs, grad_w, first, last); });
}
