/* Reads int16 orders from input.bin, writes what they ask for to output.bin, and says what it cost.

   0 and above: a token is read, and the span committed where it ends    -1: commit now    -2: reset
   -3: write the logits, float32    -4: write hormones and, with memory, fast weights and slots' strengths, float32 */
#include "neuro.h"
#include "port.h"

static neuro_state state;
static int16_t orders[256];

static void say_number(const char *name, uint32_t high, uint32_t low) {
    char text[24];
    int at = 23;
    uint64_t n = (uint64_t)high * low;
    text[at] = 0;
    do text[--at] = (char)('0' + n % 10);
    while (n /= 10);
    port_say(name);
    port_say(" ");
    port_say(text + at);
    port_say("\n");
}

static int stop(const char *why) {
    port_say(why);
    port_exit(1);
    return 1;
}

int main(void) {
    int in = port_open("input.bin", 0), out = port_open("output.bin", 1), got;
    uint32_t steps = 0, commits = 0, step_ticks = 0, commit_ticks = 0, most = 0;
    if (in < 0 || out < 0) return stop("cannot open input.bin or output.bin\n");
    neuro_reset(&state);
    while ((got = port_read(in, orders, (int)sizeof orders)) > 0) {
        for (int i = 0; i < got / 2; ++i) {
            int16_t order = orders[i];
            int fine = 1;
            if (order >= NEURO_VOCAB) return stop("a token beyond the vocabulary\n");
            if (order >= 0) {
                uint32_t before = port_ticks();
                neuro_step(&state, (uint16_t)order);
                uint32_t took = (port_ticks() - before) & 0xFFFFFF;
                step_ticks += took;
                if (took > most) most = took;
                ++steps;
            }
            if (order == -1 || (order >= 0 && neuro_due(&state))) {
                uint32_t before = port_ticks();
                neuro_commit(&state);
                commit_ticks += (port_ticks() - before) & 0xFFFFFF;
                ++commits;
            } else if (order == -2) {
                neuro_reset(&state);
            } else if (order == -3) {
                fine = port_write(out, state.logits, (int)sizeof state.logits);
            } else if (order == -4) {
                fine = port_write(out, state.modulators, (int)sizeof state.modulators);
#if NEURO_MEMORY
                fine = fine && port_write(out, state.fast, (int)sizeof state.fast);
                fine = fine && port_write(out, state.slots.strengths, (int)sizeof state.slots.strengths);
#endif
            }
            if (!fine) return stop("cannot write output.bin\n");
        }
    }
    say_number("steps", steps, 1);
    say_number("commits", commits, 1);
    say_number("step_instructions", step_ticks, port_instructions_per_tick);
    say_number("most_instructions_of_a_step", most, port_instructions_per_tick);
    say_number("commit_instructions", commit_ticks, port_instructions_per_tick);
    say_number("state_bytes", (uint32_t)sizeof state, 1);
    say_number("activation_bytes", neuro_activation_bytes(), 1);
    say_number("stack_bytes", port_stack_used(), 1);
    port_exit(0);
    return 0;
}
