//! The step that follows a Service through the kernel's tables with bpftool alone: frontend → service → backends.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use portmap::maps::pin::Pins;
use portmap_common::TCP;
use serde_json::{Value, json};

use crate::example_stage::{Stage, output};
use crate::port::Port;
use crate::screen::{self, Screen};

/// The same entries, as everyone can see them.
pub fn entries(stage: &mut Stage, screen: Screen) -> Result<String> {
    let (_, port) = stage.examples.port("web")?;
    let tables = Tables { pins: Pins::new(stage.world.bpffs()).set(), screen };
    let service = tables.frontend(&port)?;
    let (first, count) = tables.choice(service)?;
    let mut found = (first..first + count).map(|slot| tables.backend(slot)).collect::<Result<Vec<_>>>()?;
    found.sort_unstable();
    let wanted: Vec<(IpAddr, u64)> =
        port.backends.iter().map(|backend| (backend.address.ip(), backend.listen.port.into())).collect();
    ensure!(found == wanted, "expected the backends {wanted:?}");
    screen.line("", "Where one portmap runs, a name does as well: bpftool map dump name FRONTENDS_V4")?;
    Ok(format!("{} → service {service} → {count} backends from slot {first} on", port.frontend()))
}

/// The pinned maps, each read with a command that is shown.
struct Tables {
    pins: PathBuf,
    screen: Screen,
}

impl Tables {
    /// The number of the service entry that a frontend leads to. Other entries are not shown.
    fn frontend(&self, port: &Port) -> Result<u64> {
        let dump = self.bpftool("dump", "FRONTENDS_V4", None)?;
        let IpAddr::V4(address) = port.address.ip() else { bail!("{} is not IPv4", port.address) };
        let key = json!({"address": address.octets(), "port": port.address.port(), "protocol": TCP, "unused": 0});
        let entries = dump.as_array().map(Vec::as_slice).unwrap_or_default();
        let entry = entries.iter().map(|entry| &entry["formatted"]).find(|entry| entry["key"] == key);
        let entry = entry.with_context(|| format!("expected an entry with the key {key}"))?;
        show("key", &entry["key"], &["address", "port", "protocol"])?;
        show("value", &entry["value"], &["service", "check"])?;
        if let others @ 1.. = entries.len() - 1 {
            screen::output(&format!("(and {others} other entries)"))?;
        }
        number(&entry["value"], "service")
    }

    /// The first slot and the number of backends of a service entry.
    fn choice(&self, service: u64) -> Result<(u64, u64)> {
        let value = self.lookup("SERVICES", service)?;
        let inside = &value["inside"];
        let shown = (named(inside, &["first", "count"]), named(&value, &["id"]));
        screen::output(&format!(r#"value  "inside": {{{}}}, {}"#, shown.0, shown.1))?;
        Ok((number(inside, "first")?, number(inside, "count")?))
    }

    /// Where a slot leads.
    fn backend(&self, slot: u64) -> Result<(IpAddr, u64)> {
        let value = self.lookup("BACKENDS_V4", slot)?;
        show("value", &value, &["address", "port", "flags", "endpoint"])?;
        let octets: [u8; 4] = serde_json::from_value(value["address"].clone()).context("expected an address of four bytes")?;
        Ok((Ipv4Addr::from(octets).into(), number(&value, "port")?))
    }

    fn lookup(&self, map: &str, index: u64) -> Result<Value> {
        let found = self.bpftool("lookup", map, Some(u32::try_from(index)?))?;
        Ok(found["formatted"]["value"].clone())
    }

    /// The command as shown prints the same for people: over many lines, and with the fields that are left out here.
    fn bpftool(&self, action: &str, map: &str, index: Option<u32>) -> Result<Value> {
        let pin = self.pins.join(map).display().to_string();
        let key = index.map(|index| index.to_ne_bytes().map(|byte| byte.to_string()).join(" "));
        let arguments = format!("map {action} pinned {pin}{}", key.map(|key| format!(" key {key}")).unwrap_or_default());
        self.screen.command(&format!("bpftool {arguments}"))?;
        let json = output(Command::new("bpftool").arg("--json").args(arguments.split(' ')))
            .context("failed to look with bpftool; install it (Debian: apt install bpftool)")?;
        serde_json::from_str(&json).context("failed to read what bpftool prints")
    }
}

/// Some fields of a key or value, by their names.
fn show(label: &str, value: &Value, fields: &[&str]) -> Result<()> {
    Ok(screen::output(&format!("{label:<5}  {}", named(value, fields)))?)
}

fn named(value: &Value, fields: &[&str]) -> String {
    fields.iter().map(|field| format!(r#""{field}": {}"#, value[field])).collect::<Vec<_>>().join(", ")
}

fn number(value: &Value, field: &str) -> Result<u64> {
    value[field].as_u64().with_context(|| format!("expected a field `{field}` in {value}; does bpftool know BTF?"))
}
