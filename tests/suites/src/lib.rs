//! Modules that several suites use: an environment with pods and an agent, the objects of its Services, and runs of the command.
//!
//! A suite is a directory below `tests`. A module of only one suite is in its directory. The harness that suites, demo and
//! benchmarks share is [`portmap_harness`].
#![forbid(unsafe_code)]

pub mod command;
pub mod outside_answers;
pub mod outside_stage;
pub mod page;
pub mod service_objects;
pub mod service_stage;
pub mod tracer;
