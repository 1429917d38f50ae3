/* QEMU virt with a GICv2. */
#ifndef BOARD_H
#define BOARD_H

#define GICD_BASE 0x08000000UL
#define GICC_BASE 0x08010000UL
#define PL011_BASE 0x09000000UL
#define PL011_INTID 33u

#endif
