//! The rows that `portmap resolve`, `portmap services`, `portmap flows` and `portmap verify` show.

pub mod differences;
pub mod flows;
pub mod table;
