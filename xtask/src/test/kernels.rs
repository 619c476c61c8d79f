//! Runs suites on other kernels, in virtual machines without hardware acceleration.
//!
//! [`series`] lists the kernels, and [`fetch`] downloads them from Debian. [`image`] packs the suites and the programs that
//! they call into a ramdisk. [`machine`] boots a kernel with the ramdisk, and [`report`] counts the tests in its output.

mod binaries;
mod fetch;
mod image;
mod machine;
mod report;
mod series;

use std::cmp::Reverse;
use std::sync::{Mutex, mpsc};
use std::thread;

use anyhow::{Context as _, Result, bail};

use self::fetch::Kernel;
use self::machine::Machine;
use self::report::Report;
use self::series::{Extent, SUITES, Series};
use super::tally::Tally;
use crate::screen::Screen;
use crate::setup::{Gap, Purpose};

/// The name that selects the tests on other kernels on the command line, like the name of a suite.
pub const NAME: &str = "kernels";

/// Number of virtual machines that run at the same time. Each has one or two processors.
const PARALLEL: usize = 2;

/// The kernels to boot, and the suites to run on them.
pub struct Matrix {
    series: Vec<&'static Series>,
    /// The suites and filters of the command line, as arguments of portmap-guest; `None` runs the suites of each series.
    plans: Option<Vec<String>>,
    extent: Extent,
}

impl Matrix {
    /// The kernels and suites of a general test run, which take some minutes.
    pub fn quick() -> Self {
        Self { series: Series::of(Extent::Quick), plans: None, extent: Extent::Quick }
    }

    /// The kernels of these names, or all kernels if there are none. Runs the suites and tests of the filters or, without
    /// filters, the full list of suites of each series.
    pub fn chosen(names: &[String], filters: &[String]) -> Result<Self> {
        let chosen = names.iter().map(|name| Series::named(name)).collect::<Result<Vec<_>>>()?;
        let series = if chosen.is_empty() { Series::of(Extent::Full) } else { chosen };
        Ok(Self { series, plans: plans(filters), extent: Extent::Full })
    }

    /// Runs the suites on all kernels of the matrix, and adds failures to `remarks`. If kernels or qemu are missing, a quick
    /// run is skipped, and a full run fails.
    pub fn run_or_skip(&self, gaps: &[Gap], remarks: &mut Vec<String>) -> Result<Tally> {
        let reason = match gaps.iter().find(|gap| gap.purpose == Purpose::Machines) {
            Some(gap) => gap.reason.clone(),
            None => match fetch::obtain(&self.series) {
                Ok(kernels) => return self.run(&kernels, remarks),
                Err(error) => format!("{error:#}"),
            },
        };
        if self.extent == Extent::Full {
            bail!("{reason}");
        }
        let remark = format!("skipped: other kernels ({reason})");
        Screen::Stdout.line(&format!("\n{remark}"));
        remarks.push(remark);
        Ok(Tally { skipped: 1, ..Tally::default() })
    }

    fn run(&self, kernels: &[Kernel], remarks: &mut Vec<String>) -> Result<Tally> {
        let names: Vec<_> = self.series.iter().map(|series| series.name).collect();
        Screen::Stdout.title(&format!("\nkernels {}", names.join(", ")));
        Screen::Stdout
            .line("virtual machines without hardware acceleration take minutes; the output of each follows after its end");
        let suites = binaries::build(&SUITES)?;
        let ramdisk = image::pack(kernels, &suites).context("failed to make the ramdisk of the virtual machines")?;
        let mut machines = Vec::new();
        for (series, kernel) in self.series.iter().zip(kernels) {
            let plans = self.plans.clone().unwrap_or_else(|| series.plans(self.extent));
            machines.extend(Machine::all(series, kernel, &ramdisk, plans)?);
        }
        let mut total = Tally::default();
        run_in_parallel(&machines, |report| {
            total += report.show();
            remarks.extend(report.remark());
        })?;
        Ok(total)
    }
}

/// Converts the filters of the command line to arguments of portmap-guest; `None` without filters.
fn plans(filters: &[String]) -> Option<Vec<String>> {
    let (suites, names): (Vec<_>, Vec<_>) = filters.iter().map(String::as_str).partition(|filter| SUITES.contains(filter));
    let suites = if suites.is_empty() { SUITES.to_vec() } else { suites };
    let plan = |suite: &str| if names.is_empty() { suite.to_owned() } else { format!("{suite}:{}", names.join(",")) };
    (!filters.is_empty()).then(|| suites.into_iter().map(plan).collect())
}

/// Runs the machines, [`PARALLEL`] at a time, and passes each report to `conclude` when its machine has ended.
fn run_in_parallel(machines: &[Machine], mut conclude: impl FnMut(&Report)) -> Result<()> {
    // Machines with the most suites start first, and of those the newest kernels, which are the slowest.
    let mut queue: Vec<&Machine> = machines.iter().rev().collect();
    queue.sort_by_key(|machine| Reverse(machine.suites()));
    let queue = Mutex::new(queue.into_iter());
    let next = || queue.lock().map_or(None, |mut queue| queue.next());
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..PARALLEL {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(machine) = next() {
                    sender.send(machine.run()).ok();
                }
            });
        }
        drop(sender);
        receiver.iter().try_for_each(|report| {
            conclude(&report?);
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_suites_and_parts_of_names() {
        let plans = |filters: &[&str]| plans(&filters.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(plans(&[]), None);
        assert_eq!(plans(&["sockets", "datapath"]), Some(vec!["sockets".into(), "datapath".into()]));
        assert_eq!(plans(&["sockets", "udp::", "names"]), Some(vec!["sockets:udp::,names".into()]));
        assert_eq!(plans(&["udp"]).map(|plans| plans.len()), Some(SUITES.len()));
    }
}
