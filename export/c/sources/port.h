/* What main.c asks of the machine it runs on. */
#ifndef PORT_H
#define PORT_H
#include <stdint.h>

int port_open(const char *name, int write);      /* -> a handle, negative when it cannot */
int port_read(int file, void *to, int bytes);     /* -> bytes read */
int port_write(int file, const void *from, int bytes); /* -> whether all were written */
void port_say(const char *text);
uint32_t port_ticks(void);                        /* counts up; wraps at 2^24 */
void port_exit(int code);
extern const uint32_t port_instructions_per_tick; /* 0: unknown */
uint32_t port_stack_used(void);                   /* bytes at most so far; 0: unknown */

#endif
