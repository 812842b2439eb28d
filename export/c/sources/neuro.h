/* One stream of a brain: step, commit, reset. No heap, no library; sizes and weights are those of neuro_model.h.

   neuro_reset(&state);
   neuro_step(&state, token);            token < NEURO_VOCAB; state.logits then says what comes next
   if (neuro_due(&state)) neuro_commit(&state);

   Everything is equal to the integer reference this folder was made with, to the bit, where float is IEEE 754 with
   subnormals and the compiler fuses nothing (-ffp-contract=off). Not reentrant: activations lie in one static place. */
#ifndef NEURO_H
#define NEURO_H
#include <stdint.h>
#include "neuro_model.h"

#define NEURO_HORMONES 5
#define NEURO_SEEN (NEURO_WINDOW + 1) /* the window and the token itself */
#define NEURO_TRACES (2 * NEURO_LAYERS * NEURO_RANK)

typedef struct {
    float logits[NEURO_VOCAB];
    float affect[2];                  /* valence, arousal */
    float modulators[NEURO_HORMONES]; /* dopamine, noradrenaline, acetylcholine, serotonin, cortisol */
    float sums[5];                    /* over the span: affect (2), surprise, novelty, spike rate */
    uint16_t clock;                   /* tokens since the last commit */
    uint16_t seen;                    /* whether there was a token */
    uint16_t spikes[NEURO_LAYERS];    /* of the last token */
#if NEURO_RECURRENCES
    float h[NEURO_RECURRENCES][NEURO_WIDTH];
#endif
#if NEURO_WINDOWS
    struct {
        int8_t rows[NEURO_SEEN][2][NEURO_WIDTH]; /* keys and values; a ring */
        float scales[NEURO_SEEN][2];
        uint16_t newest, filled;
    } window[NEURO_WINDOWS];
#endif
#if NEURO_SPIKING
    float v[NEURO_SPIKING][NEURO_NEURONS]; /* membranes after reset */
#endif
#if NEURO_MEMORY
    float fast[NEURO_TRACES][NEURO_WIDTH]; /* procedural memory */
    float last_trace[NEURO_TRACES];
    float last_input[NEURO_WIDTH];
    struct {
        int16_t keys[NEURO_SLOTS][NEURO_KEY];
        int8_t values[NEURO_SLOTS][NEURO_WIDTH];
        float scales[NEURO_SLOTS];
        float strengths[NEURO_SLOTS]; /* 0: unfilled */
    } slots; /* episodic memory */
    int16_t last_key[NEURO_KEY];
    float last_content[NEURO_WIDTH];
    float trust;
    struct {
        int16_t keys[NEURO_SPAN][NEURO_KEY];
        int8_t values[NEURO_SPAN][NEURO_WIDTH];
        float scales[NEURO_SPAN];
        float salience[NEURO_SPAN];
        float priority[NEURO_SPAN];
        float error[NEURO_SPAN][NEURO_WIDTH];
        float trace[NEURO_SPAN][NEURO_TRACES];
    } span; /* what the commit will write */
#endif
} neuro_state;

void neuro_reset(neuro_state *state);
void neuro_step(neuro_state *state, uint16_t token);
int neuro_due(const neuro_state *state);
void neuro_commit(neuro_state *state);
uint32_t neuro_activation_bytes(void);

#endif
