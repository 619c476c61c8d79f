//! The harness of the end-to-end tests, of the demo and of the benchmarks: worlds of pods on one machine, and a real control
//! plane. The kernel and the API server are never mocked.
//!
//! The program `portmap-pod` belongs to it: it is what a world runs in its pods, and how it asks them.
#![forbid(unsafe_code)]

pub mod agent;
pub mod clock;
pub mod control_plane;
pub mod kernel;
pub mod links;
pub mod listen;
pub mod patience;
pub mod pod_bench;
pub mod pod_client;
pub mod pod_dns;
pub mod pod_hammer;
pub mod pod_process;
pub mod pod_server;
pub mod pod_share;
pub mod pod_socket;
pub mod process;
pub mod random;
pub mod say;
pub mod usage;
pub mod worker;
pub mod world;
