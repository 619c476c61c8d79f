//! What the agent sees and does in network namespaces: its own addresses, those of pods, and sockets that have to end.

pub mod addresses;
pub mod bpf;
pub mod descriptors;
pub mod exhaustion;
pub mod heap;
pub mod namespaces;
pub mod privileges;
pub mod routes;
pub mod sock_diag;
pub mod uptime;
