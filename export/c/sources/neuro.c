/* The brain of neuro_model.h, one token at a time. What each part computes is said in neuro/regions, neuro/layers and
   neuro/memory of the project; where this differs (int8 products and storage), in export/c/reference.py. */
#include "neuro.h"
#include "neuro_math.h"

#define D NEURO_WIDTH
#define HEAD (NEURO_WIDTH / NEURO_HEADS)
#define MOST(a, b) ((a) > (b) ? (a) : (b))
#define WIDEST MOST(MOST(3 * D, NEURO_UP), MOST(NEURO_CELLS, NEURO_EVIDENCE + 2))
#define WEIGHTS MOST(NEURO_VOCAB, NEURO_SEEN)

static const struct neuro_model *const W = &neuro_model;

/* Activations: nothing in here outlives a step or a commit. */
static struct {
    float x[D], near[D], relay[D], y[D], mood[NEURO_HORMONES];
    float wide[WIDEST];
    union {
        neuro_in in[NEURO_PADDED(WIDEST)];
        int16_t weights[WEIGHTS];
        int32_t added[D];
    } q;
    uint8_t routed[NEURO_LAYERS];
#if NEURO_WINDOWS
    float scores[NEURO_SEEN];
    int16_t shares[NEURO_SEEN];
#endif
#if NEURO_MEMORY
    float shift[D], trace[NEURO_TRACES], content[D];
    int16_t key[NEURO_KEY];
    int32_t cosines[NEURO_SLOTS];
    float change[NEURO_RANK * D];
    uint8_t taken[(NEURO_SLOTS + 7) / 8], written[(NEURO_SPAN + 7) / 8];
#endif
} work;

uint32_t neuro_activation_bytes(void) { return (uint32_t)sizeof work; }

void neuro_reset(neuro_state *s) {
    uint32_t *word = (uint32_t *)(void *)s;
    for (uint32_t i = 0; i < sizeof *s / 4; ++i) word[i] = 0; /* every field is whole words or ends on one */
    for (int i = 0; i < NEURO_HORMONES; ++i) s->modulators[i] = 0.5f;
}

int neuro_due(const neuro_state *s) { return s->clock == NEURO_SPAN; }

/* y_o += weight_o . mood */
static void add_mood(float *y, const float *weight, int outputs) {
    for (int o = 0; o < outputs; ++o) y[o] = y[o] + neuro_dot(weight + o * NEURO_HORMONES, work.mood, NEURO_HORMONES);
}

/* y_o *= 1 + weight_o . mood */
static void scale_mood(float *y, const float *weight) {
    for (int o = 0; o < D; ++o) y[o] = y[o] * (1.0f + neuro_dot(weight + o * NEURO_HORMONES, work.mood, NEURO_HORMONES));
}

static void linear(float *y, neuro_matrix m, const float *bias, float scale, int outputs, int inputs) {
    neuro_linear(y, m.values, m.scales, bias, work.q.in, scale, outputs, inputs);
}

/* y_o = sum of the rows of the neurons that fired; ``fired`` says which, a byte each. */
static void selected(float *y, neuro_matrix m, const uint8_t *fired, int neurons, int outputs) {
    int32_t *sum = work.q.added;
    for (int o = 0; o < outputs; ++o) sum[o] = 0;
    for (int n = 0; n < neurons; ++n) {
        if (!fired[n]) continue;
        const int8_t *row = m.values + n * outputs;
        for (int o = 0; o < outputs; ++o) sum[o] += row[o];
    }
    for (int o = 0; o < outputs; ++o) y[o] = (float)sum[o] * m.scales[o];
}

/* y_d = sum_n shares_n rows_nd, the shares quantized first. */
static void mix(float *y, const int8_t *rows, int step, const float *shares, int16_t *q, int count, int width) {
    float scale = neuro_quantize16(q, shares, count, NEURO_MIX_LEVELS);
    neuro_mix(y, rows, step, q, scale, count, width);
}

