//! `portmap page`: its answers over HTTP, and the page in a browser.
//!
//! Needs: root and BPF, browser.

mod browser;
mod live;
mod server;
mod serving;
