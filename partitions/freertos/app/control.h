/* The work of this RTOS: a control loop every 10 ms whose samples go through a queue to another task. */
#ifndef CONTROL_H
#define CONTROL_H

#include <stdint.h>

struct control_statistics {
    uint64_t samples;    /* that the control loop made */
    uint64_t overruns;   /* turns of the loop that began after the next was due */
    uint64_t queue_full; /* samples that found no room */
    uint64_t consumed;   /* samples that arrived */
    uint64_t gaps;       /* samples that arrived out of sequence */
    uint64_t max_age_us; /* the longest time from making a sample to its arrival */
};

/* Creates the two tasks. */
void control_start(void);

/* What happened so far. */
struct control_statistics control_statistics(void);

#endif
