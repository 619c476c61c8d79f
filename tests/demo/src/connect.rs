//! The steps that connect to Services and compare the replies with the manifests.

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use portmap_harness::world::Group;

use crate::example_stage::Stage;
use crate::port::Port;
use crate::screen::Screen;
use crate::spread;

/// Number of connections in a step that shows their distribution.
pub const MANY: u32 = 300;

/// Connects once to a Service port, and shows the pod and targetPort of the reply. Verifies that the pod does not listen on the
/// number of the Service port.
pub fn one(stage: &mut Stage, screen: Screen) -> Result<String> {
    let port = introduce_service(stage, screen, "web")?;
    screen.line("client", &format!("connect({})", port.address))?;
    let answers = stage.ask(Group::Clients, &port, 1)?;
    let reply = answers.replies.keys().next().with_context(|| format!("expected a reply, got {:?}", answers.errors))?;
    screen.line("reply", reply)?;
    let backend = port.backends.iter().find(|backend| backend.to_string() == *reply);
    let backend = backend.with_context(|| format!("expected a reply from one of {:?}", port.backends))?.clone();
    let (number, target) = (port.address.port(), backend.listen.port);
    let on_pod = port.on(backend.address.ip());
    screen.line("client", &format!("connect({}), the same port number on the pod {}", on_pod.address, backend.pod))?;
    expect_error(stage, screen, Group::Clients, &on_pod, Errno::ECONNREFUSED)?;
    screen.line("", &format!("Nobody listens on port {number} in the pod, and nobody has to."))?;
    Ok(format!("port {number} is for the clients, targetPort {target} is for the pods; they need not match"))
}

/// Connects many times, and shows the replies per pod. Fails unless each ready pod gets a fair share, as by a random choice.
pub fn many(stage: &mut Stage, screen: Screen) -> Result<String> {
    let (_, port) = stage.examples.port("web")?;
    spread_over(stage, screen, &port)?;
    Ok(format!("all {} pods reply, each with a fair share of the connections", port.backends.len()))
}

/// Connects from a cgroup without portmap, and verifies that the Service address is unreachable.
pub fn without(stage: &mut Stage, screen: Screen) -> Result<String> {
    let (_, port) = stage.examples.port("web")?;
    untranslated(stage, screen, &port)?;
    Ok("no route, NAT rule or proxy has this address; only portmap's BPF program translates it, in connect()".to_owned())
}

/// Connects to a Service with a named targetPort, which has a different number on each pod.
pub fn named(stage: &mut Stage, screen: Screen) -> Result<String> {
    let port = introduce_service(stage, screen, "api")?;
    spread_over(stage, screen, &port)?;
    let numbers: Vec<String> =
        port.backends.iter().map(|backend| format!("{} on {}", backend.listen.port, backend.pod)).collect();
    Ok(format!("the targetPort `{}` is {}", port.target, numbers.join(" and ")))
}

/// Connects with UDP and TCP to one port number of a Service. They are two ports of the Service.
pub fn protocols(stage: &mut Stage, screen: Screen) -> Result<String> {
    let (file, ports) = stage.examples.ports("dns")?;
    let file = file.to_owned();
    for port in &ports {
        screen.line("manifest", &format!("{file}: Service {port}"))?;
        spread_over(stage, screen, port)?;
    }
    ensure!(ports.len() == 2, "the Service dns should have two ports, one for UDP and one for TCP");
    Ok("UDP requests reach the UDP ports of the pods, and TCP requests reach their TCP ports".to_owned())
}

/// Connects to a Service without endpoints, and verifies that the connection is refused.
pub fn refused(stage: &mut Stage, screen: Screen) -> Result<String> {
    let port = introduce_service(stage, screen, "empty")?;
    screen.line("client", &format!("connect({})", port.address))?;
    expect_error(stage, screen, Group::Clients, &port, Errno::ECONNREFUSED)?;
    Ok("connect() fails at once: the client does not wait for a timeout".to_owned())
}

/// Connects many times and shows the replies per pod. Fails unless every backend of the port gets a fair share.
pub fn spread_over(stage: &Stage, screen: Screen, port: &Port) -> Result<()> {
    screen.line("client", &format!("{MANY} × connect({}) with {}", port.address, port.protocol))?;
    spread::show(screen, &stage.ask(Group::Clients, port, MANY)?, port)
}

/// Connects once from a cgroup without portmap. Fails unless the error is "network is unreachable".
pub fn untranslated(stage: &Stage, screen: Screen, port: &Port) -> Result<()> {
    screen.line("client", &format!("connect({}), outside of the cgroup that portmap is attached to", port.address))?;
    expect_error(stage, screen, Group::Clean, port, Errno::ENETUNREACH)
}

/// Connects once, and fails unless the connection fails with the given error.
pub fn expect_error(stage: &Stage, screen: Screen, group: Group, port: &Port, expected: Errno) -> Result<()> {
    let answers = stage.ask(group, port, 1)?;
    let outcomes: Vec<&str> = answers.replies.keys().chain(answers.errors.keys()).map(String::as_str).collect();
    ensure!(outcomes == [format!("{expected:?}")], "expected {expected:?}, got {}", outcomes.join(", "));
    Ok(screen.line("error", &expected.to_string())?)
}

/// Prints the manifest's file name, the Service port, and the pods of its backends.
pub fn show_manifest(screen: Screen, file: &str, port: &Port) -> Result<()> {
    let pods = match port.backends.as_slice() {
        [] => "no pod matches".to_owned(),
        backends => format!("pods {}", backends.iter().map(|backend| &*backend.pod).collect::<Vec<_>>().join(", ")),
    };
    Ok(screen.line("manifest", &format!("{file}: Service {port}, {pods}"))?)
}

/// Shows the manifest of a Service's first port, and returns the port.
fn introduce_service(stage: &Stage, screen: Screen, service: &str) -> Result<Port> {
    let (file, port) = stage.examples.port(service)?;
    show_manifest(screen, file, &port)?;
    Ok(port)
}