static float gain(void) { return neuro_exp(0.5f * neuro_tanh(neuro_dot(W->readout_mood, work.mood, NEURO_HORMONES))); }

/* Nats of the token under the logits made before it; its error into the span. The logits become chances. */
static float surprise_at(neuro_state *s, uint16_t token) {
#if NEURO_MEMORY
    float *error = s->span.error[s->clock];
    for (int d = 0; d < D; ++d) error[d] = 0.0f;
#endif
    if (!s->seen) return 0.0f;
    float *p = s->logits, most = p[0], all = 0.0f, said = p[token];
    for (int i = 1; i < NEURO_VOCAB; ++i)
        if (p[i] > most) most = p[i];
    for (int i = 0; i < NEURO_VOCAB; ++i) {
        p[i] = neuro_exp(p[i] - most);
        all += p[i];
    }
#if NEURO_MEMORY
    float up = 1.0f / all, strength = gain(), n = 1.0f / (float)D;
    for (int i = 0; i < NEURO_VOCAB; ++i) p[i] = p[i] * up * W->embedding.scales[i];
    mix(work.y, W->embedding.values, D, p, work.q.weights, NEURO_VOCAB, D);
    const int8_t *row = W->embedding.values + token * D;
    float *near = work.near, *towards = work.y;
    float rms = neuro_rescale(neuro_dot(s->last_input, s->last_input, D) * n + 1e-6f);
    for (int d = 0; d < D; ++d) {
        towards[d] = ((float)row[d] * W->embedding.scales[token] - towards[d]) * strength * W->readout_norm[d];
        near[d] = s->last_input[d] * rms;
    }
    float along = neuro_dot(near, towards, D) * n;
    for (int d = 0; d < D; ++d) error[d] = rms * (towards[d] - near[d] * along);
#endif
    return most + neuro_log(all) - said;
}

static float amygdala(neuro_state *s) {
    float *z = work.wide;
    neuro_normed(work.near, work.relay, W->amygdala_norm, D);
    linear(z, W->evidence, W->evidence_bias, neuro_quantize(work.q.in, work.near, D), NEURO_EVIDENCE, D);
    for (int i = 0; i < NEURO_EVIDENCE; ++i) z[i] = neuro_gelu(z[i]);
    for (int i = 0; i < 2; ++i) {
        float e = neuro_tanh(neuro_dot(W->affect_weight + i * NEURO_EVIDENCE, z, NEURO_EVIDENCE) + W->affect_bias[i]);
        s->affect[i] = NEURO_AFFECT_DECAY * s->affect[i] + (1.0f - NEURO_AFFECT_DECAY) * e;
        z[NEURO_EVIDENCE + i] = s->affect[i];
    }
    return neuro_sigmoid(neuro_dot(W->salience_weight, z, NEURO_EVIDENCE + 2) + NEURO_SALIENCE_BIAS);
}

#if NEURO_MEMORY
static void eligible(float *z) {
    float r = neuro_rescale(neuro_dot(z, z, NEURO_RANK) * (1.0f / (float)NEURO_RANK) + 1e-3f);
    for (int i = 0; i < NEURO_RANK; ++i) z[i] = z[i] * r;
}
#endif

/* x += y + F^T e of a projection */
static void add(neuro_state *s, int projection) {
    for (int d = 0; d < D; ++d) work.x[d] = work.x[d] + work.y[d];
#if NEURO_MEMORY
    const float *e = work.trace + projection * NEURO_RANK;
    for (int d = 0; d < D; ++d) {
        float habit = 0.0f;
        for (int i = 0; i < NEURO_RANK; ++i) habit += e[i] * s->fast[projection * NEURO_RANK + i][d];
        work.x[d] = work.x[d] + habit;
        work.shift[d] = work.shift[d] + habit;
    }
#else
    (void)s;
    (void)projection;
#endif
}

