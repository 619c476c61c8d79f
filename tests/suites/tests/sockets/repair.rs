//! Another program changes the kernel's tables or detaches a program: the agent notices, repairs and counts it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portmap_harness::agent::Agent;
use portmap_suites::service_objects::{PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::{Stage, Transport, answer, eventually, who};
use serde_json::{Value, json};

use crate::attach::expect_all;

/// Starts an agent that compares the tables every second, with a Service that has affinity, source ranges and all kinds of
/// addresses.
fn stage(name: &str) -> Result<Stage> {
    let mut stage = Stage::new(name, &["a"], &["--compare-interval", "1"])?;
    let ranges = [format!("{}/32", stage.client.ipv4()), format!("{}/128", stage.client.ipv6())];
    let spec = json!({"sessionAffinity": "ClientIP", "loadBalancerSourceRanges": ranges});
    stage.apply(&[Service::new("web", 1).exposed(1).spec(spec).endpoints(endpoints(&stage.pods))])?;
    Ok(stage)
}

/// Runs bpftool, and returns its JSON output.
fn bpftool(arguments: &[&str]) -> Result<Value> {
    let output = Command::new("bpftool").arg("-j").args(arguments).output().context("failed to run bpftool")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "bpftool {arguments:?} failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    if text.trim().is_empty() { Ok(Value::Null) } else { serde_json::from_str(&text).context("bpftool prints no JSON") }
}

/// The path of the pin of a map or link. NUMBERS is in the directory of the notes on sockets, and the agent here has only the
/// set of maps 0.
fn pin(stage: &Stage, name: &str) -> String {
    if name == "NUMBERS" {
        let directory = format!("sockets-{}", portmap_common::SOCKETS_VERSION);
        return stage.world.bpffs().join(directory).join(name).display().to_string();
    }
    stage.world.bpffs().join(portmap_common::ABI_VERSION.to_string()).join("0").join(name).display().to_string()
}

/// The bytes of an entry's key or value, as arguments of bpftool.
fn bytes(entry: &Value, part: &str) -> Vec<String> {
    let bytes = entry[part].as_array().into_iter().flatten();
    bytes.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Reads only the first entry, because arrays are large and some machines are slow.
fn first_entry(map: &str) -> Result<Value> {
    let next = bpftool(&["map", "getnext", "pinned", map]).with_context(|| format!("{map} is empty"))?;
    let key = bytes(&next, "next_key");
    let arguments = ["map", "lookup", "pinned", map, "key"].into_iter().chain(key.iter().map(String::as_str));
    bpftool(&arguments.collect::<Vec<_>>())
}

/// Deletes the first entry of a hash map.
fn delete(map: &str) -> Result<()> {
    let key = bytes(&first_entry(map)?, "key");
    let arguments = ["map", "delete", "pinned", map, "key"].into_iter().chain(key.iter().map(String::as_str));
    bpftool(&arguments.collect::<Vec<_>>()).map(drop)
}

/// Inverts every bit of the value of the first entry.
fn overwrite(map: &str) -> Result<()> {
    overwrite_entry(map, &first_entry(map)?)
}

/// Inverts every bit of the values of all entries of a hash map.
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
    let count = notes.filter_map(|note| note.strip_suffix(" writes undid changes of the tables by other programs"));
    Ok(count.filter_map(|count| count.parse::<u64>().ok()).sum())
}

/// Deletes an entry of a hash map, and waits for the repair.
pub fn expect_repaired(stage: &Stage, map: &str) -> Result<()> {
    let last = repairs(stage)?;
    delete(&pin(stage, map))?;
    eventually(&format!("{map} is repaired"), || Ok((repairs(stage)? > last).then_some(())))
}

/// Changes the map whose pin has this path.
type Change = fn(&str) -> Result<()>;

/// Changes of the maps. `overwrite` changes the first value of an array, `delete` the first entry of a hash map, and
/// `overwrite_all` all its entries. BACKENDS and SERVICES come first, because a later repair may move their entries.
const TURNED: [(&str, Change); 19] = [
    ("BACKENDS_V4", overwrite),
    ("BACKENDS_V6", overwrite),
    ("SERVICES", overwrite),
    ("FRONTEND_PORTS", overwrite),
    ("FRONTENDS_V4", delete),
    ("FRONTENDS_V4", overwrite_all),
    ("FRONTENDS_V6", overwrite_all),
    ("NAMES", delete),
    ("NAMES", overwrite_all),
    ("ENDPOINTS_V4", delete),
    ("ENDPOINTS_V4", overwrite_all),
    ("ENDPOINTS_V6", overwrite_all),
    ("MEMBERS", delete),
    ("MEMBERS", overwrite_all),
    ("SOURCE_RANGES_V4", overwrite_all),
    ("SOURCE_RANGES_V6", overwrite_all),
    ("PREFIXES_V4", overwrite),
    ("PREFIXES_V6", overwrite),
    ("NUMBERS", overwrite),
];

/// Map, key and value of invalid entries, in decimal bytes. They have an unknown protocol, a padding byte that is not 0, or a
/// source range whose prefix ends within the id.
const FOREIGN: [(&str, &str, &str); 6] = [
    ("FRONTENDS_V4", "10 0 0 1  80 0  7 0", "0 0 0 0 0 0 0 0"),
    ("FRONTENDS_V4", "10 96 0 1  80 0  6 1", "0 0 0 0 0 0 0 0"),
    ("FRONTENDS_V6", "253 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1  80 0  6 1", "0 0 0 0 0 0 0 0"),
    ("MEMBERS", "0 0 0 0 0 0 0 0  0 0 0 0 0 0 0 0  0 0 0 0  1 0 0 0", "1"),
    ("SOURCE_RANGES_V4", "8 0 0 0  0 0 0 0 0 0 0 0  0 0 0 0", "1"),
    ("SOURCE_RANGES_V6", "0 0 0 0  0 0 0 0 0 0 0 0  0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0", "1"),
];

/// Inserts an entry of [`FOREIGN`], which has an invalid key.
fn insert(stage: &Stage, (map, key, value): (&str, &str, &str)) -> Result<()> {
    let pin = pin(stage, map);
    let mut arguments = vec!["map", "update", "pinned", &pin, "key"];
    arguments.extend(key.split_whitespace());
    arguments.push("value");
    arguments.extend(value.split_whitespace());
    bpftool(&arguments).map(drop)
}

#[test]
fn changed_tables_are_repaired_and_counted() -> Result<()> {
    let mut stage = stage("repair")?;
    let before = stage.agent.services()?;
    let process = stage.process()?;
    let mut last = repairs(&stage)?;
    let mut expect = |what: &str, change: &dyn Fn() -> Result<()>| -> Result<()> {
        change().with_context(|| what.to_owned())?;
        // A change may need several calls of bpftool. A comparison between them repairs only the first entries.
        last = eventually(&format!("{what} is repaired"), || {
            let count = repairs(&stage)?;
            Ok((count > last && stage.agent.services()? == before).then_some(count))
        })?;
        for transport in Transport::ALL {
            let met = who(&process, transport, cluster_ip(1).at(Via::V4, PORT));
            assert_eq!(met, Ok(answer("a", transport)), "{what}");
        }
        Ok(())
    };
    for (map, change) in TURNED {
        expect(map, &|| change(&pin(&stage, map)))?;
    }
    for foreign in FOREIGN {
        expect(&format!("{foreign:?}"), &|| insert(&stage, foreign))?;
    }
    stage.agent.wait_until("the repair is logged", |agent| Ok(agent.log().contains("another program had changed the tables")))
}

/// An agent starts on tables that were changed while none ran, and repairs them.
#[test]
fn an_agent_starts_on_changed_tables() -> Result<()> {
    let mut stage = stage("changed")?;
    let before = stage.agent.services()?;
    stage.agent.stop(Signal::SIGKILL)?;
    for (map, change) in TURNED.into_iter().filter(|(map, _)| *map != "FRONTENDS_V4") {
        change(&pin(&stage, map)).with_context(|| map.to_owned())?;
    }
    FOREIGN.into_iter().try_for_each(|foreign| insert(&stage, foreign))?;
    stage.agent = Agent::start(&stage.world, &[])?;
    stage.agent.wait_until("the tables are right", |agent| Ok(agent.services()? == before))?;
    let process = stage.process()?;
    for transport in Transport::ALL {
        assert_eq!(who(&process, transport, cluster_ip(1).at(Via::V4, PORT)), Ok(answer("a", transport)));
    }
    Ok(())
}

/// A comparison finds no difference in tables that no other program changed, also while the agent writes.
#[test]
fn tables_that_no_other_program_changed_are_not_repaired() -> Result<()> {
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
        eventually("the program is attached again", || Ok(expect_all_attached(&stage).ok()))?;
        assert_eq!(who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT)), Ok(answer("a", Transport::Tcp)));
    }
    std::fs::remove_file(Path::new(&pin(&stage, "link_sendmsg4")))?;
    eventually("the program is attached again", || Ok(expect_all_attached(&stage).ok()))?;
    stage.agent.wait_until("the attachment is logged", |agent| Ok(agent.log().contains(": attached again")))
}

fn expect_all_attached(stage: &Stage) -> Result<()> {
    let status = stage.agent.portmap(&["status"])?;
    ensure!(status.status.success(), "not healthy");
    expect_all(&stage.world)
}
