//! portmap: Service ports become pod ports inside `connect()`.
//!
//! A Kubernetes event is followed in this order: `source` → `store` → `resolve` → `plan` → `apply` → `maps`, with the table of
//! `table` between resolve and plan. `agent` is the loop that names these stages; `docs/architecture.md` walks through them.

// What every stage uses: the objects and domain types, and the host.
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

// The programs; and who runs, serves and shows all this.
pub mod agent;
pub mod datapath;
pub mod inspect;
pub mod serve;
