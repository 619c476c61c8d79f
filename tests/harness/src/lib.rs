//! The harness of the end-to-end tests, the demo and the benchmarks: pods in network namespaces, and a real control plane.
//! The kernel and the API server are never mocked.
//!
//! The program `portmap-pod` is part of the harness. It runs in the pods, as their server and as their client.
#![forbid(unsafe_code)]

pub mod agent;
pub mod clock;
pub mod control_plane;
pub mod dual_stack;
pub mod go_program;
pub mod kernel;
pub mod links;
pub mod listen;
pub mod patience;
pub mod pod_bench;
pub mod pod_client;
pub mod pod_dns;
pub mod pod_flood;
pub mod pod_hammer;
pub mod pod_lookups;
pub mod pod_problem;
pub mod pod_process;
pub mod pod_server;
pub mod pod_share;
pub mod pod_socket;
pub mod pod_wire;
pub mod process;
pub mod random;
pub mod running;
pub mod say;
pub mod topology;
pub mod usage;
pub mod wire;
pub mod worker;
pub mod world;
