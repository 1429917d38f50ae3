#include "shell.h"

#include <string.h>

#include "FreeRTOS.h"
#include "console.h"
#include "control.h"
#include "monitor.h"
#include "system.h"
#include "task.h"
#include "tasks.h"
#include "tick.h"

#define LINE_SIZE 64
#define MAX_TASKS 8

struct command {
    const char *name;
    const char *help;
    void (*run)(void);
};

static void help(void);

static void stats(void)
{
    struct control_statistics control = control_statistics();

    console_line("ticks %lu, expected %lu, lost %lu, late max %lu us", xTaskGetTickCount(), tick_expected(),
                 monitor_lost_ticks(), tick_lateness().max_us);
    console_line("control loop: %lu samples, %lu overruns, %lu found the queue full", control.samples,
                 control.overruns, control.queue_full);
    console_line("consumer: %lu samples, %lu gaps, age max %lu us", control.consumed, control.gaps,
                 control.max_age_us);
    console_line("heap: %lu bytes free, %lu at the least", xPortGetFreeHeapSize(),
                 xPortGetMinimumEverFreeHeapSize());
}

static void lateness(void)
{
    struct tick_lateness lateness = tick_lateness();
    uint64_t total = 0;

    for (unsigned n = 0; n < TICK_BUCKETS; n++) {
        total += lateness.buckets[n];
    }
    console_line("ticks by how late they came:");
    for (unsigned n = 0; n < TICK_BUCKETS; n++) {
        if (lateness.buckets[n] != 0) {
            uint64_t tenths = lateness.buckets[n] * 1000 / total;
            console_line("  below %7lu us: %10lu  %3lu.%lu %%", 1UL << n, lateness.buckets[n], tenths / 10,
                         tenths % 10);
        }
    }
    console_line("max %lu us of %lu ticks", lateness.max_us, total);
}

static const char *state_name(eTaskState state)
{
    switch (state) {
    case eRunning:
        return "running";
    case eReady:
        return "ready";
    case eBlocked:
        return "blocked";
    case eSuspended:
        return "suspended";
    default:
        return "deleted";
    }
}

static void tasks(void)
{
    static TaskStatus_t all[MAX_TASKS];
    uint64_t total;
    UBaseType_t count = uxTaskGetSystemState(all, MAX_TASKS, &total);

    console_line("%-12s %-10s %8s %11s %7s", "task", "state", "priority", "stack free", "CPU");
    for (UBaseType_t i = 0; i < count; i++) {
        uint64_t tenths = total == 0 ? 0 : all[i].ulRunTimeCounter * 1000 / total;
        console_line("%-12s %-10s %8lu %9lu B %3lu.%lu %%", all[i].pcTaskName, state_name(all[i].eCurrentState),
                     all[i].uxCurrentPriority, all[i].usStackHighWaterMark * sizeof(StackType_t), tenths / 10,
                     tenths % 10);
    }
}

static void reboot(void)
{
    console_line("reboot");
    system_reset();
}

static void off(void)
{
    console_line("off");
    system_off();
}

static const struct command commands[] = {
    {"help", "this list", help},
    {"stats", "ticks, control loop, queue and heap", stats},
    {"lateness", "how late the ticks came, as a histogram", lateness},
    {"tasks", "the tasks, their stacks and their share of the CPU", tasks},
    {"reboot", "restart by PSCI SYSTEM_RESET", reboot},
    {"off", "end by PSCI SYSTEM_OFF", off},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void help(void)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        console_line("%-10s %s", commands[i].name, commands[i].help);
    }
}

static void execute(const char *line)
{
    size_t length = strlen(line);

    for (size_t i = 0; i < COMMANDS; i++) {
        if (length == strlen(commands[i].name) && memcmp(line, commands[i].name, length) == 0) {
            commands[i].run();
            return;
        }
    }
    console_line("unknown command `%s`; `help` lists what there is", line);
}

static void shell(void *unused)
{
    (void)unused;
    char line[LINE_SIZE];

    for (;;) {
        console_read_line(line, sizeof(line));
        if (line[0] != '\0') {
            execute(line);
        }
    }
}

void shell_start(void)
{
    xTaskCreate(shell, "shell", 2 * configMINIMAL_STACK_SIZE, NULL, SHELL_PRIORITY, NULL);
}
