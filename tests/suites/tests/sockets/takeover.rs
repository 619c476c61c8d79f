//! An agent replaces an earlier agent: with other sizes of maps, with another version of the tables, and with `--wait`. Clients
//! are served without interruption.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portmap_harness::agent::Agent;
use portmap_harness::listen::Protocol;
use portmap_harness::say;
use portmap_suites::service_objects::{PORT, Service, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::{Stage, Transport, answer, left_alone, who};
use serde_json::json;

use crate::attach::{expect_all, expect_none};

/// With either of these arguments, an agent cannot use the maps of an agent without arguments.
const SMALL: [&str; 2] = ["--max-services", "1000"];
const OTHER_VERSION: [&str; 2] = ["--abi-version", "901"];

fn stage(name: &str) -> Result<Stage> {
    let mut stage = Stage::new(name, &["a"], &[])?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods))])?;
    Ok(stage)
}

/// The directories with pinned maps, as `<abi version>/<number>`, sorted.
fn sets(bpffs: &Path) -> Result<Vec<String>> {
    let list = |directory: &Path| -> Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(directory) {
            // The directory may be removed while it is listed.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("failed to list {}", directory.display()))?,
        };
        Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
    };
    let mut sets = Vec::new();
    for version in list(bpffs)? {
        for set in list(&version)? {
            sets.push(set.strip_prefix(bpffs)?.display().to_string());
        }
    }
    sets.sort();
    Ok(sets)
}

/// Whether the program can use another version of the tables, as only builds for tests can. Otherwise says that this is skipped.
fn takes_versions(stage: &Stage) -> Result<bool> {
    let output = stage.agent.portmap(&[&["status"], &OTHER_VERSION[..]].concat())?;
    let is_unknown = String::from_utf8_lossy(&output.stderr).contains("unexpected argument");
    if is_unknown {
        say::skipped("another version of the tables", "the program is no build for tests");
    }
    Ok(!is_unknown)
}

/// Before and after each take-over, open and new sockets reach the Service. Open sockets keep showing its address.
#[test]
fn a_new_set_takes_over_without_interruption() -> Result<()> {
    let mut stage = stage("takeover")?;
    let process = stage.process()?;
    let version = portmap_common::ABI_VERSION;
    let open = Via::ALL.iter().flat_map(|via| [Protocol::Tcp, Protocol::Udp].map(|protocol| (*via, protocol)));
    let open = open.map(|(via, protocol)| Ok((via, process.connected(cluster_ip(1).at(via, PORT), protocol)?)));
    let open = open.collect::<Result<Vec<_>>>()?;
    let unconnected = process.open_for(cluster_ip(1).at(Via::V4, PORT), Protocol::Udp)?;
    let mut steps = vec![(&SMALL[..], format!("{version}/1")), (&[][..], format!("{version}/2"))];
    if takes_versions(&stage)? {
        steps.extend([(&OTHER_VERSION[..], "901/0".to_owned()), (&[], format!("{version}/0"))]);
    }
    for (arguments, set) in steps {
        unconnected.ask_at(cluster_ip(1).at(Via::V4, PORT))?;
        stage.agent.stop(Signal::SIGTERM)?;
        stage.agent = Agent::start(&stage.world, arguments)?;
        expect_all(&stage.world)?;
        // The agent removes the maps of the previous agent last, so this may take a moment.
        let bpffs = stage.world.bpffs();
        stage.agent.wait_until(&format!("{set} is the only set"), |_| Ok(sets(bpffs)? == [set.as_str()]))?;
        for via in Via::ALL {
            let address = cluster_ip(1).at(via, PORT);
            for transport in Transport::ALL {
                assert_eq!(who(&process, transport, address), Ok(answer("a", transport)), "{arguments:?}");
            }
        }
        for (via, socket) in &open {
            assert_eq!(socket.peer(), Ok(cluster_ip(1).at(*via, PORT)), "{arguments:?}");
            socket.ask()?;
        }
        let answered = unconnected.ask_at(cluster_ip(1).at(Via::V4, PORT))?;
        assert_eq!(answered.source, Some(cluster_ip(1).at(Via::V4, PORT)), "{arguments:?}");
    }
    Ok(())
}

