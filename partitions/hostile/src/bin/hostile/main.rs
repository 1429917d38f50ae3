//! Guest.
#![no_std]
#![no_main]

bulkhead_rt::entry!(main);

fn main() {
    bulkhead_rt::verdict::done()
}
