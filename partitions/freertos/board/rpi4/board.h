/* Raspberry Pi 4: the BCM2711's GIC-400 and its UART 0 (BCM2711 ARM Peripherals, 1.2 and 6.5.1). */
#ifndef BOARD_H
#define BOARD_H

#define GICD_BASE 0xff841000UL
#define GICC_BASE 0xff842000UL
#define PL011_BASE 0xfe201000UL
#define PL011_INTID 153u /* SPI 121 */

#endif
