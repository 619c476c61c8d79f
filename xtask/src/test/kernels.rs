//! The same suites on other kernels, each booted in a virtual machine without hardware support.
//!
//! [`series`] says which kernels there are, [`fetch`] gets them from Debian, [`image`] packs the suites and all that they call into
//! a ramdisk, [`machine`] boots a kernel with it, and [`report`] makes a tally of what it said.

mod binaries;
mod fetch;
mod image;
mod machine;
mod report;
mod series;

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

/// How the matrix is called among the suites.
pub const NAME: &str = "kernels";

/// Machines at a time. Each has one processor, or two.
const PARALLEL: usize = 2;

/// What to run on which kernels.
pub struct Matrix {
    series: Vec<&'static Series>,
    /// In place of those of each series.
    plans: Option<Vec<String>>,
    extent: Extent,
}

impl Matrix {
    /// What is in every run of the tests: some minutes.
    pub fn quick() -> Self {
        Self { series: Series::of(Extent::Quick), plans: None, extent: Extent::Quick }
    }

    /// On the kernels of these names, or all, everything that can run there; or the suites and tests that the filters select.
    pub fn chosen(names: &[String], filters: &[String]) -> Result<Self> {
        let chosen = names.iter().map(|name| Series::named(name)).collect::<Result<Vec<_>>>()?;
        let series = if chosen.is_empty() { Series::of(Extent::Full) } else { chosen };
        Ok(Self { series, plans: plans(filters), extent: Extent::Full })
    }

    /// Runs all of it; what failed, or could not be had, is remarked.
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
        Screen::Stdout.line("in virtual machines without hardware support: some minutes; each is shown when it has ended");
        let suites = binaries::build(&SUITES)?;
        let ramdisk = image::pack(kernels, &suites).context("failed to make the ramdisk of the virtual machines")?;
        let mut machines = Vec::new();
        for (series, kernel) in self.series.iter().zip(kernels) {
            let plans = self.plans.clone().unwrap_or_else(|| series.plans(self.extent));
            machines.extend(Machine::all(series, kernel, &ramdisk, plans)?);
        }
        let mut total = Tally::default();
        side_by_side(&machines, |report| {
            total += report.show();
            remarks.extend(report.remark());
        })?;
        Ok(total)
    }
}

/// The suites and parts of tests' names that a person gave, as machines are told them; none if none was given.
fn plans(filters: &[String]) -> Option<Vec<String>> {
    let (suites, names): (Vec<_>, Vec<_>) = filters.iter().map(String::as_str).partition(|filter| SUITES.contains(filter));
    let suites = if suites.is_empty() { SUITES.to_vec() } else { suites };
    let plan = |suite: &str| if names.is_empty() { suite.to_owned() } else { format!("{suite}:{}", names.join(",")) };
    (!filters.is_empty()).then(|| suites.into_iter().map(plan).collect())
}

/// Hands the reports on as they come.
fn side_by_side(machines: &[Machine], mut conclude: impl FnMut(&Report)) -> Result<()> {
    // The newest kernels are the slowest: they go first.
    let queue = Mutex::new(machines.iter().rev());
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
