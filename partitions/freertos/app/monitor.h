/* The task that says every second whether time is kept. */
#ifndef MONITOR_H
#define MONITOR_H

#include <stdint.h>

/* Creates the task. */
void monitor_start(void);

/* How many ticks the system counter has seen that FreeRTOS has not; one on its way does not count. */
uint64_t monitor_lost_ticks(void);

/* Prints `lateness us: <1:n <2:n ...`, up to the last bucket that holds a tick. */
void monitor_print_lateness(void);

#endif
