/* The kernel includes <stdlib.h> for NULL and size_t only. */
#ifndef STDLIB_H
#define STDLIB_H
#include <stddef.h>
#endif
