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

#[path = "peer/apply.rs"]
mod apply;
#[path = "peer/compare.rs"]
mod compare;
#[path = "peer/deviation.rs"]
mod deviation;
#[path = "peer/mark.rs"]
mod mark;
#[path = "peer/model.rs"]
mod model;
#[path = "peer/nftables.rs"]
mod nftables;
#[path = "peer/node.rs"]
mod node;
#[path = "peer/objects.rs"]
mod objects;
#[path = "peer/population.rs"]
mod population;
#[path = "peer/proxy.rs"]
mod proxy;
#[path = "peer/random.rs"]
mod random;
#[path = "peer/rounds.rs"]
mod rounds;
#[path = "peer/services.rs"]
mod services;
#[path = "peer/slices.rs"]
mod slices;
#[path = "peer/tables.rs"]
mod tables;
#[path = "peer/tally.rs"]
mod tally;
#[path = "peer/values.rs"]
mod values;
