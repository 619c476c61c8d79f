//! portmap: the translation of Service ports to pod ports inside `connect()`.
//!
//! A Kubernetes event passes through `source` → `store` → `resolve` → `plan` → `apply` → `maps`. `agent` is the loop that runs
//! these stages; `docs/architecture.md` explains them.

// Shared by the stages: the domain types, collections, error texts and the kernel.
mod collections;
pub mod error_text;
pub mod kernel;
pub mod model;
pub mod parallel;

// The stages, in the order in which an event passes through them.
// 1. Lists and watches objects, and sends events.
pub mod source;

// 2. Keeps the latest version of each object.
pub mod store;

// 3. Derives the desired table from the objects.
pub mod resolve;

// 4. Plans the writes that turn the installed table into the desired table.
pub mod plan;

// 5. Makes the writes of a plan, in their order.
pub mod apply;

// 6. Reads and writes the kernel's maps.
pub mod maps;

// Around the stages: the agent's loop, the BPF programs, the data of the subcommands, the checks of `portmap doctor`, the rules
// of `portmap lint`, and the HTTP servers.
pub mod agent;
pub mod datapath;
pub mod doctor;
pub mod inspect;
pub mod lint;
pub mod serve;
