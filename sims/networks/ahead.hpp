// The current-based network in float32, each of whose neurons is looked at every few steps. Included by network.cpp once for
// each width of vectors.
//
// With a = c1 / (c3 - c4) and b = c2 / (c3 - c5), x = v + a e + b i decays as the membrane does (v is counted from rest).
// Kept divided by their scales, x, e and i do not change at all between spikes: a sweep reads three rows and writes none.
//
// A membrane moves little in a step. A sweep lists the neurons that could cross the threshold in one of the next kLook steps,
// and in those steps only the list is asked. While e >= 0 >= i, the drive c1 e + c2 i of a step is at most
// D = c1 e + c2 i c5^(kLook - 1) of the sweep, so that after j steps v is at most c3^j v + (1 - c3^j) / (1 - c3) D. That rises
// or falls with j throughout: the first step and the last one are asked. An excitatory spike that arrives after step i adds
// at most c1 w (j - i) to the v of step j, as a pair is joined once. kAllowed such parts are allowed for, and the list ends
// where more have come. So the spikes are those of a sweep at every step; how long a list is decides nothing but time.

struct Ahead {
  static constexpr Index kLook = 8, kAllowed = 32;
  static constexpr Index kMost = 12000;  // neurons up to which this is quicker: a spike changes two rows, and in larger ones
                                         // that costs more than the sweeps (measured on an AMD EPYC)
  const Run& r;
  const double c1, c2, c3, c4, c5, a, b, rest, loosely;
  double scale_x = 1.0, scale_e = 1.0, scale_i = 1.0;
  float *const x, *const e, *const i;

  explicit Ahead(const Run& r)
      : r(r), c1(r.constants[1]), c2(r.constants[2]), c3(r.constants[3]), c4(r.constants[4]), c5(r.constants[5]),
        a(c1 / (c3 - c4)), b(c2 / (c3 - c5)), rest(r.constants[0] / (1.0 - c3)),
        // What spikes may add, and more than all that rounding can.
        loosely(c1 * r.excite * kAllowed + 1e-3 * (r.threshold - r.reset)),
        x(static_cast<float*>(r.v)), e(static_cast<float*>(r.e)), i(static_cast<float*>(r.i)) {
    for (Index n = 0; n < r.neurons; ++n) x[n] = static_cast<float>(x[n] - rest + a * e[n] + b * i[n]);
  }

  // Whether the bound above holds.
  static bool suits(const Run& r) {
    const double* c = r.constants;
    bool found = r.neurons <= kMost && r.excite >= 0 && r.inhibit <= 0 && c[1] >= 0 && c[2] >= 0 && c[3] < 1 && c[3] > c[4] && c[3] > c[5];
    for (Index n = 0; n < r.neurons; ++n)
      found &= static_cast<const float*>(r.e)[n] >= 0 && static_cast<const float*>(r.i)[n] <= 0;
    return found;
  }

  // Above 0 where x + e_factor e + i_factor i is above `least`.
  struct Line {
    float e_factor, i_factor, least;
  };

  // What is at least v of step j from now, in the units of x, and the threshold.
  Line bound(Index j) const {
    const double kept = std::pow(c3, static_cast<double>(j)), sum = (1.0 - kept) / (1.0 - c3);
    const double late = std::pow(c5, static_cast<double>(kLook - 1)), unit = kept * scale_x;
    return {static_cast<float>((sum * c1 - kept * a) * scale_e / unit),
            static_cast<float>((sum * c2 * late - kept * b) * scale_i / unit),
            static_cast<float>((r.threshold - rest - loosely) / unit)};
  }

  // v now.
  Line now() const {
    return {static_cast<float>(-a * scale_e / scale_x), static_cast<float>(-b * scale_i / scale_x),
            static_cast<float>((r.threshold - rest) / scale_x)};
  }

  void multiply(float* row, double what) const {
    for (Index n = 0; n < r.neurons; ++n) row[n] *= static_cast<float>(what);
  }

  void multiply_out() {
    multiply(x, scale_x);
    multiply(e, scale_e);
    multiply(i, scale_i);
    scale_x = scale_e = scale_i = 1.0;
  }

  void decay() {
    scale_x *= c3;
    scale_e *= c4;
    scale_i *= c5;
    if (scale_x < kSmallest || scale_e < kSmallest || scale_i < kSmallest) multiply_out();
  }

  void finish() {
    multiply_out();
    for (Index n = 0; n < r.neurons; ++n) x[n] = static_cast<float>(x[n] - a * e[n] - b * i[n] + rest);
  }
};

