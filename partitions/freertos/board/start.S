/* Image header, entry and exception vectors.
 *
 * The page tables are constants in the image: the MMU goes on before the first store, so nothing that was
 * written with caches off can be hidden by a stale cache line. */

#define IMAGE_TEXT_OFFSET   0x80000

/* MAIR_EL1 (Arm ARM D19.2): attribute 0 Device-nGnRE, attribute 1 Normal write-back. */
#define MAIR                0xff04
/* TCR_EL1: 32-bit VA (T0SZ 32), 4 KiB granule, walks write-back inner shareable, no TTBR1 walks, 32-bit PA. */
#define TCR                 (32 | (1 << 8) | (1 << 10) | (3 << 12) | (1 << 23))
/* SCTLR_EL1: the RES1 bits, I, SA, C, M. */
#define SCTLR               (0x30d00800 | (1 << 12) | (1 << 3) | (1 << 2) | (1 << 0))
/* CPACR_EL1.FPEN: a task that calls vPortTaskUsesFPU() may use floating point. */
#define CPACR               (3 << 20)

/* Block descriptors (Arm ARM D8.3): valid, access flag; devices XN, RAM inner shareable. */
#define DEVICE_BLOCK        ((1 << 54) | (1 << 53) | (1 << 10) | 1)
#define RAM_BLOCK           ((1 << 10) | (3 << 8) | (1 << 2) | 1)
#define TABLE               3

/* ESR_EL1.EC of an SVC from AArch64. */
#define EC_SVC64            0x15

    .section .head, "ax"
    .global image_header
image_header:
    b       start
    .long   0
    .quad   IMAGE_TEXT_OFFSET
    .quad   __image_size
    .quad   0x2                     /* little endian, 4 KiB pages, near the base of RAM */
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

    .section .text.start, "ax"
start:
    msr     daifset, #0xf
    msr     spsel, #1
    ldr     x0, =vectors
    msr     vbar_el1, x0
    ldr     x0, =CPACR
    msr     cpacr_el1, x0

    ldr     x0, =MAIR
    msr     mair_el1, x0
    ldr     x0, =TCR
    msr     tcr_el1, x0
    adrp    x0, level1_table
    msr     ttbr0_el1, x0
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    ldr     x0, =SCTLR
    msr     sctlr_el1, x0
    isb

    ldr     x0, =__bss_start
    ldr     x1, =__bss_end
1:  cmp     x0, x1
    b.hs    2f
    stp     xzr, xzr, [x0], #16
    b       1b
2:
    ldr     x0, =__stack_top
    mov     sp, x0
    bl      main
    b       .

    .section .rodata.tables, "a"
    .balign 4096
level1_table:
    .quad   DEVICE_BLOCK            /* 0 to 1 GiB: GIC and UART of virt */
    .quad   level2_table + TABLE    /* 1 to 2 GiB: RAM */
    .quad   0
    .quad   0xc0000000 + DEVICE_BLOCK /* 3 to 4 GiB: GIC and UART of the Pi */
    .balign 4096
level2_table:
    .set    address, 0x40000000
    .rept   8                       /* 16 MiB in blocks of 2 MiB */
    .quad   address + RAM_BLOCK
    .set    address, address + 0x200000
    .endr
    .fill   512 - 8, 8, 0

    .macro  vector target
    .balign 0x80
    b       \target
    .endm

    .macro  fault_vector
    .balign 0x80
    b       fault
    .endm

/* Tasks run at EL1 on SP_EL0, handlers on SP_EL1 (Arm ARM D1.3.1). FreeRTOS's port names the table. */
    .section .text.vectors, "ax"
    .balign 2048
    .global _freertos_vector_table
_freertos_vector_table:
vectors:
    vector  task_synchronous
    vector  FreeRTOS_IRQ_Handler
    fault_vector
    fault_vector
    fault_vector
    vector  FreeRTOS_IRQ_Handler    /* an interrupt that preempts a handler */
    .rept   10
    fault_vector
    .endr

/* The port's handler spins for ever on anything but a yield, so everything else is sorted out before it. */
task_synchronous:
    stp     x0, x1, [sp, #-16]!
    mrs     x0, esr_el1
    lsr     x0, x0, #26
    cmp     x0, #EC_SVC64
    ldp     x0, x1, [sp], #16
    b.eq    FreeRTOS_SWI_Handler
fault:
    ldr     x0, =__stack_top
    mov     sp, x0
    mrs     x0, esr_el1
    mrs     x1, elr_el1
    mrs     x2, far_el1
    b       system_fault

    .section .note.GNU-stack, "", %progbits
