//! Lines for packets of clients outside the node.

use anyhow::{Result, ensure};
use portmap_harness::dual_stack::Via;
use portmap_harness::listen::Protocol;
use portmap_harness::topology::Firewall;
use portmap_suites::outside_stage::Stage;
use portmap_suites::tracer::{Tracer, expect};
use serde_json::{Value, json};

#[test]
fn a_packet_has_its_client_device_service_and_backend() -> Result<()> {
    let mut stage = Stage::new("trace", Firewall::None, &[])?;
    stage.begin()?;
    let web = stage.publish(vec![stage.endpoint("a")])?;
    let empty = stage.publish(vec![])?;
    let local = stage.publish_with(json!({"externalTrafficPolicy": "Local"}), vec![stage.endpoint("c")])?;
    let tracer = Tracer::start(stage.one(), &["--outside"])?;
    for via in [Via::V4, Via::V6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let frontend = web.node_port(stage.one(), via);
            let socket = stage.client.connected(frontend, protocol)?;
            // Later packets of the connection have no line.
            socket.ask()?;
            socket.ask()?;
            let expected = [
                ("call", "packet".into()),
                ("client", socket.local()?.to_string().into()),
                ("device", "eth0".into()),
                ("frontend", format!("{frontend}/{protocol}").into()),
                ("result", "forwarded".into()),
                ("process", Value::Null),
            ];
            let line = tracer.next()?;
            expect(&line, &expected)?;
            ensure!(line["backend"].as_str().is_some_and(|backend| backend.ends_with(":8080")), "{line}");
            ensure!(line["service"].is_string(), "{line}");
        }
        let frontend = empty.node_port(stage.one(), via);
        ensure!(stage.client.connected(frontend, Protocol::Tcp).is_err(), "a Service without endpoints should refuse");
        expect(&tracer.next()?, &[("frontend", format!("{frontend}/TCP").into()), ("result", "refused".into())])?;
        // No answer comes, so the socket only sends.
        let frontend = local.node_port(stage.one(), via);
        stage.client.connected(frontend, Protocol::Udp)?.send()?;
        expect(&tracer.next()?, &[("frontend", format!("{frontend}/UDP").into()), ("result", "dropped".into())])?;
    }
    Ok(())
}
