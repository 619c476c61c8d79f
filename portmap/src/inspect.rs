//! The rows that `portmap resolve` and `portmap services` show: one row per frontend.

pub mod table;
