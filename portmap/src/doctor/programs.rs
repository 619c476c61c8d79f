//! The programs of portmap, and programs of other software on the same hooks.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd as _,
};

use anyhow::{Context, Result};

use super::{Check, shorten};
use crate::{
    datapath::{
        attach::{self, PROGRAMS},
        cgroup::Cgroup,
        devices,
    },
    kernel::{
        bpf::query::{CgroupHook, program_names, programs_of_cgroup, programs_of_device},
        devices::names,
        tc::{Direction, Filters},
    },
    maps::{devices::DeviceMap, pin::Pins},
};

const NAME: &str = "programs";

/// The checks of the programs at the cgroup's hooks. `cgroup`: the cgroup that the agent should serve.
pub fn of_cgroup(pins: &Pins, cgroup: &Cgroup) -> Result<Vec<Check>> {
    let (mut missing, mut elsewhere, mut own) = (Vec::new(), Vec::new(), BTreeSet::new());
    for program in PROGRAMS {
        match attach::attachment(pins, program)? {
            None | Some((0, _)) => missing.push(program),
            Some((id, program_id)) => {
                own.insert(program_id);
                if id != cgroup.id {
                    elsewhere.push(program);
                }
            }
        }
    }
    let path = cgroup.path.display();
    let mut checks = vec![if !missing.is_empty() {
        let missing = missing.join(", ");
        Check::not_ok(
            NAME,
            format!("{missing} are not attached; a running agent attaches them or logs the reason: portmap run"),
        )
    } else if elsewhere.is_empty() {
        Check::ok(NAME, format!("all {} programs are attached to {path}", PROGRAMS.len()))
    } else {
        Check::note(
            NAME,
            format!("the programs are attached to another cgroup than {path}: they serve only processes below it"),
        )
    }];
    let others = others_of_cgroup(cgroup, &own)?;
    if !others.is_empty() {
        checks.push(Check::note(
            NAME,
            format!(
                "other software has programs on the same hooks: {}; if they translate Services too, the first one to run decides",
                shorten(&others)
            ),
        ));
    }
    Ok(checks)
}

/// The programs of other software, each as `NAME (HOOK)`.
fn others_of_cgroup(cgroup: &Cgroup, own: &BTreeSet<u32>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for hook in PROGRAMS {
        let Some(attach_type) = CgroupHook::named(hook) else { continue };
        let programs = programs_of_cgroup(cgroup.directory.as_fd(), attach_type)
            .with_context(|| format!("failed to list the programs at {hook} of {}", cgroup.path.display()))?;
        found.extend(programs.into_iter().filter(|program| !own.contains(program)).map(|program| (program, hook)));
    }
    let names = if found.is_empty() { BTreeMap::new() } else { program_names() };
    Ok(found.into_iter().map(|(program, hook)| format!("{} ({hook})", name(&names, program))).collect())
}

/// The checks of the programs at the network devices in DEVICES, in the thread's network namespace, which must be the agent's.
pub fn of_devices(pins: &Pins) -> Result<Vec<Check>> {
    let (entries, devices) = (DeviceMap::open(pins)?.entries()?, names()?);
    let (mut lost, mut others, mut count) = (Vec::new(), Vec::new(), 0_usize);
    for (index, _) in entries {
        let Some(device) = devices.get(&index) else { continue };
        count += 1;
        if devices::attachment(pins, index)?.is_none() {
            lost.push(device.clone());
        }
        others.extend(others_of_device(pins, index)?.into_iter().map(|program| format!("{program} ({device})")));
    }
    let mut checks = vec![if count == 0 {
        Check::ok("devices", "no network device is chosen: clients outside the node are not served")
    } else if lost.is_empty() {
        Check::ok("devices", format!("{count} network devices have their programs"))
    } else {
        Check::not_ok(
            "devices",
            format!("{} have lost their programs; the agent attaches them again or logs the reason", shorten(&lost)),
        )
    }];
    if !others.is_empty() {
        checks.push(Check::note("devices", format!("other software has programs at the devices: {}", shorten(&others))));
    }
    Ok(checks)
}

/// The names of programs of other software at a device: by TCX links, and by filters of tc.
fn others_of_device(pins: &Pins, index: u32) -> Result<Vec<String>> {
    const FAILED: &str = "failed to list the programs at a network device";
    let (own, filters) = (devices::own_programs(pins, index)?, Filters::open().context(FAILED)?);
    let mut others = Vec::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        let programs = programs_of_device(index, direction).context(FAILED)?;
        let programs: Vec<u32> = programs.into_iter().filter(|program| !own.contains(program)).collect();
        let names = if programs.is_empty() { BTreeMap::new() } else { program_names() };
        others.extend(programs.into_iter().map(|program| name(&names, program)));
        let found = filters.list(index, direction).context(FAILED)?;
        others.extend(found.into_iter().map(|filter| filter.name).filter(|name| !devices::is_own_filter(name)));
    }
    Ok(others)
}

fn name(names: &BTreeMap<u32, String>, program: u32) -> String {
    match names.get(&program) {
        Some(name) if !name.is_empty() => name.clone(),
        Some(_) | None => format!("program {program}"),
    }
}
