/* QEMU virt with a GICv3. */
#ifndef BOARD_H
#define BOARD_H

#define GICD_BASE 0x08000000UL
#define GICR_BASE 0x080a0000UL
#define PL011_BASE 0x09000000UL
#define PL011_INTID 33u

#endif
