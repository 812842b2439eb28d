/* main.c on a computer with a C library. */
#include <stdio.h>
#include <stdlib.h>
#include "port.h"

static FILE *files[2];
const uint32_t port_instructions_per_tick = 0;

int port_open(const char *name, int write) {
    files[write] = fopen(name, write ? "wb" : "rb");
    return files[write] ? write : -1;
}

int port_read(int file, void *to, int bytes) { return (int)fread(to, 1, (size_t)bytes, files[file]); }

int port_write(int file, const void *from, int bytes) {
    return fwrite(from, 1, (size_t)bytes, files[file]) == (size_t)bytes;
}

void port_say(const char *text) { fputs(text, stdout); }

uint32_t port_ticks(void) { return 0; }

uint32_t port_stack_used(void) { return 0; }

void port_exit(int code) { exit(code); }
