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
// 1. Objects as events.
pub mod source;

// 2. The latest version of each object.
pub mod store;

// 3. The desired table.
pub mod resolve;

// 4. The writes from the installed to the desired table.
pub mod plan;

// 5. The writes, carried out.
pub mod apply;

// 6. The kernel's maps.
pub mod maps;

// The agent, the BPF programs, the HTTP servers, and the data of the subcommands.
pub mod agent;
pub mod datapath;
pub mod inspect;
pub mod serve;
