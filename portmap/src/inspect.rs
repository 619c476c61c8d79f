//! The rows that `portmap resolve`, `portmap services`, `portmap flows` and `portmap trace` show.

pub mod flows;
pub mod table;
pub mod trace;
