//! `portmap explain`, `verify`, `trace` and `page` with the objects of a real API server.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Result, ensure};
use portmap_suites::command::{self, Outcome};
use portmap_suites::page::Page;
use portmap_suites::tracer::Tracer;

use crate::cluster::{COMMON_PORT, Cluster, Landing, NAMESPACE, NODE, rows};

const WEB: &str = "web";

#[tokio::test]
async fn commands_read_the_objects_of_a_cluster() -> Result<()> {
    let cluster = Cluster::start("commands").await?;
    let agent = cluster.agent().await?;
    cluster.apply_service(WEB, "http", &COMMON_PORT.to_string()).await?;
    let frontends = cluster.frontends(WEB).await?;
    let landings = [(&cluster.a, COMMON_PORT), (&cluster.b, COMMON_PORT)];
    cluster.await_table(&rows(WEB, "http", &frontends, &landings)).await?;
    let address = frontends[0].to_string();
    explain(&cluster, &address)?;
    verify(&cluster)?;
    trace(&cluster, &frontends, &landings)?;
    page(&cluster, &address)?;
    agent.terminate()
}

/// Runs a command with the kubeconfig of the agent, which may read what the agent may read.
fn run(cluster: &Cluster, words: &[&str]) -> Result<Outcome> {
    let arguments = arguments(cluster);
    command::portmap(&words.iter().copied().chain(arguments.iter().map(String::as_str)).collect::<Vec<_>>())
}

/// The arguments that select the cluster, the node and its tables.
fn arguments(cluster: &Cluster) -> [String; 6] {
    let (kubeconfig, bpffs) = (cluster.kubeconfig().display().to_string(), cluster.world.bpffs().display().to_string());
    ["--node-name".into(), NODE.into(), "--kubeconfig".into(), kubeconfig, "--bpffs".into(), bpffs]
}

fn explain(cluster: &Cluster, address: &str) -> Result<()> {
    for target in [address, &format!("svc/{WEB}.{NAMESPACE}:http")] {
        let found = run(cluster, &["explain", target])?;
        ensure!(found.code == Some(0), "{found:?}");
        for part in ["the tables agree: forward to", "2 of 2 taken", &format!("(pod {NAMESPACE}/pod-a)")] {
            ensure!(found.stdout.contains(part), "{part}: {}", found.stdout);
        }
    }
    let other = address.replace(":80", ":81");
    let found = run(cluster, &["explain", &other])?;
    ensure!(found.code == Some(1) && found.stdout.contains("its ports are 80/TCP (http)"), "{found:?}");
    let found = run(cluster, &["explain", "svc/absent"])?;
    ensure!(found.code == Some(1) && found.stdout.contains("absent"), "{found:?}");
    // As from a workstation: without a node.
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let found = command::portmap(&["explain", address, "--kubeconfig", &kubeconfig, "--bpffs", "/sys/fs/bpf/absent"])?;
    ensure!(found.code == Some(0) && found.stdout.contains("not read, so the objects alone are explained"), "{found:?}");
    Ok(())
}

fn verify(cluster: &Cluster) -> Result<()> {
    let found = run(cluster, &["verify"])?;
    ensure!(found.code == Some(0), "{found:?}");
    Ok(())
}

/// Traces a connection to each frontend: the lines have the names of the pods.
fn trace(cluster: &Cluster, frontends: &[SocketAddr; 2], landings: &[Landing<'_>]) -> Result<()> {
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let tracer = Tracer::start_beside(&cluster.world, &["--kubeconfig", &kubeconfig, "--service", WEB])?;
    cluster.expect_landings(frontends, landings)?;
    for _ in frontends {
        let line = tracer.next()?;
        let address: SocketAddr = line["backend"].as_str().unwrap_or_default().parse()?;
        let pod = landings.iter().map(|(backend, _)| backend).find(|backend| backend.addresses().contains(&address.ip()));
        let name = pod.map(|pod| format!("{NAMESPACE}/{}", pod.name()));
        ensure!(name.is_some() && line["backendPod"].as_str() == name.as_deref(), "{line}");
    }
    Ok(())
}

/// Serves a page from the objects of the cluster, and reads it.
fn page(cluster: &Cluster, address: &str) -> Result<()> {
    let arguments = arguments(cluster);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let page = Page::start(Command::new(command::binary()?), &arguments)?;
    let output = Command::new("curl").args(["--silent", "--fail", "--max-time", "20", &page.url]).output()?;
    let shown = String::from_utf8_lossy(&output.stdout);
    for part in [&format!("{NAMESPACE}/{WEB}"), address.split(':').next().unwrap_or_default(), "pod-a"] {
        ensure!(shown.contains(part), "{part}: {shown}");
    }
    Ok(())
}
