/* float32 in one fixed order, and int8 products into int32: the same numbers as export/c/numbers.py, on any IEEE 754 machine. */
#ifndef NEURO_MATH_H
#define NEURO_MATH_H
#include <stdint.h>

#define NEURO_PADDED(n) (((n) + 3) / 4 * 4)

#if defined(__ARM_FEATURE_MVE) && !defined(NEURO_PLAIN)
#include <arm_mve.h>
#define NEURO_MVE 1
typedef int8_t neuro_in; /* an activation of a product */
#elif defined(__ARM_FEATURE_DSP) && !defined(NEURO_PLAIN)
#include <arm_acle.h>
#define NEURO_DSP 1
typedef int16_t neuro_in; /* of each four the first and third, then the second and fourth, as SXTB16 leaves weights */
typedef uint32_t __attribute__((may_alias, aligned(1))) neuro_word;

/* The second and the fourth byte of a word, widened. */
static inline uint32_t neuro_odd(uint32_t word) {
    uint32_t two;
    __asm("sxtb16 %0, %1, ror #8" : "=r"(two) : "r"(word));
    return two;
}
#else
typedef int8_t neuro_in;
#endif

static inline float neuro_from_bits(int32_t bits) {
    union { int32_t i; float f; } u;
    u.i = bits;
    return u.f;
}

static inline int32_t neuro_bits(float x) {
    union { int32_t i; float f; } u;
    u.f = x;
    return u.i;
}

static inline float neuro_abs(float x) { return neuro_from_bits(neuro_bits(x) & 0x7FFFFFFF); }

/* To the nearest whole number, halves away from zero. */
static inline int32_t neuro_whole(float x) { return (int32_t)(x + (x < 0.0f ? -0.5f : 0.5f)); }

static inline float neuro_rescale(float x) { return 1.0f / __builtin_sqrtf(x); }

/* Cody and Waite's reduction and the polynomials of Cephes' expf and logf. */
static float neuro_exp(float x) {
    float clipped = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float y = clipped * 1.44269504088896341f + 0.5f;
    int32_t whole = (int32_t)y;
    if ((float)whole > y) --whole;
    float n = (float)whole, r = clipped - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 0.5f;
    p = p * (r * r) + r + 1.0f;
    return x < -87.0f ? 0.0f : p * neuro_from_bits((whole + 127) * 8388608);
}

static float neuro_log(float x) {
    int32_t bits = neuro_bits(x), e = (bits >> 23) - 126;
    float m = neuro_from_bits((bits & 0x007FFFFF) | 0x3F000000);
    if (m < 0.707106781186547524f) {
        --e;
        m = m + m;
    }
    m = m - 1.0f;
    float z = m * m, y = 7.0376836292e-2f;
    y = y * m + -1.1514610310e-1f;
    y = y * m + 1.1676998740e-1f;
    y = y * m + -1.2420140846e-1f;
    y = y * m + 1.4249322787e-1f;
    y = y * m + -1.6668057665e-1f;
    y = y * m + 2.0000714765e-1f;
    y = y * m + -2.4999993993e-1f;
    y = y * m + 3.3333331174e-1f;
    y = y * m * z;
    y = y + (float)e * -2.12194440e-4f;
    y = y - 0.5f * z;
    return m + y + (float)e * 0.693359375f;
}

static float neuro_sigmoid(float x) { return 1.0f / (1.0f + neuro_exp(-x)); }

static float neuro_tanh(float x) {
    float t = neuro_exp(2.0f * (x < -9.0f ? -9.0f : x > 9.0f ? 9.0f : x));
    return (t - 1.0f) / (t + 1.0f);
}

static inline float neuro_gelu(float x) {
    return 0.5f * x * (1.0f + neuro_tanh(0.79788456f * (x + 0.044715f * x * x * x)));
}

