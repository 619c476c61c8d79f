//! portmap: the translation of Service ports to pod ports inside `connect()`.
//!
//! A Kubernetes event passes through `source` → `store` → `resolve` → `plan` → `apply` → `maps`. `agent` is the loop that runs
//! these stages; `docs/architecture.md` explains them.

// Shared by the stages: the domain types, collections, error texts and the kernel.
mod collections;
pub mod error_text;
pub mod kernel;
pub mod model;

// The stages, in the order in which an event passes through them.
pub mod apply;
pub mod maps;
pub mod plan;
pub mod resolve;
pub mod source;
pub mod store;

// The agent, the BPF programs, the HTTP servers, and the data of the subcommands.
pub mod agent;
pub mod datapath;
pub mod inspect;
pub mod serve;
