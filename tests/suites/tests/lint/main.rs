//! `portmap lint`: golden cases, the examples of `docs/lint.md` and `docs/learn.md`, its outputs, and wrong input.
//!
//! Needs: nothing.

mod cases;
mod docs;
mod harness;
mod input;
mod outputs;
