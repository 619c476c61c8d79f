//! Compares portmap with the real kube-proxy, on one API server with the same random objects.
//!
//! Every round after the first changes some Services or their EndpointSlices, and sometimes the Node's zone. It waits until
//! both proxies have applied the changes. Then it compares kube-proxy's nftables maps with the kernel's tables of portmap. It
//! compares each frontend: backends for clients inside and outside the node, session affinity, source ranges, and refused ports
//! of ClusterIPs. A difference is a failure, unless `docs/kube-proxy.md` gives a reason for it ([`deviation`]).
//!
//! `PORTMAP_PEER_SEED` repeats a run. `PORTMAP_PEER_ROUNDS` is the minimum number of rounds, and `PORTMAP_PEER_SERVICES` is
//! about the number of Services.
//!
//! Needs: root and BPF, control plane.

mod apply;
mod cluster;
mod compare;
mod deviation;
mod dial;
mod drain;
mod mark;
mod migration;
mod model;
mod nftables;
mod node;
mod objects;
mod packets;
mod population;
mod proxy;
mod random;
mod rounds;
mod series;
mod services;
mod slices;
mod tables;
mod tally;
mod values;
