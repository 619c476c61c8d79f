//! Portmap and the real kube-proxy, on one API server with the same random objects: what both make of them is the same.
//!
//! Every round changes some Services, their EndpointSlices and the Node, waits until both have seen it all, and compares each
//! frontend of kube-proxy's nftables maps with the kernel's tables of portmap: what clients on the node get, and what clients
//! outside, session affinity, source ranges, and which ClusterIPs refuse their other ports. What differs is a failure, unless
//! it is one of the few deviations that `docs/kube-proxy.md` argues for ([`deviation`]).
//!
//! `PORTMAP_PEER_SEED` repeats a run; `PORTMAP_PEER_ROUNDS` and `PORTMAP_PEER_SERVICES` say how long it is and of what size.
//!
//! Needs: kernel, control plane.

mod apply;
mod compare;
mod deviation;
mod mark;
mod model;
mod nftables;
mod node;
mod objects;
mod population;
mod proxy;
mod random;
mod rounds;
mod services;
mod slices;
mod tables;
mod tally;
mod values;
