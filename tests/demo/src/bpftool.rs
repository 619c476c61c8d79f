//! The step that looks up a Service in the BPF maps with bpftool: frontend → service → backends.

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

/// Follows the Service `web` through the maps to its backends. Fails unless they are those of the manifests.
pub fn entries(stage: &mut Stage, screen: Screen) -> Result<String> {
    let (_, port) = stage.examples.port("web")?;
    let maps = PinnedMaps { pins: Pins::new(stage.world.bpffs()).set(), screen };
    let service = maps.frontend(&port)?;
    let (first, count) = maps.backend_range(service)?;
    let mut found = (first..first + count).map(|index| maps.backend(index)).collect::<Result<Vec<_>>>()?;
    found.sort_unstable();
    let wanted: Vec<(IpAddr, u64)> =
        port.backends.iter().map(|backend| (backend.address.ip(), backend.listen.port.into())).collect();
    ensure!(found == wanted, "expected the backends {wanted:?}");
    screen.line("", "If only one portmap runs, the name is enough: bpftool map dump name FRONTENDS_V4")?;
    Ok(format!("frontend {} → service {service} → {count} backends, from index {first} on", port.frontend()))
}

/// The directory of the pinned maps. Each read prints its bpftool command.
struct PinnedMaps {
    pins: PathBuf,
    screen: Screen,
}

impl PinnedMaps {
    /// Finds a frontend in `FRONTENDS_V4`, and returns the index of its entry in SERVICES. Prints only this entry of the map,
    /// and the number of its other entries.
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

    /// The index of the first backend and the number of backends of an entry in SERVICES, for clients inside the cluster.
    fn backend_range(&self, service: u64) -> Result<(u64, u64)> {
        let value = self.lookup("SERVICES", service)?;
        let inside = &value["inside"];
        let shown = (named(inside, &["first", "count"]), named(&value, &["id"]));
        screen::output(&format!(r#"value  "inside": {{{}}}, {}"#, shown.0, shown.1))?;
        Ok((number(inside, "first")?, number(inside, "count")?))
    }

    /// The address and port of the backend at an index.
    fn backend(&self, index: u64) -> Result<(IpAddr, u64)> {
        let value = self.lookup("BACKENDS_V4", index)?;
        show("value", &value, &["address", "port", "flags", "endpoint"])?;
        let octets: [u8; 4] = serde_json::from_value(value["address"].clone()).context("expected an address of four bytes")?;
        Ok((Ipv4Addr::from(octets).into(), number(&value, "port")?))
    }

    fn lookup(&self, map: &str, index: u64) -> Result<Value> {
        let found = self.bpftool("lookup", map, Some(u32::try_from(index)?))?;
        Ok(found["formatted"]["value"].clone())
    }

    /// Runs bpftool with JSON output. The shown command, without `--json`, prints the same entries on many lines.
    fn bpftool(&self, action: &str, map: &str, index: Option<u32>) -> Result<Value> {
        let pin = self.pins.join(map).display().to_string();
        let key = index.map(|index| index.to_ne_bytes().map(|byte| byte.to_string()).join(" "));
        let arguments = format!("map {action} pinned {pin}{}", key.map(|key| format!(" key {key}")).unwrap_or_default());
        self.screen.command(&format!("bpftool {arguments}"))?;
        let json = output(Command::new("bpftool").arg("--json").args(arguments.split(' ')))
            .context("failed to read a map with bpftool; install it (Debian: apt install bpftool)")?;
        serde_json::from_str(&json).context("failed to parse the output of bpftool")
    }
}

/// Prints the given fields of a key or value on one line.
fn show(label: &str, value: &Value, fields: &[&str]) -> Result<()> {
    Ok(screen::output(&format!("{label:<5}  {}", named(value, fields)))?)
}

fn named(value: &Value, fields: &[&str]) -> String {
    fields.iter().map(|field| format!(r#""{field}": {}"#, value[field])).collect::<Vec<_>>().join(", ")
}

fn number(value: &Value, field: &str) -> Result<u64> {
    value[field].as_u64().with_context(|| format!("expected a field `{field}` in {value}; bpftool must support BTF"))
}
