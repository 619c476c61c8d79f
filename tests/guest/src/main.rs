//! The first process of a virtual machine that runs suites on another kernel. See [`portmap_guest`].

#[cfg(target_arch = "x86_64")]
mod debug_exit {
    use std::arch::asm;

    /// Where the machine has its device `isa-debug-exit`.
    const PORT: u16 = 0xf4;

    /// Ends the machine: qemu exits with twice the value and one. Returns if there is no such device.
    pub fn write(value: u8) {
        // SAFETY: nothing of this process is at that port; without the right to it the write below would be fatal, so it is asked.
        let is_allowed = unsafe { libc::ioperm(PORT.into(), 1, 1) } == 0;
        if is_allowed {
            // SAFETY: the device takes a byte; no memory is touched.
            unsafe { asm!("out dx, al", in("dx") PORT, in("al") value, options(nomem, nostack)) };
        }
    }
}

/// What `isa-debug-exit` is told: qemu exits with 33, or with 35.
const PASSED: u8 = 16;
const FAILED: u8 = 17;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let verdict = match portmap_guest::run(&arguments) {
        Ok(true) => PASSED,
        Ok(false) => FAILED,
        Err(error) => {
            eprintln!("error: {error:#}");
            FAILED
        }
    };
    // The end of the machine is sudden: what was said must have left it. An output that is no console waits for nothing.
    rustix::termios::tcdrain(std::io::stdout()).ok();
    #[cfg(target_arch = "x86_64")]
    debug_exit::write(verdict);
    // The end of the first process is a panic, and that of the machine, which then passes for a crash.
    std::process::exit(verdict.into());
}
