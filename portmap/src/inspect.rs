//! The rows that `portmap resolve`, `portmap services` and `portmap flows` show.

pub mod flows;
pub mod table;
