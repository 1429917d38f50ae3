/* The interrupt controller. Everything that knows it is a GICv3 is in gic.c and in the port that build.rs picks. */
#ifndef GIC_H
#define GIC_H

#include <stdint.h>

/* Turns on the distributor, this CPU's redistributor and its CPU interface, with every interrupt disabled. */
void gic_start(void);

/* Enables a level-sensitive PPI or SPI for this CPU. `priority` counts from 0, the most urgent, to
 * configUNIQUE_INTERRUPT_PRIORITIES - 1. */
void gic_enable(uint32_t intid, uint32_t priority);

#endif
