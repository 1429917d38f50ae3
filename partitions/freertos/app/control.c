#include "control.h"

#include "FreeRTOS.h"
#include "queue.h"
#include "task.h"
#include "tasks.h"
#include "tick.h"

#define LOOP_PERIOD_MS 10
#define QUEUE_SIZE 8

struct sample {
    uint64_t sequence;
    uint64_t counter;
};

static QueueHandle_t samples;
static struct control_statistics statistics; /* each field is written by one task */

static void producer(void *unused)
{
    (void)unused;
    TickType_t release = xTaskGetTickCount();

    for (uint64_t sequence = 0;; sequence++) {
        if (xTaskDelayUntil(&release, pdMS_TO_TICKS(LOOP_PERIOD_MS)) == pdFALSE) {
            statistics.overruns++;
        }
        struct sample sample = {.sequence = sequence, .counter = tick_counter()};
        statistics.samples++;
        if (xQueueSendToBack(samples, &sample, 0) != pdPASS) {
            statistics.queue_full++;
        }
    }
}

static void consumer(void *unused)
{
    (void)unused;

    for (uint64_t expected = 0;; expected++) {
        struct sample sample;
        xQueueReceive(samples, &sample, portMAX_DELAY);
        uint64_t age_us = (tick_counter() - sample.counter) * 1000000 / tick_frequency();
        statistics.consumed++;
        if (sample.sequence != expected) {
            statistics.gaps++;
            expected = sample.sequence;
        }
        if (age_us > statistics.max_age_us) {
            statistics.max_age_us = age_us;
        }
    }
}

void control_start(void)
{
    samples = xQueueCreate(QUEUE_SIZE, sizeof(struct sample));
    xTaskCreate(producer, "producer", configMINIMAL_STACK_SIZE, NULL, PRODUCER_PRIORITY, NULL);
    xTaskCreate(consumer, "consumer", configMINIMAL_STACK_SIZE, NULL, CONSUMER_PRIORITY, NULL);
}

struct control_statistics control_statistics(void)
{
    taskENTER_CRITICAL();
    struct control_statistics copy = statistics;
    taskEXIT_CRITICAL();
    return copy;
}
