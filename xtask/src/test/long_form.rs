//! Suites that go on for much longer when they are asked for by name: `cargo xtask test --peer NAME` and `--chaos`.

use super::suite::Suite;

/// A suite, and what makes it long; the environment may say otherwise.
type LongForm = (&'static str, &'static [(&'static str, &'static str)]);

/// Enough for every kind of object to meet every kind of change.
const PEER: [LongForm; 1] = [("peer", &[("PORTMAP_PEER_SERVICES", "120"), ("PORTMAP_PEER_ROUNDS", "200")])];

/// Ten minutes of ends and starts, and a minute of changes.
const CHAOS: [LongForm; 2] =
    [("chaos", &[("PORTMAP_CHAOS_SECONDS", "600")]), ("socket_stress", &[("PORTMAP_STRESS_SECONDS", "60")])];

/// Another program that does what portmap does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// Kubernetes' own.
    KubeProxy,
}

/// The suite that compares portmap with another program, alone and longer.
pub fn of_peer(peer: Peer, suites: Vec<Suite>) -> Vec<Suite> {
    match peer {
        Peer::KubeProxy => select(&PEER, suites),
    }
}

/// The suites that let everything happen to the agent, alone and longer.
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
