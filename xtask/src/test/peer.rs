//! `cargo xtask test --peer NAME`: the long form of the suite that compares portmap with another proxy.

use super::suite::Suite;

/// The suite, `tests/tests/peer.rs`.
const SUITE: &str = "peer";
/// Enough for every kind of object to meet every kind of change; the environment may say otherwise.
const LONG_FORM: [(&str, &str); 2] = [("PORTMAP_PEER_SERVICES", "120"), ("PORTMAP_PEER_ROUNDS", "200")];
/// What was compared is printed by a test that passes.
const SHOWN: (&str, &str) = ("RUST_TEST_NOCAPTURE", "1");

/// Another program that does what portmap does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// Kubernetes' own.
    KubeProxy,
}

impl Peer {
    /// Its suite alone, for longer.
    pub fn select(self, suites: Vec<Suite>) -> Vec<Suite> {
        match self {
            Self::KubeProxy => suites.into_iter().filter(|suite| suite.name == SUITE).map(in_long_form).collect(),
        }
    }
}

fn in_long_form(suite: Suite) -> Suite {
    let is_unset = |(name, _): &(&str, _)| std::env::var_os(name).is_none();
    Suite { environment: LONG_FORM.into_iter().filter(is_unset).chain([SHOWN]).collect(), ..suite }
}
