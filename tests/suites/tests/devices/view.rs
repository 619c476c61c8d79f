//! The programs at a device, as the kernel's own tools show them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use portmap::maps::pin::Pins;
use portmap_harness::kernel::Features;
use portmap_harness::world::World;
use serde_json::Value;

/// How the agent attaches programs to devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Links (TCX).
    Tcx,
    /// Filters of tc.
    Clsact,
}

/// A direction of packets at a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

/// A program at a device, as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    pub way: Way,
    /// The program's id.
    pub id: u64,
    /// The program's name; for a filter, the name of the filter.
    pub name: String,
}

/// The view of a node's devices.
#[derive(Clone)]
pub struct View {
    pub world: World,
    /// How the agent attaches programs.
    pub way: Way,
}

impl Way {
    /// The ways of this kernel.
    pub fn all() -> Vec<Self> {
        let tcx = Features::here().has_device_links.then_some(Self::Tcx);
        tcx.into_iter().chain([Self::Clsact]).collect()
    }

    /// The name in arguments and in the output of `portmap status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    /// The name of the program in this direction, as [`Node::attached`] shows it.
    pub fn program(self, direction: Direction) -> String {
        match self {
            Self::Tcx => direction.name().to_owned(),
            Self::Clsact => format!("portmap_{}", direction.name()),
        }
    }
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    pub fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }
}

impl View {
    /// The programs at a device in the order in which they run: links first, then filters.
    pub fn attached(&self, device: &str, direction: Direction) -> Result<Vec<Attached>> {
        let mut programs = if Features::here().has_device_links { self.links(device, direction)? } else { Vec::new() };
        programs.extend(self.filters(device, direction)?);
        Ok(programs)
    }

    /// Fails unless each direction of the device has exactly portmap's program.
    pub fn expect_attached(&self, device: &str) -> Result<()> {
        for direction in Direction::ALL {
            let found = self.attached(device, direction)?;
            let is_ours = |it: &Attached| it.way == self.way && it.name == self.way.program(direction);
            ensure!(found.len() == 1 && found.iter().all(is_ours), "{device} {direction:?}: {found:?}");
        }
        Ok(())
    }

    /// Fails if the device has a program.
    pub fn expect_none(&self, device: &str) -> Result<()> {
        for direction in Direction::ALL {
            let found = self.attached(device, direction)?;
            ensure!(found.is_empty(), "{device} {direction:?}: {found:?}");
        }
        Ok(())
    }

    /// Runs `work` on a thread in the node's network namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            self.world.enter()?;
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|_| Err(anyhow!("the thread panicked")))
    }

    /// The id of the pinned link at a device, according to bpftool.
    pub fn link(&self, device: &str, direction: Direction) -> Result<u64> {
        let index = self.index(device)?;
        let pins = Pins::new(self.world.bpffs());
        let pin = pins.link(&format!("{}_{index}", direction.name()));
        let output = Command::new("bpftool").args(["-j", "link", "show", "pinned"]).arg(pin).output()?;
        let link: Value = serde_json::from_slice(&successful(output)?).context("bpftool printed invalid JSON")?;
        link["id"].as_u64().context("the link has no id")
    }

    /// The number of pinned links to devices.
    pub fn pinned_links(&self) -> Result<usize> {
        let names = fs::read_dir(Pins::new(self.world.bpffs()).set())?.map(|entry| Ok(entry?.file_name()));
        let names = names.collect::<Result<Vec<_>>>()?;
        let is_link = |name: &str| Direction::ALL.iter().any(|it| name.starts_with(&format!("link_{}_", it.name())));
        Ok(names.iter().filter(|name| is_link(&name.to_string_lossy())).count())
    }

    /// The name of a loaded program.
    pub fn program_name(id: u64) -> Result<String> {
        let output = Command::new("bpftool").args(["-j", "prog", "show", "id", &id.to_string()]).output()?;
        let program: Value = serde_json::from_slice(&successful(output)?).context("bpftool printed invalid JSON")?;
        Ok(program["name"].as_str().context("the program has no name")?.to_owned())
    }

    /// Pins the program of portmap at a device beside the directory of the agent's pins, until the result is dropped.
    pub fn pin_program(&self, device: &str, direction: Direction) -> Result<ProgramPin> {
        let program = self.attached(device, direction)?.pop().context("the device has no program")?;
        let mut path = self.world.bpffs().as_os_str().to_owned();
        path.push("-program");
        let pin = ProgramPin(path.into());
        let mut command = Command::new("bpftool");
        successful(command.args(["prog", "pin", "id", &program.id.to_string()]).arg(&pin.0).output()?)?;
        Ok(pin)
    }

    /// Runs `tc` in the node's network namespace, and returns its output.
    pub fn tc(&self, arguments: &str) -> Result<Vec<u8>> {
        let output = self.world.command("tc").args(arguments.split(' ')).output().context("failed to run tc")?;
        successful(output).with_context(|| format!("tc {arguments}"))
    }

    fn index(&self, device: &str) -> Result<u64> {
        let output = self.world.command("ip").args(["-j", "link", "show", "dev", device]).output()?;
        let links: Value = serde_json::from_slice(&successful(output)?).context("ip printed invalid JSON")?;
        links[0]["ifindex"].as_u64().context("the device has no index")
    }

    fn links(&self, device: &str, direction: Direction) -> Result<Vec<Attached>> {
        let (_, programs) = self.inside(|| Ok(SchedClassifier::query_tcx(device, direction.attach_type())?))?;
        let attached = |program: &ProgramInfo| Attached {
            way: Way::Tcx,
            id: program.id().into(),
            name: program.name_as_str().unwrap_or_default().to_owned(),
        };
        Ok(programs.iter().map(attached).collect())
    }

    fn filters(&self, device: &str, direction: Direction) -> Result<Vec<Attached>> {
        let output = self.tc(&format!("-j filter show dev {device} {}", direction.name()))?;
        let filters: Vec<Value> = serde_json::from_slice(&output).context("tc printed invalid JSON")?;
        let attached = |filter: &Value| {
            let options = &filter["options"];
            let name = options["bpf_name"].as_str()?.to_owned();
            Some(Attached { way: Way::Clsact, id: options["prog"]["id"].as_u64()?, name })
        };
        Ok(filters.iter().filter_map(attached).collect())
    }
}

/// A pinned program. Dropping this removes the pin.
pub struct ProgramPin(pub PathBuf);

impl Drop for ProgramPin {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            eprintln!("warning: failed to remove {}: {error}", self.0.display());
        }
    }
}

fn successful(output: Output) -> Result<Vec<u8>> {
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(output.stdout)
}
