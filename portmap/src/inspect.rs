//! The rows that `portmap resolve`, `portmap services`, `portmap flows`, `portmap verify` and
//! `portmap explain` show.

pub mod differences;
pub mod explain;
pub mod flows;
pub mod table;
