/* How the kernel is configured for this partition. */
#ifndef FREERTOS_CONFIG_H
#define FREERTOS_CONFIG_H

#include <stdint.h>

#include "board.h"
#include "system.h"
#include "tick.h"

/* Scheduling */
#define configUSE_PREEMPTION 1
#define configUSE_TIME_SLICING 1
#define configUSE_PORT_OPTIMISED_TASK_SELECTION 1
#define configTICK_RATE_HZ 1000
#define configMAX_PRIORITIES 8
#define configMINIMAL_STACK_SIZE 512 /* words of 8 bytes */
#define configMAX_TASK_NAME_LEN 12
#define configTICK_TYPE_WIDTH_IN_BITS TICK_TYPE_WIDTH_64_BITS
#define configUSE_IDLE_HOOK 1
#define configUSE_TICK_HOOK 0
#define configUSE_TASK_FPU_SUPPORT 1

/* Objects */
#define configSUPPORT_DYNAMIC_ALLOCATION 1
#define configSUPPORT_STATIC_ALLOCATION 0
#define configTOTAL_HEAP_SIZE (256 * 1024)
#define configUSE_MUTEXES 1
#define configUSE_TIMERS 0
#define configUSE_CO_ROUTINES 0

/* Checks */
#define configASSERT(condition)                                                                                   \
    if (!(condition)) {                                                                                           \
        system_assertion_failed(__FILE__, __LINE__);                                                              \
    }
#define configCHECK_FOR_STACK_OVERFLOW 2
#define configUSE_MALLOC_FAILED_HOOK 1

/* Statistics for the `tasks` command: each task's run time in ticks of the system counter. */
#define configUSE_TRACE_FACILITY 1
#define configGENERATE_RUN_TIME_STATS 1
#define configRUN_TIME_COUNTER_TYPE uint64_t
#define portCONFIGURE_TIMER_FOR_RUN_TIME_STATS()
#define portGET_RUN_TIME_COUNTER_VALUE() tick_elapsed()

/* Functions to include */
#define INCLUDE_vTaskDelay 1
#define INCLUDE_xTaskDelayUntil 1
#define INCLUDE_uxTaskGetStackHighWaterMark 1
#define INCLUDE_xTaskGetCurrentTaskHandle 1

/* Interrupts: the GIC has 5 bits of priority, lower is more urgent. Handlers that call the kernel must be at or
 * below the urgency of configMAX_API_CALL_INTERRUPT_PRIORITY. The kernel wants the tick at the lowest usable
 * priority, and asserts on the GIC's running priority that it is. */
#define configUNIQUE_INTERRUPT_PRIORITIES 32
#define configMAX_API_CALL_INTERRUPT_PRIORITY 18
#ifdef GICC_BASE /* the port for GICv2 finds the controller in memory */
#define configINTERRUPT_CONTROLLER_BASE_ADDRESS GICD_BASE
#define configINTERRUPT_CONTROLLER_CPU_INTERFACE_OFFSET (GICC_BASE - GICD_BASE)
#endif
#define configSETUP_TICK_INTERRUPT() tick_start()
#define configCLEAR_TICK_INTERRUPT() tick_rearm()

#endif