#if NEURO_RECURRENCES
static void recurrence(float *h, const neuro_layer *layer) {
    float *p = work.wide, *y = work.near;
    linear(p, layer->project, 0, neuro_quantize(work.q.in, work.near, D), 3 * D, D);
    for (int d = 0; d < D; ++d) {
        float a = neuro_sigmoid(p[d] + layer->decay_bias[d]);
        h[d] = a * h[d] + (1.0f - a) * p[D + d];
    }
    neuro_normed(y, h, layer->inner_norm, D);
    for (int d = 0; d < D; ++d) y[d] = y[d] * p[2 * D + d] * neuro_sigmoid(p[2 * D + d]);
}
#endif

#if NEURO_WINDOWS
static void window(neuro_state *s, int which, const neuro_layer *layer) {
    float *p = work.wide, *y = work.near;
    linear(p, layer->project, 0, neuro_quantize(work.q.in, work.near, D), 3 * D, D);
    int newest = (s->window[which].newest + 1) % NEURO_SEEN, filled = s->window[which].filled;
    if (filled < NEURO_SEEN) ++filled;
    s->window[which].newest = (uint16_t)newest;
    s->window[which].filled = (uint16_t)filled;
    for (int row = 0; row < 2; ++row)
        s->window[which].scales[newest][row] = neuro_quantize8(s->window[which].rows[newest][row], p + (1 + row) * D, D);
    float scale = neuro_quantize(work.q.in, p, D), factor = NEURO_HEAD_FACTOR;
    int oldest = (newest + NEURO_SEEN + 1 - filled) % NEURO_SEEN;
    for (int head = 0; head < NEURO_HEADS; ++head) {
        float most = 0.0f, all = 0.0f;
        for (int at = 0; at < NEURO_SEEN; ++at) work.scores[at] = 0.0f; /* the weight of what is not there yet */
        for (int i = 0, at = oldest; i < filled; ++i, at = at + 1 == NEURO_SEEN ? 0 : at + 1) {
            int32_t dot = neuro_product(s->window[which].rows[at][0] + head * HEAD, work.q.in + head * HEAD, HEAD);
            float score = (float)dot * (scale * s->window[which].scales[at][0] * factor);
            score = score - W->window_slopes[head] * (float)(filled - 1 - i);
            work.scores[at] = score;
            if (i == 0 || score > most) most = score;
        }
        for (int i = 0, at = oldest; i < filled; ++i, at = at + 1 == NEURO_SEEN ? 0 : at + 1) {
            work.scores[at] = neuro_exp(work.scores[at] - most);
            all += work.scores[at];
        }
        float up = 1.0f / all;
        for (int i = 0, at = oldest; i < filled; ++i, at = at + 1 == NEURO_SEEN ? 0 : at + 1)
            work.scores[at] = work.scores[at] * up * s->window[which].scales[at][1];
        mix(y + head * HEAD, s->window[which].rows[0][1] + head * HEAD, 2 * D, work.scores, work.shares, NEURO_SEEN, HEAD);
    }
}
#endif

#if NEURO_SPIKING
/* -> share of the neurons that fired */
static float spiking(neuro_state *s, int index, const neuro_layer *layer, int which, int runs) {
    float *v = s->v[which], *current = work.wide;
    if (runs)
        linear(current, layer->up, layer->inject_bias, neuro_quantize(work.q.in, work.near, D), NEURO_NEURONS, D);
    uint8_t *fired = (uint8_t *)work.wide; /* a byte takes no more room than the current it comes from */
    int count = 0;
    for (int n = 0; n < NEURO_NEURONS; ++n) {
        float u = NEURO_MEMBRANE_DECAY * v[n] + (runs ? current[n] : 0.0f);
        int above = u >= NEURO_THRESHOLD;
        v[n] = above ? u - NEURO_THRESHOLD : u;
        fired[n] = (uint8_t)above;
        count += above;
    }
    s->spikes[index] = (uint16_t)count;
    selected(work.y, layer->down, fired, NEURO_NEURONS, D);
#if NEURO_MEMORY
    float *e = work.trace + (2 * index + 1) * NEURO_RANK;
    selected(e, layer->down_sense, fired, NEURO_NEURONS, NEURO_RANK);
    eligible(e);
#endif
    return (float)count * (1.0f / (float)NEURO_NEURONS);
}
#endif

