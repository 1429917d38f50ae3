#include "monitor.h"

#include "FreeRTOS.h"
#include "console.h"
#include "task.h"
#include "tasks.h"
#include "tick.h"

#define HEARTBEAT_MS 1000
#define HEARTBEATS_PER_LATENESS 10
/* How long a late tick may stay away before it counts as lost. */
#define GRACE_TICKS 20

static uint64_t missing_ticks(void)
{
    uint64_t expected = tick_expected();
    uint64_t counted = xTaskGetTickCount();
    return expected > counted + 1 ? expected - counted : 0;
}

uint64_t monitor_lost_ticks(void)
{
    uint64_t missing = missing_ticks();
    /* Late is not lost: ticks that piled up arrive one after the other. */
    for (unsigned grace = 0; missing != 0 && grace < GRACE_TICKS; grace++) {
        vTaskDelay(1);
        missing = missing_ticks();
    }
    return missing;
}

void monitor_print_lateness(void)
{
    struct tick_lateness lateness = tick_lateness();
    unsigned last = 0;

    for (unsigned n = 0; n < TICK_BUCKETS; n++) {
        if (lateness.buckets[n] != 0) {
            last = n;
        }
    }
    console_begin();
    console_print("lateness us:");
    for (unsigned n = 0; n <= last; n++) {
        console_print(" <%lu:%lu", 1UL << n, lateness.buckets[n]);
    }
    console_end();
}

static void monitor(void *unused)
{
    (void)unused;
    TickType_t release = xTaskGetTickCount();

    for (uint64_t heartbeat = 1;; heartbeat++) {
        xTaskDelayUntil(&release, pdMS_TO_TICKS(HEARTBEAT_MS));
        uint64_t lost = monitor_lost_ticks();
        console_line("heartbeat %lu: ticks %lu, lost %lu, late max %lu us", heartbeat, xTaskGetTickCount(), lost,
                     tick_take_recent_max_us());
        if (heartbeat % HEARTBEATS_PER_LATENESS == 0) {
            monitor_print_lateness();
        }
    }
}

void monitor_start(void)
{
    xTaskCreate(monitor, "monitor", configMINIMAL_STACK_SIZE, NULL, MONITOR_PRIORITY, NULL);
}
