//! Input and output of the test programs `lookup4` and `lookup6`, which run the datapath's look-up from user space.

use crate::{Backend, FrontendKey, V4, V6, layout};

/// Maximum number of probes in one run of a test program.
pub const PROBES: usize = 16;

/// One destination, and the outcome of a call to it. The input packet of a test program is an array of probes. The program
/// writes the outcomes into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Probe<A> {
    /// The destination, given by the caller.
    pub frontend: FrontendKey<A>,
    /// The outcome, written by the program: 0 left untranslated, 1 forwarded, 2 refused, 3 dropped.
    pub outcome: u32,
    /// The chosen backend, written by the program if the outcome is 1.
    pub backend: Backend<A>,
}

layout!(Probe<V4>, 28);
layout!(Probe<V6>, 52);
