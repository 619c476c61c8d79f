//! Selects the suites of `cargo xtask test --peer NAME` and `cargo xtask test --chaos`, and makes them run longer than usual.

use super::suite::Suite;

/// The name of a suite, and the environment variables that make it run longer. A variable of the user's environment has
/// priority.
type LongForm = (&'static str, &'static [(&'static str, &'static str)]);

/// The comparison with another proxy, with enough Services and rounds to combine every kind of object with every kind of
/// change.
const PEER: [LongForm; 1] = [("peer", &[("PORTMAP_PEER_SERVICES", "120"), ("PORTMAP_PEER_ROUNDS", "200")])];

/// Ten minutes in which the agent ends and starts at random, and one minute of changed backends during connections.
const CHAOS: [LongForm; 2] =
    [("chaos", &[("PORTMAP_CHAOS_SECONDS", "600")]), ("socket_stress", &[("PORTMAP_STRESS_SECONDS", "60")])];

/// Another Service proxy to compare portmap with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// kube-proxy of Kubernetes
    KubeProxy,
}

/// The suite that compares portmap with this proxy, in its long form.
pub fn of_peer(peer: Peer, suites: Vec<Suite>) -> Vec<Suite> {
    match peer {
        Peer::KubeProxy => select(&PEER, suites),
    }
}

/// The suites of [`CHAOS`], in their long form.
pub fn of_chaos(suites: Vec<Suite>) -> Vec<Suite> {
    select(&CHAOS, suites)
}

fn select(forms: &[LongForm], suites: Vec<Suite>) -> Vec<Suite> {
    let is_unset = |(name, _): &(&str, &str)| std::env::var_os(name).is_none();
    let in_long_form = |suite: Suite| {
        let (_, environment) = forms.iter().find(|(name, _)| *name == suite.name)?;
        let environment = environment.iter().filter(|variable| is_unset(variable));
        Some(Suite { environment: environment.map(|(name, value)| (*name, value.into())).collect(), ..suite })
    };
    suites.into_iter().filter_map(in_long_form).collect()
}
