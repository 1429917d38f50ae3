/* GICv3 (IHI 0069) for a system of one CPU. */

#include "board.h"
#include "gic.h"

#include "FreeRTOS.h"

#define GICR_SGI_BASE (GICR_BASE + 0x10000)

#define GICD_CTLR (GICD_BASE + 0x0000)
#define GICD_CTLR_ENABLE_GRP1 (1u << 1)
#define GICD_CTLR_ARE (1u << 4)
#define GICD_CTLR_RWP (1u << 31)
#define GICD_IROUTER(intid) (GICD_BASE + 0x6000 + 8 * (uint64_t)(intid))
#define GICR_WAKER (GICR_BASE + 0x0014)
#define GICR_WAKER_PROCESSOR_SLEEP (1u << 1)
#define GICR_WAKER_CHILDREN_ASLEEP (1u << 2)

/* Offsets that a distributor and a redistributor's SGI frame have in common. */
#define IGROUPR 0x0080
#define ISENABLER 0x0100
#define ICENABLER 0x0180
#define IPRIORITYR 0x0400
#define ICFGR 0x0c00

#define FIRST_SPI 32u

static volatile uint32_t *word(uint64_t address)
{
    return (volatile uint32_t *)address;
}

void gic_start(void)
{
    *word(GICD_CTLR) = 0;
    while (*word(GICD_CTLR) & GICD_CTLR_RWP) {
    }
    *word(GICD_CTLR) = GICD_CTLR_ARE;
    *word(GICD_CTLR) = GICD_CTLR_ARE | GICD_CTLR_ENABLE_GRP1;

    *word(GICR_WAKER) &= ~GICR_WAKER_PROCESSOR_SLEEP;
    while (*word(GICR_WAKER) & GICR_WAKER_CHILDREN_ASLEEP) {
    }
    *word(GICR_SGI_BASE + ICENABLER) = ~0u;
    *word(GICR_SGI_BASE + IGROUPR) = ~0u;

    __asm volatile("msr S3_0_C12_C12_5, %0" ::"r"(1UL)); /* ICC_SRE_EL1: system registers */
    __asm volatile("isb");
    __asm volatile("msr S3_0_C4_C6_0, %0" ::"r"(0xffUL)); /* ICC_PMR_EL1: let all priorities in */
    __asm volatile("msr S3_0_C12_C12_3, %0" ::"r"(0UL));  /* ICC_BPR1_EL1: all bits preempt */
    __asm volatile("msr S3_0_C12_C12_7, %0" ::"r"(1UL));  /* ICC_IGRPEN1_EL1 */
    __asm volatile("isb");
}

void gic_enable(uint32_t intid, uint32_t priority)
{
    uint64_t frame = intid < FIRST_SPI ? GICR_SGI_BASE : GICD_BASE;
    uint64_t bank = 4 * (intid / 32);
    uint32_t bit = 1u << (intid % 32);

    *word(frame + IGROUPR + bank) |= bit;
    *(volatile uint8_t *)(frame + IPRIORITYR + intid) = (uint8_t)(priority << portPRIORITY_SHIFT);
    if (intid >= FIRST_SPI) {
        uint64_t mpidr;
        __asm volatile("mrs %0, mpidr_el1" : "=r"(mpidr));
        *word(frame + ICFGR + 4 * (intid / 16)) &= ~(2u << (2 * (intid % 16)));
        *(volatile uint64_t *)GICD_IROUTER(intid) = mpidr & 0xff00ffffffUL;
    }
    *word(frame + ISENABLER + bank) = bit;
}
