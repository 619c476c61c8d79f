//! The rows that `portmap resolve` and `portmap services` show.

pub mod table;
