//! Somebody else changes the kernel's tables, or detaches a program: the agent notices, puts it right, and counts it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::attach::expect_all;
use crate::objects::{PORT, Service, Via, cluster_ip, endpoints};
use crate::stage::{Stage, Transport, answer, eventually, who};

fn stage(name: &str) -> Result<Stage> {
    let mut stage = Stage::new(name, &["a"], &["--compare-interval", "1"])?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods))])?;
    Ok(stage)
}

/// Runs bpftool, and returns what it prints.
fn bpftool(arguments: &[&str]) -> Result<Value> {
    let output = Command::new("bpftool").arg("-j").args(arguments).output().context("failed to run bpftool")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "bpftool {arguments:?} failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    if text.trim().is_empty() { Ok(Value::Null) } else { serde_json::from_str(&text).context("bpftool prints no JSON") }
}

/// The pin of a map or link of the only set.
fn pin(stage: &Stage, name: &str) -> String {
    stage.world.bpffs().join(portmap_common::ABI_VERSION.to_string()).join("0").join(name).display().to_string()
}

/// The bytes of the first key of a map, or of its value, as bpftool takes them.
fn bytes(entry: &Value, part: &str) -> Vec<String> {
    let bytes = entry[part].as_array().into_iter().flatten();
    bytes.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Read without the others: arrays are large, and some machines slow.
fn first_entry(map: &str) -> Result<Value> {
    let next = bpftool(&["map", "getnext", "pinned", map]).with_context(|| format!("{map} is empty"))?;
    let key = bytes(&next, "next_key");
    let arguments = ["map", "lookup", "pinned", map, "key"].into_iter().chain(key.iter().map(String::as_str));
    bpftool(&arguments.collect::<Vec<_>>())
}

/// Deletes the first entry of a hash.
fn delete(map: &str) -> Result<()> {
    let key = bytes(&first_entry(map)?, "key");
    let arguments = ["map", "delete", "pinned", map, "key"].into_iter().chain(key.iter().map(String::as_str));
    bpftool(&arguments.collect::<Vec<_>>()).map(drop)
}

/// Turns every bit of the value of the first entry.
fn overwrite(map: &str) -> Result<()> {
    overwrite_entry(map, &first_entry(map)?)
}

/// Turns every bit of the values of all entries of a hash.
fn overwrite_all(map: &str) -> Result<()> {
    let dump = bpftool(&["map", "dump", "pinned", map])?;
    let entries = dump.as_array().with_context(|| format!("{map} is empty"))?;
    entries.iter().try_for_each(|entry| overwrite_entry(map, entry))
}

fn overwrite_entry(map: &str, entry: &Value) -> Result<()> {
    let (key, value) = (bytes(entry, "key"), bytes(entry, "value"));
    let turned = value.iter().map(|byte| Ok(format!("{:#04x}", !u8::from_str_radix(byte.trim_start_matches("0x"), 16)?)));
    let turned: Vec<String> = turned.collect::<Result<_>>()?;
    let mut arguments = vec!["map", "update", "pinned", map, "key"];
    arguments.extend(key.iter().map(String::as_str));
    arguments.push("value");
    arguments.extend(turned.iter().map(String::as_str));
    bpftool(&arguments).map(drop)
}

fn repairs(stage: &Stage) -> Result<u64> {
    let output = stage.agent.portmap(&["status", "-o", "json"])?;
    let health: Value = serde_json::from_slice(&output.stdout)?;
    let notes = health["notes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let count = notes.filter_map(|note| note.strip_suffix(" writes undid what somebody else had changed in the tables"));
    Ok(count.filter_map(|count| count.parse::<u64>().ok()).sum())
}

/// Takes an entry out of a hash, and waits until it is back.
pub fn expect_repaired(stage: &Stage, map: &str) -> Result<()> {
    let last = repairs(stage)?;
    delete(&pin(stage, map))?;
    eventually(&format!("{map} is repaired"), || Ok((repairs(stage)? > last).then_some(())))
}

/// Something done to the map at a pin.
type Change = fn(&str) -> Result<()>;

#[test]
fn changed_tables_are_repaired_and_counted() -> Result<()> {
    let mut stage = stage("repair")?;
    let before = stage.agent.services()?;
    let process = stage.process()?;
    let changes: [(&str, Change); 8] = [
        ("FRONTENDS_V4", delete),
        ("FRONTENDS_V6", overwrite_all),
        ("SERVICES", overwrite),
        ("BACKENDS_V4", overwrite),
        ("NAMES", delete),
        ("NAMES", overwrite_all),
        ("ENDPOINTS_V4", delete),
        ("ENDPOINTS_V4", overwrite_all),
    ];
    let mut last = 0;
    for (map, change) in changes {
        change(&pin(&stage, map))?;
        // A comparison may come between the changes of one map, and undo the first of them only.
        last = eventually(&format!("{map} is repaired"), || {
            let count = repairs(&stage)?;
            Ok((count > last && stage.agent.services()? == before).then_some(count))
        })?;
        for transport in Transport::ALL {
            let met = who(&process, transport, cluster_ip(1).at(Via::V4, PORT));
            assert_eq!(met, Ok(answer("a", transport)), "{map}");
        }
    }
    stage.agent.wait_until("it is said", |agent| Ok(agent.log().contains("somebody else had changed the tables")))
}

/// A comparison finds nothing to do in tables that nobody else has touched, however much happens.
#[test]
fn nothing_is_repaired_that_is_right() -> Result<()> {
    let mut stage = stage("unrepaired")?;
    let all = endpoints(&stage.pods);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(4);
    while std::time::Instant::now() < until {
        stage.apply(&[Service::new("web", 1).endpoints(all.clone()), Service::new("dns", 2).endpoints(all.clone())])?;
        stage.apply(&[Service::new("web", 1)])?;
    }
    assert_eq!(repairs(&stage)?, 0, "{}", stage.agent.log());
    Ok(())
}

#[test]
fn a_detached_program_is_attached_again() -> Result<()> {
    let mut stage = stage("detached")?;
    let process = stage.process()?;
    for link in ["link_connect4", "link_recvmsg6"] {
        bpftool(&["link", "detach", "pinned", &pin(&stage, link)])?;
        eventually("the program is back", || Ok(expect_all_attached(&stage).ok()))?;
        assert_eq!(who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT)), Ok(answer("a", Transport::Tcp)));
    }
    std::fs::remove_file(Path::new(&pin(&stage, "link_sendmsg4")))?;
    eventually("the program is back", || Ok(expect_all_attached(&stage).ok()))?;
    stage.agent.wait_until("it is said", |agent| Ok(agent.log().contains("detached by somebody else: attached again")))
}

fn expect_all_attached(stage: &Stage) -> Result<()> {
    let status = stage.agent.portmap(&["status"])?;
    ensure!(status.status.success(), "not healthy");
    expect_all(&stage.world)
}
