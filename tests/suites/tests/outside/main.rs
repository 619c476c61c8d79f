//! Services for clients outside the node, on the real kernel: two nodes, a router and two clients
//! ([`portmap_harness::topology`]).
//!
//! Each case runs with each [`Variant`] of the nodes and with each IP family. All cases of a variant use one topology, one after
//! the other; each has Services of its own. A failed case may leave a disturbed topology, so the next case makes another one.
//!
//! Needs: root and BPF.

mod backends;
mod clients;
mod datagrams;
mod errors;
mod eviction;
mod flows;
mod lifetimes;
mod odd;
mod policies;
mod sessions;
mod variant;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::{CommandFactory as _, FromArgMatches as _};
use libtest_mimic::{Arguments, Trial};
use portmap_harness::dual_stack::Via;
use portmap_suites::outside_stage::Stage;

use variant::Variant;

/// A case of this suite. It runs for the family of this socket.
pub struct Case {
    name: &'static str,
    run: fn(&mut Stage, Via) -> Result<()>,
}

/// Lists the cases of a module: its functions of these names.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        pub const CASES: &[crate::Case] = &[$(crate::Case { name: stringify!($name), run: $name }),+];
    };
}
use cases;

const MODULES: [(&str, &[Case]); 10] = [
    ("backends", backends::CASES),
    ("clients", clients::CASES),
    ("datagrams", datagrams::CASES),
    ("errors", errors::CASES),
    ("eviction", eviction::CASES),
    ("flows", flows::CASES),
    ("lifetimes", lifetimes::CASES),
    ("odd", odd::CASES),
    ("policies", policies::CASES),
    ("sessions", sessions::CASES),
];

fn main() -> ExitCode {
    let (arguments, filters) = arguments();
    let variants: Vec<Arc<Variant>> = Variant::all().into_iter().map(Arc::new).collect();
    let cases = MODULES.into_iter().flat_map(|(module, cases)| cases.iter().map(move |case| (module, case)));
    let mut trials: Vec<Trial> = cases.flat_map(|(module, case)| trials(module, case, &variants)).collect();
    let fits = |name: &str, filter: &String| if arguments.exact { name == filter } else { name.contains(filter) };
    trials.retain(|trial| filters.is_empty() || filters.iter().any(|filter| fits(trial.name(), filter)));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The arguments of a test program, and its filters. Any number of filters may be given, as in other suites.
fn arguments() -> (Arguments, Vec<String>) {
    let command = Arguments::command().mut_arg("filter", |filter| filter.num_args(0..));
    let matches = command.get_matches();
    let filters = matches.get_many("filter").into_iter().flatten().cloned().collect();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    (Arguments { filter: None, ..arguments }, filters)
}

/// The tests of a case. Neighbours differ in the variant, so that they can run at the same time.
fn trials(module: &str, case: &Case, variants: &[Arc<Variant>]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (family, via) in [("ipv4", Via::V4), ("ipv6", Via::V6)] {
        for variant in variants {
            let name = format!("{module}::{}::{family}::{}", case.name, variant.name());
            let (variant, run) = (Arc::clone(variant), case.run);
            trials.push(Trial::ignorable_test(name, move || variant.run(run, via)));
        }
    }
    trials
}
