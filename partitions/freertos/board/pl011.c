#include "pl011.h"

#include "board.h"

#include <stdint.h>

#define UARTDR 0x000
#define UARTFR 0x018
#define UARTFR_RXFE (1u << 4)
#define UARTFR_TXFF (1u << 5)
#define UARTLCR_H 0x02c
#define UARTLCR_H_FEN (1u << 4)
#define UARTLCR_H_WLEN_8 (3u << 5)
#define UARTCR 0x030
#define UARTCR_UARTEN (1u << 0)
#define UARTCR_TXE (1u << 8)
#define UARTCR_RXE (1u << 9)
#define UARTIFLS 0x034
#define UARTIMSC 0x038
#define UARTICR 0x044
#define UART_INTERRUPT_RX (1u << 4)
#define UART_INTERRUPT_RT (1u << 6)

static volatile uint32_t *reg(uint64_t offset)
{
    return (volatile uint32_t *)(PL011_BASE + offset);
}

void pl011_start(void)
{
    *reg(UARTCR) = 0;
    *reg(UARTLCR_H) = UARTLCR_H_FEN | UARTLCR_H_WLEN_8;
    *reg(UARTIFLS) = 0; /* an interrupt at 1/8 of the FIFO; what is less comes with the receive timeout */
    *reg(UARTICR) = 0x7ff;
    *reg(UARTIMSC) = UART_INTERRUPT_RX | UART_INTERRUPT_RT;
    *reg(UARTCR) = UARTCR_UARTEN | UARTCR_TXE | UARTCR_RXE;
}

void pl011_put(char byte)
{
    while (*reg(UARTFR) & UARTFR_TXFF) {
    }
    *reg(UARTDR) = (uint8_t)byte;
}

int pl011_get(void)
{
    if (*reg(UARTFR) & UARTFR_RXFE) {
        return -1;
    }
    return (int)(*reg(UARTDR) & 0xff);
}
