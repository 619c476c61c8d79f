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
mod policies;
mod sessions;
mod variant;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
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

const MODULES: [(&str, &[Case]); 5] = [
    ("backends", backends::CASES),
    ("clients", clients::CASES),
    ("datagrams", datagrams::CASES),
    ("policies", policies::CASES),
    ("sessions", sessions::CASES),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let variants: Vec<Arc<Variant>> = Variant::all().into_iter().map(Arc::new).collect();
    let cases = MODULES.into_iter().flat_map(|(module, cases)| cases.iter().map(move |case| (module, case)));
    // Neighbours in this list differ in the variant, so that they can run at the same time.
    let trials = cases.flat_map(|(module, case)| {
        let variants = &variants;
        [("ipv4", Via::V4), ("ipv6", Via::V6)].into_iter().flat_map(move |(family, via)| {
            variants.iter().map(move |variant| {
                let name = format!("{module}::{}::{family}::{}", case.name, variant.name());
                let (variant, run) = (Arc::clone(variant), case.run);
                Trial::ignorable_test(name, move || variant.run(run, via))
            })
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