// A strip -> the lanes with neurons that may cross; see `sweep`.
NOINLINE unsigned may_cross(const Ahead& m, const Ahead::Line first, const Ahead::Line last, Index start,
                            Flagged<float>& above) {
  using Reals = typename Lanes<float>::Vector;
  using Flags = typename Lanes<std::uint32_t>::Vector;
  const Reals* const x = reinterpret_cast<const Reals*>(m.x + start);
  const Reals* const e = reinterpret_cast<const Reals*>(m.e + start);
  const Reals* const i = reinterpret_cast<const Reals*>(m.i + start);
  const Flags none = {};
  Flags found = none, bit = none + 1;
  for (int s = 0; s < Flagged<float>::kBits; ++s) {
    const Reals soon = x[s] + (first.e_factor * e[s] + first.i_factor * i[s]);
    const Reals late = x[s] + (last.e_factor * e[s] + last.i_factor * i[s]);
    found |= ((soon > first.least) | (late > last.least)) ? bit : none;
    bit += bit;
  }
  *reinterpret_cast<Flags*>(above.flags) = found;
  return occupied(found);
}

template <class Target>
void run_ahead(const Run& r) {
  constexpr Index kStrip = Flagged<float>::kStrip;
  Flagged<float> above;
  Ahead model(r);
  float *const x = model.x, *const e = model.e, *const i = model.i;
  Target* const spikes = static_cast<Target*>(r.spikes);
  const Target* const targets = static_cast<const Target*>(r.targets);
  std::vector<Target> listed(static_cast<std::size_t>((r.neurons + kStrip - 1) / kStrip * kStrip + r.neurons));
  Target *const list = listed.data(), *end = list;
  Index looked = Ahead::kLook, came = 0, parts = 0;  // steps since the sweep, spikes since then, what they may have added
  for (Index k = r.history; k < r.history + r.steps; ++k) {
    parts += came;
    const bool anew = looked == Ahead::kLook || parts > Ahead::kAllowed;
    const Ahead::Line before = model.now();
    for (Index s = r.ends[k - r.refractory]; s < r.ends[k - r.refractory + 1]; ++s) {
      const Index n = spikes[s];
      x[n] = static_cast<float>((r.reset - model.rest) / model.scale_x) - (before.e_factor * e[n] + before.i_factor * i[n]);
      if (!anew) *end++ = static_cast<Target>(n);
    }
    if (anew) {
      const Ahead::Line first = model.bound(1), last = model.bound(Ahead::kLook);
      end = list;
      for (Index start = 0; start < r.neurons; start += kStrip) {
        for (unsigned lanes = may_cross(model, first, last, start, above); lanes; lanes &= lanes - 1) {
          const Index lane = LOWEST(lanes);
          for (std::uint32_t left = above.flags[lane]; left; left &= left - 1)
            *end++ = static_cast<Target>(start + LOWEST(left) * Flagged<float>::kLanes + lane);
        }
      }
      looked = came = parts = 0;
    }
    ++looked;
    model.decay();
    const Ahead::Line now = model.now();
    Target *out = spikes + r.ends[k], *const from = out;
    for (const Target* at = list; at < end; ++at) {
      const Index n = *at;
      *out = static_cast<Target>(n);
      out += x[n] + (now.e_factor * e[n] + now.i_factor * i[n]) > now.least;
    }
    if (out - from > 1) std::sort(from, out);
    for (const Target* at = from; at < out; ++at) x[*at] = std::numeric_limits<float>::quiet_NaN();
    r.ends[k + 1] = out - spikes;
    const Index arrive = r.ends[k - r.delay], last = r.ends[k - r.delay + 1];
    const float to_e = static_cast<float>(r.excite / model.scale_e), to_i = static_cast<float>(r.inhibit / model.scale_i);
    const float e_to_x = static_cast<float>(model.a * r.excite / model.scale_x);
    const float i_to_x = static_cast<float>(model.b * r.inhibit / model.scale_x);
    for (Index s = arrive; s < last && s < arrive + kAhead; ++s) ask_for(targets, r.offsets, spikes[s]);
    for (Index s = arrive; s < last; ++s) {
      if (s + kAhead < last) ask_for(targets, r.offsets, spikes[s + kAhead]);
      const Index source = spikes[s];
      const bool excites = source < r.excitatory;
      came += excites;
      float* const row = excites ? e : i;
      const float weight = excites ? to_e : to_i, to_x = excites ? e_to_x : i_to_x;
      const Target *at = targets + r.offsets[source], *const stop = targets + r.offsets[source + 1];
      for (; at < stop; ++at) {
        row[*at] += weight;
        x[*at] += to_x;
      }
    }
  }
  model.finish();
}
