#include "system.h"

#include "FreeRTOS.h"
#include "console.h"
#include "task.h"

/* PSCI function identifiers (DEN 0022, 5.1). */
#define PSCI_SYSTEM_OFF 0x84000008UL
#define PSCI_SYSTEM_RESET 0x84000009UL

static _Noreturn void psci(uint64_t function)
{
    register uint64_t x0 __asm("x0") = function;
    __asm volatile("hvc #0" : "+r"(x0)::"x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12",
                   "x13", "x14", "x15", "x16", "x17", "memory");
    for (;;) {
        __asm volatile("msr daifset, #0xf\n wfi");
    }
}

void system_off(void)
{
    psci(PSCI_SYSTEM_OFF);
}

void system_reset(void)
{
    psci(PSCI_SYSTEM_RESET);
}

/* The task that was running, for messages. */
static const char *task(void)
{
    TaskHandle_t current = xTaskGetCurrentTaskHandle();
    return current == NULL ? "none" : pcTaskGetName(current);
}

void system_assertion_failed(const char *file, unsigned long line)
{
    __asm volatile("msr daifset, #0xf");
    console_emergency("assertion failed: %s:%lu, task %s\n", file, line, task());
    system_off();
}

void system_fault(uint64_t esr, uint64_t elr, uint64_t far)
{
    console_emergency("fault: ESR_EL1 0x%lx, FAR_EL1 0x%lx, ELR_EL1 0x%lx, task %s\n", esr, far, elr, task());
    system_off();
}

void vApplicationStackOverflowHook(TaskHandle_t overflowed, char *name)
{
    (void)overflowed;
    __asm volatile("msr daifset, #0xf");
    console_emergency("stack overflow: task %s\n", name);
    system_off();
}

void vApplicationMallocFailedHook(void)
{
    system_assertion_failed("pvPortMalloc", 0);
}

void vApplicationIdleHook(void)
{
    __asm volatile("wfi");
}
