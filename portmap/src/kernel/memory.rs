//! The memory of the machine.

use rustix::system::sysinfo;

/// The memory of the machine in bytes, also in a container with less.
pub fn total() -> u64 {
    let info = sysinfo();
    info.totalram.saturating_mul(info.mem_unit.into())
}
