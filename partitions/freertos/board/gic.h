/* The interrupt controller. Everything that knows its version is in gicv2.c, gicv3.c and the ports, of which build.rs
 * picks. */
#ifndef GIC_H
#define GIC_H

#include <stdint.h>

/* Turns on the distributor and this CPU's interface, with every interrupt disabled. */
void gic_start(void);

/* Enables a level-sensitive PPI or SPI for this CPU. `priority` counts from 0, the most urgent, to
 * configUNIQUE_INTERRUPT_PRIORITIES - 1. */
void gic_enable(uint32_t intid, uint32_t priority);

#endif
