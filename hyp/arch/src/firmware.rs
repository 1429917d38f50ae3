//! Calls to PSCI firmware below EL2. No guest's call gets here.

use core::arch::asm;

use bulkhead_abi::psci;
use bulkhead_policy::platform::Conduit;

/// Turns the machine off; returns if the firmware cannot.
pub fn system_off(conduit: Conduit) {
    // SAFETY: nothing of this machine is needed any more.
    unsafe { call(conduit, psci::SYSTEM_OFF, [0; 3]) };
}

/// Makes an SMCCC call through `conduit`, as the firmware's tree names it; the result is x0.
///
/// # Safety
/// What the call does to this machine is meant.
pub(crate) unsafe fn call(conduit: Conduit, function: u32, args: [u64; 3]) -> i64 {
    let mut result = u64::from(function);
    // SAFETY: SMCCC 1.1 keeps x4 and up; older firmware may clobber x4-x17, so all are declared.
    unsafe {
        match conduit {
            Conduit::Smc => {
                asm!("smc #0", inout("x0") result, inout("x1") args[0] => _, inout("x2") args[1] => _,
                inout("x3") args[2] => _, clobber_abi("C"), options(nostack))
            }
            Conduit::Hvc => {
                asm!("hvc #0", inout("x0") result, inout("x1") args[0] => _, inout("x2") args[1] => _,
                inout("x3") args[2] => _, clobber_abi("C"), options(nostack))
            }
        }
    }
    result as i64
}

/// Stops this CPU for good, drawing little power.
pub fn halt() -> ! {
    loop {
        crate::barrier::wait_for_interrupt();
    }
}
