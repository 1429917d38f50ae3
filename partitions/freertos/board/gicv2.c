/* GICv2 (IHI 0048) without Security Extensions, for a system of one CPU: every interrupt stays in group 0, which is
 * signalled as IRQ. */

#include "board.h"
#include "gic.h"

#include "FreeRTOS.h"

#define GICD_CTLR (GICD_BASE + 0x000)
#define GICD_CTLR_ENABLE_GRP0 (1u << 0)
#define GICD_ISENABLER (GICD_BASE + 0x100)
#define GICD_ICENABLER (GICD_BASE + 0x180)
#define GICD_IPRIORITYR (GICD_BASE + 0x400)
#define GICD_ITARGETSR (GICD_BASE + 0x800)
#define GICD_ICFGR (GICD_BASE + 0xc00)

#define GICC_CTLR (GICC_BASE + 0x00)
#define GICC_CTLR_ENABLE_GRP0 (1u << 0)
#define GICC_PMR (GICC_BASE + 0x04)
#define GICC_BPR (GICC_BASE + 0x08)

#define FIRST_SPI 32u

static volatile uint32_t *word(uint64_t address)
{
    return (volatile uint32_t *)address;
}

static volatile uint8_t *byte(uint64_t address)
{
    return (volatile uint8_t *)address;
}

void gic_start(void)
{
    *word(GICD_CTLR) = 0;
    *word(GICD_ICENABLER) = ~0u;
    *word(GICD_CTLR) = GICD_CTLR_ENABLE_GRP0;
    *word(GICC_PMR) = 0xff; /* let all priorities in */
    *word(GICC_BPR) = 0;    /* all bits preempt */
    *word(GICC_CTLR) = GICC_CTLR_ENABLE_GRP0;
}

void gic_enable(uint32_t intid, uint32_t priority)
{
    *byte(GICD_IPRIORITYR + intid) = (uint8_t)(priority << portPRIORITY_SHIFT);
    if (intid >= FIRST_SPI) {
        *word(GICD_ICFGR + 4 * (intid / 16)) &= ~(2u << (2 * (intid % 16)));
        /* A private interrupt's targets are this CPU (4.3.12). */
        *byte(GICD_ITARGETSR + intid) = *byte(GICD_ITARGETSR);
    }
    *word(GICD_ISENABLER + 4 * (intid / 32)) = 1u << (intid % 32);
}
