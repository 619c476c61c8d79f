//! The third table: where a connection ends.

use crate::{V4, V6, layout};

/// A flag of [`Backend`]: the endpoint runs on this node.
pub const LOCAL: u16 = 1;

/// A value of `BACKENDS_V4` or `BACKENDS_V6`: a pod's address and its own targetPort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Backend<A> {
    /// The pod's address.
    pub address: A,
    /// The port that the pod listens on; two pods of one Service may differ.
    pub port: u16,
    /// [`LOCAL`].
    pub flags: u16,
    /// The number of this incarnation of (service port, address, port). Never given again, so that nothing remembered about
    /// an endpoint that went away applies to one that returns.
    pub endpoint: u32,
}

layout!(Backend<V4>, 12);
layout!(Backend<V6>, 24);
