//! The registers of a redistributor: 128 KiB a vCPU, an RD frame and an SGI frame (IHI 0069, 12.10 and 12.11).

use super::distributor::{BankId, IIDR_VALUE, PIDR2_VALUE, decode};
use super::{Access, Vgic};
use crate::machine::Machine;

/// Bytes of one redistributor's two frames.
pub const STRIDE: u64 = 0x2_0000;

const IIDR: u64 = 0x0004;
const TYPER: u64 = 0x0008;
const TYPER_HIGH: u64 = 0x000c;
const WAKER: u64 = 0x0014;
const PIDR2: u64 = 0xffe8;
const SGI_FRAME: u64 = 0x1_0000;

const TYPER_LAST: u64 = 1 << 4;
const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;

impl Vgic {
    /// A read of `size` bytes by `vcpu` at `offset` into the run of redistributors.
    pub fn read_redistributor<M: Machine>(
        &mut self,
        machine: &mut M,
        vcpu: usize,
        offset: u64,
        size: u64,
    ) -> Access {
        let (owner, offset) = split(offset);
        let Some(private) = self.vcpus.get(owner) else { return Access::Value(0) };
        // A vCPU's Aff0 is its number.
        let typer = ((owner as u64) << 32)
            | ((owner as u64) << 8)
            | if owner == self.vcpus.len().wrapping_sub(1) { TYPER_LAST } else { 0 };
        Access::Value(match (offset, size) {
            (IIDR, 4) => IIDR_VALUE.into(),
            (TYPER, 8) => typer,
            (TYPER, 4) => typer & 0xffff_ffff,
            (TYPER_HIGH, 4) => typer >> 32,
            (WAKER, 4) if private.asleep => (WAKER_PROCESSOR_SLEEP | WAKER_CHILDREN_ASLEEP).into(),
            (PIDR2, 4) => PIDR2_VALUE.into(),
            (SGI_FRAME.., _) => match decode(offset & 0xffff) {
                Some((register, 0)) => {
                    return self.read_bank(machine, vcpu, BankId::Private(owner), register, size);
                }
                _ => 0,
            },
            _ => 0,
        })
    }

    /// A write of `size` bytes by `vcpu` at `offset` into the run of redistributors.
    pub fn write_redistributor<M: Machine>(
        &mut self,
        machine: &mut M,
        vcpu: usize,
        offset: u64,
        size: u64,
        value: u64,
    ) {
        let (owner, offset) = split(offset);
        let Some(private) = self.vcpus.get_mut(owner) else { return };
        match (offset, size) {
            (WAKER, 4) => private.asleep = value as u32 & WAKER_PROCESSOR_SLEEP != 0,
            (SGI_FRAME.., _) => {
                if let Some((register, 0)) = decode(offset & 0xffff) {
                    self.write_bank(machine, vcpu, BankId::Private(owner), register, size, value as u32);
                }
            }
            _ => {}
        }
    }
}

/// The vCPU whose frames `offset` is in, and the offset within them.
fn split(offset: u64) -> (usize, u64) {
    ((offset / STRIDE) as usize, offset & (STRIDE - 1))
}