#if NEURO_DENSE
static void dense(int index, const neuro_layer *layer, int runs) {
    float *p = work.wide;
    if (!runs) {
        for (int d = 0; d < D; ++d) work.y[d] = 0.0f;
#if NEURO_MEMORY
        for (int i = 0; i < NEURO_RANK; ++i) work.trace[(2 * index + 1) * NEURO_RANK + i] = 0.0f;
#endif
        return;
    }
    linear(p, layer->up, 0, neuro_quantize(work.q.in, work.near, D), 2 * NEURO_HIDDEN, D);
    for (int i = 0; i < NEURO_HIDDEN; ++i) p[i] = p[i] * neuro_sigmoid(p[i]) * p[NEURO_HIDDEN + i];
    float scale = neuro_quantize(work.q.in, p, NEURO_HIDDEN);
    linear(work.y, layer->down, 0, scale, D, NEURO_HIDDEN);
#if NEURO_MEMORY
    float *e = work.trace + (2 * index + 1) * NEURO_RANK;
    linear(e, layer->down_sense, 0, scale, NEURO_RANK, NEURO_HIDDEN);
    eligible(e);
#else
    (void)index;
#endif
}
#endif

#if NEURO_MEMORY
/* The k-th largest of n numbers, by a bar that is lowered to the next number until k reach it. */
#define KTH(name, type)                                        \
    static type name(const type *x, int n, int k) {            \
        type bar = x[0];                                       \
        for (int i = 1; i < n; ++i)                            \
            if (x[i] > bar) bar = x[i];                        \
        for (;;) {                                             \
            type next = 0;                                     \
            int reached = 0, below = 0;                        \
            for (int i = 0; i < n; ++i) {                      \
                if (x[i] >= bar) {                             \
                    ++reached;                                 \
                } else if (!below || x[i] > next) {            \
                    next = x[i];                               \
                    below = 1;                                 \
                }                                              \
            }                                                  \
            if (reached >= k || !below) return bar;            \
            bar = next;                                        \
        }                                                      \
    }
KTH(kth_float, float)
KTH(kth_int, int32_t)

/* sum_i a_i b_i of int16 keys of length 16384 */
static int32_t key_product(const int16_t *a, const int16_t *b) {
    int32_t sum = 0;
#ifdef NEURO_DSP
    const neuro_word *ap = (const neuro_word *)a, *bp = (const neuro_word *)b;
    for (int i = NEURO_KEY / 2; i; --i) sum = __smlad(*ap++, *bp++, sum);
#else
    for (int i = 0; i < NEURO_KEY; ++i) sum += a[i] * b[i];
#endif
    return sum;
}

#define UNFILLED INT32_MIN

