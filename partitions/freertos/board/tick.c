#include "tick.h"

#include "FreeRTOS.h"
#include "gic.h"
#include "task.h"

static uint64_t period;
static uint64_t start;
static struct tick_lateness lateness;
static uint64_t recent_max_us;

uint64_t tick_frequency(void)
{
    uint64_t frequency;
    __asm volatile("mrs %0, cntfrq_el0" : "=r"(frequency));
    return frequency;
}

static uint64_t read_deadline(void)
{
    uint64_t deadline;
    __asm volatile("mrs %0, cntv_cval_el0" : "=r"(deadline));
    return deadline;
}

static void write_deadline(uint64_t deadline)
{
    __asm volatile("msr cntv_cval_el0, %0\n isb" ::"r"(deadline));
}

void tick_start(void)
{
    period = tick_frequency() / configTICK_RATE_HZ;
    start = tick_counter();
    write_deadline(start + period);
    __asm volatile("msr cntv_ctl_el0, %0\n isb" ::"r"(1UL));
    gic_enable(TICK_INTID, portLOWEST_USABLE_INTERRUPT_PRIORITY);
}

/* From the old deadline, never from now: a tick that comes late does not move the ones after it, and ticks that
 * piled up all arrive. */
void tick_rearm(void)
{
    write_deadline(read_deadline() + period);
}

void tick_interrupt(void)
{
    uint64_t us = (tick_counter() - read_deadline()) * 1000000 / tick_frequency();
    unsigned bucket = us == 0 ? 0 : 64 - (unsigned)__builtin_clzl(us);

    lateness.buckets[bucket < TICK_BUCKETS ? bucket : TICK_BUCKETS - 1]++;
    if (us > lateness.max_us) {
        lateness.max_us = us;
    }
    if (us > recent_max_us) {
        recent_max_us = us;
    }
    FreeRTOS_Tick_Handler();
}

uint64_t tick_elapsed(void)
{
    return tick_counter() - start;
}

uint64_t tick_expected(void)
{
    return tick_elapsed() / period;
}

struct tick_lateness tick_lateness(void)
{
    taskENTER_CRITICAL();
    struct tick_lateness copy = lateness;
    taskEXIT_CRITICAL();
    return copy;
}

uint64_t tick_take_recent_max_us(void)
{
    taskENTER_CRITICAL();
    uint64_t max_us = recent_max_us;
    recent_max_us = 0;
    taskEXIT_CRITICAL();
    return max_us;
}
