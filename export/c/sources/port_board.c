/* main.c on a bare Cortex-M board in QEMU: vectors, start, semihosting, SysTick. No library.

   Under -icount shift=0 an instruction takes a virtual nanosecond, so SysTick at PORT_CLOCK_MHZ counts instructions. */
#include "port.h"

extern uint32_t port_stack_end[], port_stack_start[], port_bss_start[], port_bss_end[], port_data_start[], port_data_end[],
    port_data_stored[];
int main(void);
void port_start(void);

const uint32_t port_instructions_per_tick = 1000 / PORT_CLOCK_MHZ;
#define PAINT 0xC5C5C5C5u

#define SYSTICK ((volatile uint32_t *)0xE000E010u) /* control, reload, value */
#define CPACR (*(volatile uint32_t *)0xE000ED88u)

/* What the compiler may call for itself. */
void *memset(void *to, int value, unsigned int bytes) {
    unsigned char *t = to;
    while (bytes--) *t++ = (unsigned char)value;
    return to;
}

void *memcpy(void *to, const void *from, unsigned int bytes) {
    unsigned char *t = to;
    const unsigned char *f = from;
    while (bytes--) *t++ = *f++;
    return to;
}

static int call(int operation, const void *block) {
    register int r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = block;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static int length(const char *text) {
    int n = 0;
    while (text[n]) ++n;
    return n;
}

int port_open(const char *name, int write) {
    const uint32_t block[3] = {(uint32_t)name, write ? 5u : 1u, (uint32_t)length(name)};
    return call(0x01, block);
}

int port_read(int file, void *to, int bytes) {
    const uint32_t block[3] = {(uint32_t)file, (uint32_t)to, (uint32_t)bytes};
    return bytes - call(0x06, block);
}

int port_write(int file, const void *from, int bytes) {
    const uint32_t block[3] = {(uint32_t)file, (uint32_t)from, (uint32_t)bytes};
    return call(0x05, block) == 0;
}

void port_say(const char *text) { call(0x04, text); }

uint32_t port_ticks(void) { return 0xFFFFFF - SYSTICK[2]; }

uint32_t port_stack_used(void) {
    const uint32_t *word = port_stack_start;
    while (word < port_stack_end && *word == PAINT) ++word;
    return (uint32_t)(port_stack_end - word) * 4;
}

void port_exit(int code) {
    const uint32_t block[2] = {0x20026u, (uint32_t)code}; /* the application ended, and how */
    call(0x20, block);
    for (;;) {
    }
}

static void fault(void) {
    port_say("fault\n");
    port_exit(1);
}

void port_start(void) {
    CPACR |= 0xFu << 20; /* the floating-point unit, and with it Helium */
    __asm volatile("dsb\n\tisb" ::: "memory");
    for (uint32_t *to = port_data_start, *from = port_data_stored; to < port_data_end;) *to++ = *from++;
    for (uint32_t *to = port_bss_start; to < port_bss_end;) *to++ = 0;
    uint32_t *here;
    __asm volatile("mov %0, sp" : "=r"(here));
    for (uint32_t *to = port_stack_start; to < here;) *to++ = PAINT;
    SYSTICK[1] = 0xFFFFFF;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5; /* on, by the core's clock, without an interrupt */
    port_exit(main());
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))port_stack_end, port_start, fault, fault, fault, fault, fault, fault,
};
