/* The serial port: an Arm PrimeCell PL011 (DDI 0183), real or emulated. */
#ifndef PL011_H
#define PL011_H

/* Sets the port to 8N1 with FIFOs, at the rate that the firmware chose, with the receive interrupts on. */
void pl011_start(void);

/* Sends one byte, waiting for room. */
void pl011_put(char byte);

/* The next received byte, or -1 where there is none. */
int pl011_get(void);

#endif
