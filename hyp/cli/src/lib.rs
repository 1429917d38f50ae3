//! The host tool of Bulkhead, as a library, so that the system tests build and start systems as it does.

pub mod bench;
pub mod board;
pub mod bundle;
pub mod card;
pub mod completions;
pub mod demo;
pub mod diagnostic;
pub mod doctor;
pub mod dts;
pub mod elf;
pub mod import;
pub mod initramfs;
pub mod input;
pub mod linux;
pub mod new;
pub mod output;
pub mod say;
pub mod screen;
pub mod session;
pub mod setup;
pub mod symbolize;
pub mod system;
pub mod terminal;
pub mod testing;
pub mod trusted;
pub mod workspace;
