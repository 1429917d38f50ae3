#include "console.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "FreeRTOS.h"
#include "board.h"
#include "gic.h"
#include "pl011.h"
#include "queue.h"
#include "semphr.h"

#define LINE_SIZE 80
#define RECEIVE_QUEUE_SIZE 128
/* More urgent than the tick, and low enough to call the kernel. */
#define RECEIVE_PRIORITY (portLOWEST_USABLE_INTERRUPT_PRIORITY - 1)

#define BACKSPACE '\b'
#define DELETE 0x7f
#define CTRL_U 0x15

static SemaphoreHandle_t output; /* guards the port's transmit side and the line being typed */
static QueueHandle_t received;
static char typed[LINE_SIZE];
static size_t typed_length;

static void put(char c)
{
    if (c == '\n') {
        pl011_put('\r');
    }
    pl011_put(c);
}

static void put_string(const char *text)
{
    while (*text != '\0') {
        put(*text++);
    }
}

static const char *format_number(char *end, uint64_t number, unsigned base)
{
    *--end = '\0';
    do {
        *--end = "0123456789abcdef"[number % base];
        number /= base;
    } while (number != 0);
    return end;
}

/* As much of printf as console.h promises. */
static void put_format(const char *format, va_list arguments)
{
    char digits[24];

    for (; *format != '\0'; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        if (*++format == '%') {
            put('%');
            continue;
        }
        bool left = *format == '-';
        if (left) {
            format++;
        }
        size_t width = 0;
        for (; *format >= '0' && *format <= '9'; format++) {
            width = 10 * width + (size_t)(*format - '0');
        }
        const char *text;
        if (*format == 's') {
            text = va_arg(arguments, const char *);
        } else {
            unsigned base = *++format == 'x' ? 16 : 10;
            text = format_number(digits + sizeof(digits), va_arg(arguments, unsigned long), base);
        }
        size_t length = strlen(text);
        for (size_t column = length; !left && column < width; column++) {
            put(' ');
        }
        put_string(text);
        for (size_t column = length; left && column < width; column++) {
            put(' ');
        }
    }
}

void console_start(void)
{
    pl011_start();
    output = xSemaphoreCreateMutex();
    received = xQueueCreate(RECEIVE_QUEUE_SIZE, sizeof(char));
    gic_enable(PL011_INTID, RECEIVE_PRIORITY);
}

void console_begin(void)
{
    xSemaphoreTake(output, portMAX_DELAY);
    if (typed_length != 0) {
        put('\n');
    }
}

void console_print(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    put_format(format, arguments);
    va_end(arguments);
}

void console_end(void)
{
    put('\n');
    for (size_t i = 0; i < typed_length; i++) {
        put(typed[i]);
    }
    xSemaphoreGive(output);
}

void console_line(const char *format, ...)
{
    va_list arguments;

    console_begin();
    va_start(arguments, format);
    put_format(format, arguments);
    va_end(arguments);
    console_end();
}

void console_emergency(const char *format, ...)
{
    va_list arguments;

    put('\n');
    va_start(arguments, format);
    put_format(format, arguments);
    va_end(arguments);
}

static void erase(void)
{
    if (typed_length != 0) {
        typed_length--;
        put_string("\b \b");
    }
}

/* Echoes one typed character; true when it ends the line. */
static bool edit(char c, size_t limit)
{
    switch (c) {
    case '\r':
    case '\n':
        put('\n');
        return true;
    case BACKSPACE:
    case DELETE:
        erase();
        break;
    case CTRL_U:
        while (typed_length != 0) {
            erase();
        }
        break;
    default:
        if (c >= ' ' && c < DELETE && typed_length < limit) {
            typed[typed_length++] = c;
            put(c);
        }
    }
    return false;
}

void console_read_line(char *line, size_t size)
{
    size_t limit = size - 1 < LINE_SIZE ? size - 1 : LINE_SIZE;
    bool complete = false;

    while (!complete) {
        char c;
        xQueueReceive(received, &c, portMAX_DELAY);
        xSemaphoreTake(output, portMAX_DELAY);
        complete = edit(c, limit);
        if (complete) {
            memcpy(line, typed, typed_length);
            line[typed_length] = '\0';
            typed_length = 0;
        }
        xSemaphoreGive(output);
    }
}

void console_interrupt(void)
{
    BaseType_t woken = pdFALSE;

    for (int byte = pl011_get(); byte >= 0; byte = pl011_get()) {
        char c = (char)byte;
        /* What does not fit is lost: nobody types that fast. */
        xQueueSendToBackFromISR(received, &c, &woken);
    }
    portYIELD_FROM_ISR(woken);
}
