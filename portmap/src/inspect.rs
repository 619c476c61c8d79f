//! The rows that `portmap resolve`, `services`, `flows`, `trace`, `top`, `verify` and `explain` show.

pub mod differences;
pub mod explain;
pub mod flows;
pub mod table;
pub mod top;
pub mod trace;
