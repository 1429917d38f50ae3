//! SHA-256 by the CPU's own instructions (Arm ARM DDI 0487, FEAT_SHA256), a thirtieth of what software takes.
//!
//! They work on the vector registers, which are the guests'. EL2 uses them only where a CPU has no guest that could miss them,
//! and leaves zeros.

use core::arch::global_asm;

use aarch64_cpu::registers::{CPTR_EL2, ID_AA64ISAR0_EL1, Readable, Writeable};
use bulkhead_policy::inventory::{Compress, compress_in_software};

use crate::barrier;
use crate::guest::CPTR;

unsafe extern "C" {
    /// Folds `count` blocks, at least one, into the state.
    fn sha256_blocks(state: &mut [u32; 8], blocks: *const [u8; 64], count: usize);
}

/// What the CPU that calls does best, for use on it while its vCPU is off.
#[must_use]
pub fn compress() -> Compress {
    if (ID_AA64ISAR0_EL1.get() >> 12) & 0xf == 0 {
        return compress_in_software;
    }
    // What firmware left may trap the vector registers (D19.2.34).
    CPTR_EL2.set(CPTR);
    barrier::context_synchronization();
    compress_by_instructions
}

fn compress_by_instructions(state: &mut [u32; 8], blocks: &[[u8; 64]]) {
    if !blocks.is_empty() {
        // SAFETY: the pointers are good for 32 bytes and for `count` times 64. `compress` has found the instructions and allowed
        // them. Compiled code has no vector registers (softfloat), so none that it needs changes.
        unsafe { sha256_blocks(state, blocks.as_ptr(), blocks.len()) };
    }
}

global_asm!(
    ".pushsection .text.sha256, \"ax\"",
    ".arch_extension fp",
    ".arch_extension simd",
    ".arch_extension sha2",
    // Four rounds with W + K in `wk`, and the four words of the schedule that follow 16 after `w0` in its place (C7.2, SHA256H,
    // SHA256H2, SHA256SU0, SHA256SU1).
    ".macro sha256_rounds wk, w0, w1, w2, w3",
    "    add     \\wk\\().4s, \\wk\\().4s, \\w0\\().4s",
    "    sha256su0 \\w0\\().4s, \\w1\\().4s",
    "    mov     v20.16b, v0.16b",
    "    sha256h q0, q1, \\wk\\().4s",
    "    sha256h2 q1, q20, \\wk\\().4s",
    "    sha256su1 \\w0\\().4s, \\w2\\().4s, \\w3\\().4s",
    ".endm",
    // x0: state; x1: blocks; x2: count.
    ".global sha256_blocks",
    "sha256_blocks:",
    "    ld1     {{v0.4s, v1.4s}}, [x0]",       // a to d, e to h
    "1:  ld1     {{v4.16b-v7.16b}}, [x1], #64", // the schedule's first 16 words, big-endian
    "    rev32   v4.16b, v4.16b",
    "    rev32   v5.16b, v5.16b",
    "    rev32   v6.16b, v6.16b",
    "    rev32   v7.16b, v7.16b",
    "    mov     v2.16b, v0.16b",
    "    mov     v3.16b, v1.16b",
    "    adr     x3, 3f",
    "    mov     w4, #4",
    // The last turn's schedule is for nobody: shorter than a turn without.
    "2:  ld1     {{v16.4s-v19.4s}}, [x3], #64",
    "    sha256_rounds v16, v4, v5, v6, v7",
    "    sha256_rounds v17, v5, v6, v7, v4",
    "    sha256_rounds v18, v6, v7, v4, v5",
    "    sha256_rounds v19, v7, v4, v5, v6",
    "    subs    w4, w4, #1",
    "    b.ne    2b",
    "    add     v0.4s, v0.4s, v2.4s",
    "    add     v1.4s, v1.4s, v3.4s",
    "    subs    x2, x2, #1",
    "    b.ne    1b",
    "    st1     {{v0.4s, v1.4s}}, [x0]",
    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20",
    "    movi    v\\n\\().2d, #0",
    ".endr",
    "    ret",
    // FIPS 180-4, 4.2.2.
    ".balign 4",
    "3:",
    ".word 0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5",
    ".word 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174",
    ".word 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da",
    ".word 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967",
    ".word 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85",
    ".word 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070",
    ".word 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3",
    ".word 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2",
    ".purgem sha256_rounds",
    ".popsection",
);