/* The content of the slots that answer to the key -> log of the summed scores; novelty. */
static float read_slots(const neuro_state *s, float *novelty) {
    float *content = work.content, most = -1e4f, all = 0.0f, nearest = 0.0f;
    int filled = 0;
    for (int m = 0; m < NEURO_SLOTS; ++m) {
        work.cosines[m] = s->slots.strengths[m] > 0.0f ? key_product(s->slots.keys[m], work.key) : UNFILLED;
        filled += s->slots.strengths[m] > 0.0f;
    }
    for (int d = 0; d < D; ++d) content[d] = 0.0f;
    *novelty = 1.0f;
    if (!filled) return most;
    int32_t least = filled >= NEURO_TOP_K ? kth_int(work.cosines, NEURO_SLOTS, NEURO_TOP_K) - NEURO_EQUAL : UNFILLED + 1;
    int first = 1;
    for (int pass = 0; pass < 3; ++pass) { /* the largest score, the sum, the content */
        for (int m = 0; m < NEURO_SLOTS; ++m) {
            if (work.cosines[m] < least) continue;
            float near = (float)work.cosines[m] * (1.0f / 268435456.0f), strength = s->slots.strengths[m];
            float age = NEURO_SCORE_AGE * neuro_log(strength < 1e-6f ? 1e-6f : strength);
            float score = NEURO_SCORE_SCALE * near + age;
            if (pass == 0) {
                if (first || score > most) most = score;
                if (first || near > nearest) nearest = near;
                first = 0;
            } else if (pass == 1) {
                all += neuro_exp(score - most);
            } else {
                float weight = neuro_exp(score - most) * (1.0f / all) * s->slots.scales[m];
                for (int d = 0; d < D; ++d) content[d] = content[d] + weight * (float)s->slots.values[m][d];
            }
        }
    }
    *novelty = 1.0f - (nearest < 0.0f ? 0.0f : nearest > 1.0f ? 1.0f : nearest);
    return most + neuro_log(all);
}

/* x += what is recalled; the pair of this token into the span -> novelty */
static float hippocampus(neuro_state *s) {
    float *z = work.wide, novelty;
    for (int d = 0; d < D; ++d) work.y[d] = work.x[d] - work.shift[d];
    neuro_normed(work.near, work.y, W->hippocampus_norm, D);
    linear(z, W->place, W->place_bias, neuro_quantize(work.q.in, work.near, D), NEURO_CELLS, D);
    float least = kth_float(z, NEURO_CELLS, NEURO_ACTIVE);
    for (int i = 0; i < NEURO_CELLS; ++i) z[i] = z[i] >= least ? neuro_sigmoid(z[i]) : 0.0f;
    linear(work.y, W->key, 0, neuro_quantize(work.q.in, z, NEURO_CELLS), NEURO_KEY, NEURO_CELLS);
    neuro_unit(work.y, work.y, NEURO_KEY);
    for (int i = 0; i < NEURO_KEY; ++i) {
        work.key[i] = (int16_t)neuro_whole(work.y[i] * 16384.0f);
        s->span.keys[s->clock][i] = s->last_key[i];
        s->last_key[i] = work.key[i];
    }
    linear(work.y, W->value, 0, neuro_quantize(work.q.in, work.relay, D), D, D);
    s->span.scales[s->clock] = neuro_quantize8(s->span.values[s->clock], work.y, D);
    neuro_unit(work.y, work.y, D);
    float evidence_of = read_slots(s, &novelty), right = neuro_dot(s->last_content, work.y, D);
    s->trust = NEURO_TRUST_DECAY * s->trust + (1.0f - NEURO_TRUST_DECAY) * right;
    neuro_unit(s->last_content, work.content, D);
    neuro_normed(work.near, work.x, W->hippocampus_norm, D);
    scale_mood(work.near, W->null_mood);
    float null = neuro_dot(W->null_weight, work.near, D) + NEURO_NULL_BIAS;
    float gate_of = neuro_sigmoid(evidence_of + NEURO_TRUST_GAIN * s->trust - null);
    for (int d = 0; d < D; ++d) work.y[d] = work.content[d] * gate_of;
    linear(work.y, W->recall, 0, neuro_quantize(work.q.in, work.y, D), D, D);
    for (int d = 0; d < D; ++d) work.x[d] = work.x[d] + work.y[d];
    return novelty;
}
#endif

