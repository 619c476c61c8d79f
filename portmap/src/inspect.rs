//! The rows that `portmap resolve`, `portmap services`, `portmap flows`, `portmap trace` and `portmap top` show.

pub mod flows;
pub mod table;
pub mod top;
pub mod trace;