/// The maps of the previous agent stay in use until the new agent is synced.
#[test]
fn an_agent_that_is_not_synced_leaves_the_other_set_in_force() -> Result<()> {
    let mut stage = stage("unfilled")?;
    let process = stage.process()?;
    let ask = || who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT));
    stage.agent.stop(Signal::SIGTERM)?;
    let arguments = ["--kubeconfig".to_owned(), unreachable_cluster(&stage)?];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(SMALL).collect();
    stage.agent = Agent::spawn_in_cluster(&stage.world, &arguments)?;
    let second = sets_of(&mut stage, 2)?;
    assert_eq!(ask(), Ok(answer("a", Transport::Tcp)));
    expect_all(&stage.world)?;
    // The end of the unsynced agent changes nothing. The next agent removes the maps that it left unfinished.
    stage.agent.stop(Signal::SIGKILL)?;
    assert_eq!(ask(), Ok(answer("a", Transport::Tcp)));
    stage.agent = Agent::start(&stage.world, &[])?;
    assert_eq!(sets(stage.world.bpffs())?, second[..1]);
    assert_eq!(ask(), Ok(answer("a", Transport::Tcp)));
    Ok(())
}

/// Waits until there are `count` directories with pinned maps, and returns them.
fn sets_of(stage: &mut Stage, count: usize) -> Result<Vec<String>> {
    let bpffs = stage.world.bpffs();
    stage.agent.wait_until(&format!("there are {count} sets"), |_| Ok(sets(bpffs)?.len() == count))?;
    sets(bpffs)
}

/// Writes a kubeconfig for an API server that is not reachable. Returns its path.
fn unreachable_cluster(stage: &Stage) -> Result<String> {
    let path = stage.world.directory().join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "users": [{"name": "u", "user": {}}],
    });
    fs::write(&path, config.to_string())?;
    Ok(path.display().to_string())
}

#[test]
fn subcommands_name_the_version_of_other_tables() -> Result<()> {
    let mut stage = stage("version")?;
    if !takes_versions(&stage)? {
        return Ok(());
    }
    stage.agent.stop(Signal::SIGTERM)?;
    let output = stage.agent.portmap(&[&["status"], &OTHER_VERSION[..]].concat())?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("another version") && text.contains("portmap run"), "{text}");
    Ok(())
}

#[test]
fn a_second_agent_refuses_or_waits() -> Result<()> {
    let mut stage = stage("wait")?;
    let first = stage.agent.id();
    let mut refused = Agent::spawn(&stage.world, &[])?;
    let error = refused.wait_until("never", |_| Ok(false)).map_err(|error| format!("{error:#}")).err().unwrap_or_default();
    assert!(error.contains(&format!("process {first}")) && error.contains("--wait"), "{error}");
    let mut second = Agent::spawn(&stage.world, &["--wait"])?;
    second.wait_until("it waits", |agent| Ok(agent.log().contains("waiting for its end")))?;
    stage.agent.stop(Signal::SIGKILL)?;
    let pid = second.id().to_string();
    second.wait_until("the second agent has taken over", |agent| {
        let output = agent.portmap(&["status"])?;
        Ok(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(&pid))
    })?;
    expect_all(&stage.world)?;
    stage.agent = second;
    Ok(())
}

#[test]
fn cleanup_on_exit_removes_everything() -> Result<()> {
    let mut stage = Stage::new("leave-nothing", &["a"], &["--cleanup-on-exit"])?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods))])?;
    let process = stage.process()?;
    assert_eq!(who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT)), Ok(answer("a", Transport::Tcp)));
    let status = stage.agent.stop(Signal::SIGTERM)?;
    ensure!(status.success(), "{status}; {}", stage.agent.log());
    expect_none(&stage.world)?;
    assert!(!stage.world.bpffs().exists());
    assert_eq!(who(&process, Transport::Tcp, cluster_ip(1).at(Via::V4, PORT)), left_alone());
    Ok(())
}
