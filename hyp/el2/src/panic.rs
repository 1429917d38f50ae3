//! The last message: a fault or a panic of the hypervisor itself. The machine stops, because nothing can be trusted to
//! go on. One panic is nobody's bug: what was handed over at boot needs more memory than there is.

use core::panic::PanicInfo;

use bulkhead_arch::vectors::FaultFrame;
use bulkhead_arch::{fault, firmware, heap};
use bulkhead_exits::console::{self, print_last};

use crate::run;

/// An exception taken at EL2.
#[unsafe(no_mangle)]
extern "C" fn handle_fault(frame: &FaultFrame) -> ! {
    fault::halt_others();
    let report = fault::report();
    print_last(format_args!(
        "\nbulkhead: EL2 fault: vector {}, ESR {:#x}, ELR {:#x}, FAR {:#x}, SPSR {:#x}, SP {:#x}\n",
        frame.vector, report.esr, report.elr, report.far, report.spsr, frame.sp
    ));
    for (number, value) in frame.x.iter().enumerate() {
        print_last(format_args!("  x{number} {value:#x}\n"));
    }
    print_last(format_args!("  at {:#x}\n", report.elr));
    print_backtrace(frame.sp);
    firmware::halt()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    fault::halt_others();
    if heap::is_used_up() {
        // After what has been printed so far.
        console::flush();
        print_last(format_args!(
            "\nbulkhead: error: device tree and manifest take more than the hypervisor's memory\n\
             bulkhead: no partition was started\n"
        ));
        run::power_off();
    }
    let (file, line) = info.location().map_or(("", 0), |at| (at.file(), at.line()));
    print_last(format_args!("\nbulkhead: EL2 fault: {file}:{}: {}\n", u64::from(line), info.message()));
    print_backtrace(fault::stack_pointer());
    firmware::halt()
}

fn print_backtrace(sp: u64) {
    for address in fault::backtrace(sp) {
        print_last(format_args!("  at {address:#x}\n"));
    }
    print_last(format_args!("bulkhead: the machine has stopped\n"));
}
