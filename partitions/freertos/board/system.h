/* The ends of the system: power off, reset, and what is said before a fatal error. */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <stdint.h>

/* PSCI SYSTEM_OFF. */
_Noreturn void system_off(void);

/* PSCI SYSTEM_RESET. */
_Noreturn void system_reset(void);

/* configASSERT found a condition to be false: says where and turns the system off. */
_Noreturn void system_assertion_failed(const char *file, unsigned long line);

/* An exception that nobody expects: prints the syndrome and turns the system off. */
_Noreturn void system_fault(uint64_t esr, uint64_t elr, uint64_t far);

#endif
