//! `portmap flows` lists the flows that are alive.

use anyhow::{Context as _, Result, ensure};
use portmap_common::{CLIENT_FIN, REPLIED, RESET, UDP};
use portmap_harness::world::Pod;
use portmap_suites::service_objects::{Both, PORT, Service, TARGET_PORT, Via, cluster_ip, endpoints};
use portmap_suites::service_stage::Stage;
use serde_json::Value;

use crate::written::{Flow, Table};
use crate::{at, client, numbers};

/// Steps of the clock since the first and since the last packet of a flow. A virtual machine has not run for long.
const AGE: u32 = 30;
const IDLE: u32 = 10;

const WEB: &str = "10.96.0.1:80/TCP";

fn flows(stage: &Stage, arguments: &[&str]) -> Result<Vec<Value>> {
    let output = stage.agent.portmap(&[&["flows", "-o", "json"], arguments].concat())?;
    ensure!(output.status.success(), "portmap flows failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("portmap flows prints no JSON")
}

/// One field of each row; the empty text where it is absent.
fn field(rows: &[Value], name: &str) -> Vec<String> {
    rows.iter().map(|row| row[name].as_str().unwrap_or_default().to_owned()).collect()
}

/// Writes flows of each state: to Service `web` port 40001 to 40006, to `other` port 40007.
fn write_all(stage: &Stage, pod: &Pod) -> Result<()> {
    let mut table = Table::v4(stage.world.bpffs())?;
    let [web, other] = [1, 2].map(|number| cluster_ip(number).at(Via::V4, PORT));
    let (id, endpoint) = numbers(stage, WEB, at(pod))?;
    let (udp_id, udp_endpoint) = numbers(stage, "10.96.0.1:80/UDP", at(pod))?;
    let flow = |port| Flow { id, endpoint, ..Flow::established(client(port), web, at(pod)) };
    let hidden_behind = Some("10.244.0.1:1024".parse()?);
    table.write(&Flow { hidden_behind, age: AGE, idle: IDLE, ..flow(40_001) })?;
    table.write(&Flow { state: flow(40_002).state | CLIENT_FIN, ..flow(40_002) })?;
    table.write(&Flow { state: flow(40_003).state | RESET, ..flow(40_003) })?;
    table.write(&flow(40_004).expired())?;
    table.write(&Flow { protocol: UDP, id: udp_id, endpoint: udp_endpoint, ..flow(40_005) })?;
    let mut opening = Table::opening_v4(stage.world.bpffs())?;
    opening.write(&Flow { state: REPLIED, ..flow(40_006) })?;
    // A flow that programs have copied to FLOWS is left in OPENING.
    opening.write(&Flow { state: REPLIED, ..flow(40_002) })?;
    let refused = std::net::SocketAddr::new(stage.world.ipv4().into(), 0);
    table.write(&Flow { id: u64::MAX, ..Flow::established(client(40_007), other, refused) })?;
    let both = Both::of(pod);
    let of_v6 =
        Flow::established("[2001:db8::7]:40008".parse()?, cluster_ip(1).at(Via::V6, PORT), both.at(Via::V6, TARGET_PORT));
    Table::v6(stage.world.bpffs())?.write(&Flow { id: u64::MAX, ..of_v6 })
}

#[test]
fn live_flows_are_listed_with_their_services() -> Result<()> {
    let mut stage = Stage::new("flows-list", &["a"], &[])?;
    assert_eq!(flows(&stage, &[])?, Vec::<Value>::new());
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods)), Service::new("other", 2)])?;
    let pod = stage.pods.first().context("no pod")?;
    write_all(&stage, pod)?;
    let rows = flows(&stage, &[])?;
    let clients = ["40001", "40002", "40003", "40006", "40005", "40007"].map(|port| format!("198.51.100.7:{port}"));
    assert_eq!(field(&rows, "client"), [&clients[..], &["[2001:db8::7]:40008".to_owned()]].concat());
    let states = ["established", "closing", "closed", "half-open", "datagrams", "established", "established"];
    assert_eq!(field(&rows, "state"), states);
    let (web, other) = ("default/web", "default/other");
    assert_eq!(field(&rows, "service"), [web, web, web, web, web, other, web]);
    assert_eq!(field(&rows, "port"), ["tcp", "tcp", "tcp", "tcp", "udp", "tcp", "tcp"]);
    let backend = at(pod).to_string();
    let v6 = Both::of(pod).at(Via::V6, TARGET_PORT).to_string();
    assert_eq!(field(&rows, "backend"), [&backend, &backend, &backend, &backend, &backend, "", &v6]);
    assert_eq!(field(&rows, "hiddenBehind"), ["10.244.0.1:1024", "", "", "", "", "", ""]);
    let first = rows.first().context("no rows")?;
    assert_eq!((&first["protocol"], &first["frontend"]), (&"TCP".into(), &WEB.into()));
    let seconds = |name: &str| first[name].as_u64().with_context(|| format!("no {name} in {first}"));
    let (age, idle) = (seconds("ageSeconds")?, seconds("idleSeconds")?);
    // A step has 1.07 seconds.
    assert!(idle >= u64::from(IDLE) && (18..=24).contains(&(age - idle)), "{first}");
    Ok(())
}

#[test]
fn flows_are_selected_by_service_and_client() -> Result<()> {
    let mut stage = Stage::new("flows-filters", &["a"], &[])?;
    stage.apply(&[Service::new("web", 1).endpoints(endpoints(&stage.pods)), Service::new("other", 2)])?;
    write_all(&stage, stage.pods.first().context("no pod")?)?;
    let count = |arguments: &[&str]| Ok::<_, anyhow::Error>(flows(&stage, arguments)?.len());
    assert_eq!(count(&["--service", "web"])?, 6);
    assert_eq!(count(&["--service", "other.default"])?, 1);
    assert_eq!(count(&["--service", "default/other", "--client", "198.51.100.7"])?, 1);
    assert_eq!(count(&["--client", "198.51.100.7"])?, 6);
    assert_eq!(count(&["--client", "2001:db8::7"])?, 1);
    assert_eq!(count(&["--service", "web.elsewhere"])?, 0);
    let output = stage.agent.portmap(&["flows", "--service", "other"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines.first().map(|line| line.join(" ")).as_deref(),
        Some("CLIENT FRONTEND SERVICE BACKEND HIDDEN BEHIND STATE AGE IDLE")
    );
    let row = ["198.51.100.7:40007", "10.96.0.2:80/TCP", "default/other:tcp", "refused", "-", "established"];
    assert_eq!(lines.get(1).map(|line| &line[..row.len()]), Some(&row[..]), "{text}");
    let nothing = stage.agent.portmap(&["flows", "--client", "192.0.2.1"])?;
    assert_eq!(String::from_utf8_lossy(&nothing.stdout), "no flows\n");
    Ok(())
}
