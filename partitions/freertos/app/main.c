/* FreeRTOS on one CPU: a control loop, its consumer, a monitor and a shell. */

#include "FreeRTOS.h"
#include "board.h"
#include "console.h"
#include "control.h"
#include "gic.h"
#include "monitor.h"
#include "pl011.h"
#include "shell.h"
#include "system.h"
#include "task.h"
#include "tick.h"

/* Called by the port for every interrupt, between acknowledge and end of interrupt. */
void vApplicationIRQHandler(uint32_t intid)
{
    switch (intid) {
    case TICK_INTID:
        tick_interrupt();
        break;
    case PL011_INTID:
        console_interrupt();
        break;
    default: /* spurious */
        break;
    }
}

_Noreturn int main(void)
{
    gic_start();
    console_start();
    console_line("FreeRTOS " tskKERNEL_VERSION_NUMBER ", tick %lu Hz, counter %lu Hz; `help` lists the commands",
                 (unsigned long)configTICK_RATE_HZ, tick_frequency());
    control_start();
    monitor_start();
    shell_start();
    vTaskStartScheduler();
    system_off(); /* the heap was too small for the idle task */
}
