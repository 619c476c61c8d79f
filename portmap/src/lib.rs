//! portmap: Service ports become pod ports inside `connect()`.
//!
//! A Kubernetes event is followed in this order: `source` → `store` → `resolve` → `plan` → `apply` → `maps`, with the table of
//! `table` between resolve and plan. `agent` is the loop that names these stages; `docs/architecture.md` walks through them.

pub mod agent;
pub mod apply;
mod collections;
pub mod datapath;
pub mod descriptors;
pub mod desired;
pub mod encode;
mod exhaustion;
pub mod health;
pub mod maps;
pub mod memory;
pub mod message;
pub mod network;
pub mod node_ports;
pub mod object;
pub mod plan;
mod privileges;
pub mod resolve;
pub mod serve;
pub mod source;
pub mod store;
pub mod table;
mod uptime;
pub mod view;
