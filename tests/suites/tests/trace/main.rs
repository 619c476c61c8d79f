//! `portmap trace`, for calls of processes and packets of clients outside the node, and `portmap top`.
//!
//! Needs: root and BPF.

mod calls;
mod end;
mod outside;
mod top;
