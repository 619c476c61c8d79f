//! The data that the subcommands show: the rows of `portmap resolve` and `portmap services`, and the checks of `portmap status`.

pub mod status;
pub mod table;
