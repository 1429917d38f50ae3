/* Text on the serial port.
 *
 * Tasks print whole lines; what a person is typing meanwhile is repeated after each.
 * Formats are those of printf, of which there are %%, %s, %lu and %lx, these with a width and `-`. */
#ifndef CONSOLE_H
#define CONSOLE_H

#include <stddef.h>

/* Makes the console usable; before the scheduler starts. */
void console_start(void);

/* Prints one line. */
void console_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line in pieces: begin, as many prints as wanted, end. Other tasks wait in between. */
void console_begin(void);
void console_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
void console_end(void);

/* Prints at once, without regard for other tasks: for the last words before the end. */
void console_emergency(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Waits for the person at the console to finish a line of at most `size` - 1 characters. */
void console_read_line(char *line, size_t size);

/* The serial port's interrupt handler. */
void console_interrupt(void);

#endif