void neuro_step(neuro_state *s, uint16_t token) {
    for (int i = 0; i < NEURO_HORMONES; ++i) work.mood[i] = s->modulators[i] - 0.5f;
    float surprise = surprise_at(s, token), novelty = 0.0f, rate = 0.0f;

    const int8_t *row = W->embedding.values + token * D;
    for (int d = 0; d < D; ++d) work.x[d] = (float)row[d] * W->embedding.scales[token] * NEURO_EMBEDDING_GAIN;
    neuro_normed(work.near, work.x, W->thalamus_norm, D);
    linear(work.y, W->gate, W->gate_bias, neuro_quantize(work.q.in, work.near, D), D, D);
    add_mood(work.y, W->gate_mood, D);
    for (int d = 0; d < D; ++d) work.relay[d] = work.x[d] * (2.0f * neuro_sigmoid(work.y[d]));
    for (int l = 0; l < NEURO_LAYERS; ++l) {
        float p = neuro_dot(W->route_weight + l * D, work.near, D) + W->route_bias[l];
        add_mood(&p, W->route_mood + l * NEURO_HORMONES, 1);
        work.routed[l] = neuro_sigmoid(p) > 0.5f;
    }
    float salience = amygdala(s);

    for (int d = 0; d < D; ++d) work.x[d] = work.relay[d];
#if NEURO_MEMORY
    for (int d = 0; d < D; ++d) work.shift[d] = 0.0f;
#endif
    for (int l = 0; l < NEURO_LAYERS; ++l) {
        const neuro_layer *layer = &W->layers[l];
        neuro_normed(work.near, work.x, layer->mixer_norm, D);
        scale_mood(work.near, layer->mixer_mood);
#if NEURO_RECURRENCES
        if (layer->recurrent) recurrence(s->h[layer->mixer_at], layer);
#endif
#if NEURO_WINDOWS
        if (!layer->recurrent) window(s, layer->mixer_at, layer);
#endif
        float scale = neuro_quantize(work.q.in, work.near, D);
        linear(work.y, layer->out, 0, scale, D, D);
#if NEURO_MEMORY
        linear(work.trace + 2 * l * NEURO_RANK, layer->out_sense, 0, scale, NEURO_RANK, D);
        eligible(work.trace + 2 * l * NEURO_RANK);
#endif
        add(s, 2 * l);
        neuro_normed(work.near, work.x, layer->forward_norm, D);
#if NEURO_SPIKING
        if (layer->spiking) rate += spiking(s, l, layer, layer->forward_at, work.routed[l]);
#endif
#if NEURO_DENSE
        if (!layer->spiking) dense(l, layer, work.routed[l]);
#endif
        add(s, 2 * l + 1);
    }
    rate = rate * (1.0f / (float)MOST(1, NEURO_SPIKING));
#if NEURO_MEMORY
    novelty = hippocampus(s);
    s->span.salience[s->clock] = salience;
    s->span.priority[s->clock] = s->seen ? surprise + 1e-3f : 0.0f;
    for (int i = 0; i < NEURO_TRACES; ++i) {
        s->span.trace[s->clock][i] = s->last_trace[i];
        s->last_trace[i] = work.trace[i];
    }
    for (int d = 0; d < D; ++d) s->last_input[d] = work.x[d];
#else
    (void)salience;
#endif
    neuro_normed(work.near, work.x, W->readout_norm, D);
    float strength = gain();
    for (int d = 0; d < D; ++d) work.near[d] = work.near[d] * strength;
    linear(s->logits, W->embedding, 0, neuro_quantize(work.q.in, work.near, D), NEURO_VOCAB, D);
    float ended[5] = {s->affect[0], s->affect[1], surprise, novelty, rate};
    for (int i = 0; i < 5; ++i) s->sums[i] = s->sums[i] + ended[i];
    s->seen = 1;
    ++s->clock;
}

#if NEURO_MEMORY
/* times min(1, most / norm) */
static void shorten(float *weights, float most) {
    float square = neuro_dot(weights, weights, NEURO_RANK * D);
    float factor = most * neuro_rescale(square < 1e-24f ? 1e-24f : square);
    if (factor > 1.0f) factor = 1.0f;
    for (int i = 0; i < NEURO_RANK * D; ++i) weights[i] = weights[i] * factor;
}

