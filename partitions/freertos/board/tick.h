/* The 1 kHz tick from the virtual timer, and the proof that it is one: each tick's lateness is recorded, and the
 * number of ticks is held against the system counter. */
#ifndef TICK_H
#define TICK_H

#include <stdint.h>

/* The EL1 virtual timer's interrupt, a PPI. */
#define TICK_INTID 27u

/* Bucket n of the histogram counts ticks later than 2^(n-1) us and less than 2^n us; the last has no limit. */
#define TICK_BUCKETS 22

struct tick_lateness {
    uint64_t buckets[TICK_BUCKETS];
    uint64_t max_us;
};

/* CNTVCT_EL0, ticks of the system counter. */
static inline uint64_t tick_counter(void)
{
    uint64_t now;
    __asm volatile("isb\n mrs %0, cntvct_el0" : "=r"(now)::"memory");
    return now;
}

/* CNTFRQ_EL0, Hz. */
uint64_t tick_frequency(void);

/* Starts the tick; the kernel calls it through configSETUP_TICK_INTERRUPT. */
void tick_start(void);

/* Moves the deadline on by one period; the kernel calls it through configCLEAR_TICK_INTERRUPT. */
void tick_rearm(void);

/* The tick interrupt's handler. */
void tick_interrupt(void);

/* Ticks of the system counter since tick_start. */
uint64_t tick_elapsed(void);

/* How many ticks should have happened by now, by the system counter. */
uint64_t tick_expected(void);

/* The lateness of all ticks so far. */
struct tick_lateness tick_lateness(void);

/* The latest tick since the last call, us. */
uint64_t tick_take_recent_max_us(void);

#endif
