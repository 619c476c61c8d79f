//! `portmap-guest`: runs the suites of its arguments and ends the virtual machine. See [`portmap_guest`].

#[cfg(target_arch = "x86_64")]
mod debug_exit {
    use std::arch::asm;

    /// I/O port of the device `isa-debug-exit`.
    const PORT: u16 = 0xf4;

    /// Ends the machine: qemu exits with `2 * value + 1`. Returns if the machine has no such device, or
    /// if the port is not permitted.
    pub fn write(value: u8) {
        // SAFETY: `ioperm` only sets an I/O permission bit of this thread; it accesses no memory.
        let is_allowed = unsafe { libc::ioperm(PORT.into(), 1, 1) } == 0;
        if is_allowed {
            // SAFETY: the port write is permitted (checked above), and the instruction accesses no memory.
            unsafe { asm!("out dx, al", in("dx") PORT, in("al") value, options(nomem, nostack)) };
        }
    }
}

/// The value for `isa-debug-exit` if all suites passed: qemu exits with 33.
const PASSED: u8 = 16;

/// The value for `isa-debug-exit` if a suite failed, or if the suites could not run: qemu exits with 35.
const FAILED: u8 = 17;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match portmap_guest::run(&arguments) {
        Ok(true) => PASSED,
        Ok(false) => FAILED,
        Err(error) => {
            eprintln!("error: {error:#}");
            FAILED
        }
    };
    // The machine ends abruptly, so wait until the console has sent all output. This fails if the output is not a console.
    rustix::termios::tcdrain(std::io::stdout()).ok();
    #[cfg(target_arch = "x86_64")]
    debug_exit::write(result);
    // Without the device, the exit of PID 1 makes the kernel panic, and the run counts as a crash.
    std::process::exit(result.into());
}
