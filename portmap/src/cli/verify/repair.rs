//! Asks the running agent to compare the kernel's tables with its model, and to repair them.
//!
//! The request is the signal SIGUSR1 to the process that holds the lock on the pins. The alternative would be a field of STATE.
//! But the agent writes STATE as a whole, so it could overwrite the request.

use std::{error::Error, fmt};

use anyhow::{Result, anyhow};
use portmap::{kernel::processes, maps::pin::Pins};
use rustix::process::Signal;

use super::reading::{Differences, Reader};

/// The most requests. The agent ignores a comparison during which it writes.
const REQUESTS: usize = 5;

/// No agent can be asked, with the reason.
#[derive(Debug)]
pub struct Refused(anyhow::Error);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl Error for Refused {}

/// Requests comparisons until the tables agree with the objects, and returns the differences that remain.
///
/// # Errors
///
/// [`Refused`], or the objects or the tables cannot be read.
pub fn repair(reader: &mut Reader, pins: &Pins) -> Result<Differences> {
    let mut rest = Differences::default();
    for _ in 0..REQUESTS {
        request(pins).map_err(Refused)?;
        rest = reader.differences()?.1;
        if rest.is_empty() {
            break;
        }
    }
    Ok(rest)
}

/// Sends the request to the agent.
fn request(pins: &Pins) -> Result<()> {
    let holder = pins.holder()?.ok_or_else(|| {
        anyhow!("no agent is running, or none in this PID namespace; to start one: portmap run; or run verify beside the agent")
    })?;
    processes::signal_handler(holder, Signal::USR1, |id| Ok(pins.holder()? == Some(id)))
}
