/* The tasks' priorities: what has a deadline goes before what talks. */
#ifndef TASKS_H
#define TASKS_H

#define PRODUCER_PRIORITY 4
#define CONSUMER_PRIORITY 3
#define MONITOR_PRIORITY 2
#define SHELL_PRIORITY 1

#endif