/* Sums from left to right. */
static float neuro_dot(const float *a, const float *b, int n) {
    float sum = 0.0f;
    for (int i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
}

static inline void neuro_normed(float *y, const float *x, const float *weight, int n) {
    float r = neuro_rescale(neuro_dot(x, x, n) * (1.0f / (float)n) + 1e-6f);
    for (int i = 0; i < n; ++i) y[i] = x[i] * r * weight[i];
}

static inline void neuro_unit(float *y, const float *x, int n) {
    float square = neuro_dot(x, x, n), r = neuro_rescale(square < 1e-12f ? 1e-12f : square);
    for (int i = 0; i < n; ++i) y[i] = x[i] * r;
}

static float neuro_most(const float *x, int n) {
    float most = 0.0f;
    for (int i = 0; i < n; ++i) {
        float a = neuro_abs(x[i]);
        if (a > most) most = a;
    }
    return most;
}

/* x as whole numbers of -levels..levels -> the scale they are multiples of. */
static float neuro_quantize16(int16_t *q, const float *x, int n, int levels) {
    float most = neuro_most(x, n), up = most == 0.0f ? 0.0f : (float)levels / most;
    for (int i = 0; i < n; ++i) q[i] = (int16_t)neuro_whole(x[i] * up);
    return most * (1.0f / (float)levels);
}

static float neuro_quantize8(int8_t *q, const float *x, int n) {
    float most = neuro_most(x, n), up = most == 0.0f ? 0.0f : 127.0f / most;
    for (int i = 0; i < n; ++i) q[i] = (int8_t)neuro_whole(x[i] * up);
    return most * (1.0f / 127.0f);
}

/* The input of a product, in the order this machine reads it in; filled with zeros to a multiple of four. */
static float neuro_quantize(neuro_in *q, const float *x, int n) {
    float most = neuro_most(x, n), up = most == 0.0f ? 0.0f : 127.0f / most;
    for (int i = 0; i < NEURO_PADDED(n); ++i) {
        int32_t whole = i < n ? neuro_whole(x[i] * up) : 0;
#ifdef NEURO_DSP
        q[(i & ~3) | ((i & 1) << 1) | ((i >> 1) & 1)] = (int16_t)whole;
#else
        q[i] = (neuro_in)whole;
#endif
    }
    return most * (1.0f / 127.0f);
}

/* sum_i w_i x_i of int8 weights; n is a multiple of four. */
static inline int32_t neuro_product(const int8_t *w, const neuro_in *x, int n) {
    int32_t sum = 0;
#if defined(NEURO_MVE)
    for (int i = 0; i < n; i += 16) {
        mve_pred16_t p = vctp8q((uint32_t)(n - i));
        sum = vmladavaq_p_s8(sum, vldrbq_z_s8(w + i, p), vldrbq_z_s8(x + i, p), p);
    }
#elif defined(NEURO_DSP)
    const neuro_word *wp = (const neuro_word *)w, *xp = (const neuro_word *)x;
    for (int i = n >> 2; i; --i) {
        uint32_t four = *wp++;
        sum = __smlad(__sxtb16(four), xp[0], sum);
        sum = __smlad(neuro_odd(four), xp[1], sum);
        xp += 2;
    }
#else
    for (int i = 0; i < n; ++i) sum += w[i] * x[i];
#endif
    return sum;
}

/* y_o = sum_i w_oi x_i, scaled, plus a bias where there is one. Rows lie NEURO_PADDED(inputs) apart. */
static void neuro_linear(
    float *y, const int8_t *w, const float *scales, const float *bias, const neuro_in *x, float scale, int outputs, int inputs
) {
    int step = NEURO_PADDED(inputs), o = 0;
#ifdef NEURO_DSP
    for (; o + 1 < outputs; o += 2) { /* two rows share what they read of x */
        const neuro_word *a = (const neuro_word *)(w + o * step), *b = (const neuro_word *)(w + (o + 1) * step);
        const neuro_word *xp = (const neuro_word *)x;
        int32_t first = 0, second = 0;
        for (int i = step >> 2; i; --i) {
            uint32_t even = xp[0], odd = xp[1], four = *a++, other = *b++;
            xp += 2;
            first = __smlad(__sxtb16(four), even, first);
            first = __smlad(neuro_odd(four), odd, first);
            second = __smlad(__sxtb16(other), even, second);
            second = __smlad(neuro_odd(other), odd, second);
        }
        y[o] = (float)first * (scales[o] * scale);
        y[o + 1] = (float)second * (scales[o + 1] * scale);
    }
#endif
    for (; o < outputs; ++o) y[o] = (float)neuro_product(w + o * step, x, step) * (scales[o] * scale);
    if (bias)
        for (o = 0; o < outputs; ++o) y[o] = y[o] + bias[o];
}

/* y_d = scale sum_n q_n rows_nd: a weighted sum of int8 rows that lie ``step`` apart; width is a multiple of four. */
static void neuro_mix(float *y, const int8_t *rows, int step, const int16_t *q, float scale, int count, int width) {
    for (int d = 0; d < width; d += 4) {
        const int8_t *row = rows + d;
#if defined(NEURO_MVE)
        int32x4_t sum = vdupq_n_s32(0);
        for (int n = 0; n < count; ++n, row += step) sum = vmlaq_n_s32(sum, vldrbq_s32(row), q[n]);
        for (int k = 0; k < 4; ++k) y[d + k] = (float)sum[k] * scale;
#elif defined(NEURO_DSP)
        int32_t a = 0, b = 0, c = 0, e = 0;
        for (int n = 0; n < count; ++n, row += step) {
            uint32_t four = *(const neuro_word *)row, even = __sxtb16(four), odd = neuro_odd(four);
            int32_t weight = q[n];
            a = __smlabb((int32_t)even, weight, a);
            b = __smlabb((int32_t)odd, weight, b);
            c = __smlatb((int32_t)even, weight, c);
            e = __smlatb((int32_t)odd, weight, e);
        }
        y[d] = (float)a * scale;
        y[d + 1] = (float)b * scale;
        y[d + 2] = (float)c * scale;
        y[d + 3] = (float)e * scale;
#else
        int32_t sum[4] = {0, 0, 0, 0};
        for (int n = 0; n < count; ++n, row += step)
            for (int k = 0; k < 4; ++k) sum[k] += q[n] * row[k];
        for (int k = 0; k < 4; ++k) y[d + k] = (float)sum[k] * scale;
#endif
    }
}

#endif
