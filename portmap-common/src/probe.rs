//! A question to the tables that user space can ask: what the `lookup` program reads and answers.

use crate::{Backend, FrontendKey, V4, V6, layout};

/// How many probes one run of the program takes.
pub const PROBES: usize = 16;

/// One destination, and what a connection to it would meet. The program takes a packet of these and fills in the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Probe<A> {
    /// The question.
    pub frontend: FrontendKey<A>,
    /// The answer: 0 left alone, 1 forwarded, 2 refused, 3 dropped.
    pub outcome: u32,
    /// Where to, if forwarded.
    pub backend: Backend<A>,
}

layout!(Probe<V4>, 28);
layout!(Probe<V6>, 52);