static void write_fast(neuro_state *s, float n) {
    float mood[NEURO_HORMONES];
    for (int i = 0; i < NEURO_HORMONES; ++i) mood[i] = s->modulators[i] - 0.5f;
    float third = 2.0f * neuro_sigmoid(neuro_dot(W->fast_mood, mood, NEURO_HORMONES)), kept = neuro_exp(NEURO_FAST_PACE * n);
    for (int p = 0; p < 2 * NEURO_LAYERS; ++p) {
        float *fast = s->fast[p * NEURO_RANK];
        for (int r = 0; r < NEURO_RANK; ++r) {
            for (int d = 0; d < D; ++d) {
                float sum = 0.0f;
                for (int t = 0; t < s->clock; ++t) sum += s->span.trace[t][p * NEURO_RANK + r] * s->span.error[t][d];
                work.change[r * D + d] = sum * (W->fast_rate[p * D + d] * third);
            }
        }
        shorten(work.change, NEURO_FAST_STEP);
        for (int i = 0; i < NEURO_RANK * D; ++i) fast[i] = fast[i] * kept + work.change[i];
        shorten(fast, NEURO_FAST_NORM);
    }
}

/* The pairs of the span, the most surprising first, each into the weakest slot that is not taken yet. */
static void write_slots(neuro_state *s, float n) {
    float kept = neuro_exp(NEURO_SLOT_PACE * n), dopamine = 0.5f + s->modulators[0];
    for (int m = 0; m < NEURO_SLOTS; ++m) s->slots.strengths[m] = s->slots.strengths[m] * kept;
    for (uint32_t i = 0; i < sizeof work.taken; ++i) work.taken[i] = 0;
    for (uint32_t i = 0; i < sizeof work.written; ++i) work.written[i] = 0;
    for (int count = 0; count < NEURO_WRITES; ++count) {
        int best = -1, slot = -1;
        for (int t = 0; t < s->clock; ++t) {
            if (work.written[t >> 3] >> (t & 7) & 1 || !(s->span.priority[t] > 0.0f)) continue;
            if (best < 0 || s->span.priority[t] > s->span.priority[best]) best = t;
        }
        if (best < 0) return;
        for (int m = 0; m < NEURO_SLOTS; ++m) {
            if (work.taken[m >> 3] >> (m & 7) & 1) continue;
            if (slot < 0 || s->slots.strengths[m] < s->slots.strengths[slot]) slot = m;
        }
        work.written[best >> 3] |= (uint8_t)(1 << (best & 7));
        work.taken[slot >> 3] |= (uint8_t)(1 << (slot & 7));
        for (int i = 0; i < NEURO_KEY; ++i) s->slots.keys[slot][i] = s->span.keys[best][i];
        for (int d = 0; d < D; ++d) s->slots.values[slot][d] = s->span.values[best][d];
        s->slots.scales[slot] = s->span.scales[best];
        s->slots.strengths[slot] = s->span.salience[best] * dopamine;
    }
}
#endif

void neuro_commit(neuro_state *s) {
    if (!s->clock) return;
    float n = (float)s->clock, mean[5];
    for (int i = 0; i < 5; ++i) {
        mean[i] = s->sums[i] / n;
        s->sums[i] = 0.0f;
    }
    mean[2] = neuro_tanh(mean[2] / 5.0f);
    for (int i = 0; i < NEURO_HORMONES; ++i) {
        float level = neuro_sigmoid(neuro_dot(W->level_weight + 5 * i, mean, 5) + W->level_bias[i]);
        s->modulators[i] = level + (s->modulators[i] - level) * neuro_exp(W->level_pace[i] * n);
    }
#if NEURO_MEMORY
    write_fast(s, n);
    write_slots(s, n);
#endif
    s->clock = 0;
}
