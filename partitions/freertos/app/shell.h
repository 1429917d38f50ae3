/* The task that answers typed commands. */
#ifndef SHELL_H
#define SHELL_H

/* Creates the task. */
void shell_start(void);

#endif
