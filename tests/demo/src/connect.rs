//! The steps that connect: what clients of a Service meet.

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use portmap_harness::world::Group;

use crate::example_stage::Stage;
use crate::port::Port;
use crate::screen::Screen;
use crate::spread;

/// Connections of one spread.
pub const MANY: u32 = 300;

/// A Service port leads to a targetPort.
pub fn one(stage: &mut Stage, screen: Screen) -> Result<String> {
    let port = ask_for(stage, screen, "web")?;
    screen.line("client", &format!("connect({})", port.address))?;
    let answers = stage.ask(Group::Clients, &port, 1)?;
    let expected: Vec<String> = port.backends.iter().map(ToString::to_string).collect();
    let answer = answers.replies.keys().next().with_context(|| format!("expected an answer, got {:?}", answers.errors))?;
    screen.line("answer", answer)?;
    ensure!(expected.contains(answer), "expected an answer of {}", expected.join(" or "));
    let listens = port.backends.iter().find(|backend| backend.to_string() == *answer).map(|backend| backend.listen.port);
    Ok(format!("asked for port {}, answered on port {}", port.address.port(), listens.unwrap_or_default()))
}

/// Every connection chooses a pod.
pub fn many(stage: &mut Stage, screen: Screen) -> Result<String> {
    let (_, port) = stage.examples.port("web")?;
    spread_over(stage, screen, &port)?;
    Ok(format!("every answer is from one of {} pods, each as often as chance explains", port.backends.len()))
}

/// Without portmap the address leads nowhere.
pub fn without(stage: &mut Stage, screen: Screen) -> Result<String> {
    let (_, port) = stage.examples.port("web")?;
    untranslated(stage, screen, &port)?;
    Ok("no route, no NAT rule, no proxy knows the address: only the program in connect() does".to_owned())
}

/// A targetPort by name is another number on each pod.
pub fn named(stage: &mut Stage, screen: Screen) -> Result<String> {
    let port = ask_for(stage, screen, "api")?;
    spread_over(stage, screen, &port)?;
    let numbers: Vec<String> =
        port.backends.iter().map(|backend| format!("{} on {}", backend.listen.port, backend.pod)).collect();
    Ok(format!("`{}` is {}", port.target, numbers.join(" and ")))
}

/// TCP and UDP on one number are two ports.
pub fn protocols(stage: &mut Stage, screen: Screen) -> Result<String> {
    let (file, ports) = stage.examples.ports("dns")?;
    let file = file.to_owned();
    for port in &ports {
        screen.line("asked", &format!("{file}: Service {port}"))?;
        spread_over(stage, screen, port)?;
    }
    ensure!(ports.len() == 2, "the Service dns should have two ports, one for UDP and one for TCP");
    Ok("each protocol is answered by the same protocol".to_owned())
}

/// A Service without endpoints refuses.
pub fn refused(stage: &mut Stage, screen: Screen) -> Result<String> {
    let port = ask_for(stage, screen, "empty")?;
    screen.line("client", &format!("connect({})", port.address))?;
    expect_error(stage, screen, Group::Clients, &port, Errno::ECONNREFUSED)?;
    Ok("refused at once: the client need not wait to learn that nobody is there".to_owned())
}

/// Connects many times, shows who answered, and fails unless the answers are as the port asks for.
pub fn spread_over(stage: &Stage, screen: Screen, port: &Port) -> Result<()> {
    screen.line("client", &format!("{MANY} × connect({}) with {}", port.address, port.protocol))?;
    spread::show(screen, &stage.ask(Group::Clients, port, MANY)?, port)
}

/// Connects once without portmap, which should find no route.
pub fn untranslated(stage: &Stage, screen: Screen, port: &Port) -> Result<()> {
    screen.line("client", &format!("connect({}), outside of the cgroup that portmap is attached to", port.address))?;
    expect_error(stage, screen, Group::Clean, port, Errno::ENETUNREACH)
}

/// Connects once, which should fail with the given error.
pub fn expect_error(stage: &Stage, screen: Screen, group: Group, port: &Port, expected: Errno) -> Result<()> {
    let answers = stage.ask(group, port, 1)?;
    let met: Vec<&str> = answers.replies.keys().chain(answers.errors.keys()).map(String::as_str).collect();
    ensure!(met == [format!("{expected:?}")], "expected {expected:?}, got {}", met.join(", "));
    Ok(screen.line("answer", &expected.to_string())?)
}

/// Says what the manifests ask for.
pub fn asked(screen: Screen, file: &str, port: &Port) -> Result<()> {
    let pods = match port.backends.as_slice() {
        [] => "no pod matches".to_owned(),
        backends => format!("of {}", backends.iter().map(|backend| &*backend.pod).collect::<Vec<_>>().join(", ")),
    };
    Ok(screen.line("asked", &format!("{file}: Service {port}, {pods}"))?)
}

fn ask_for(stage: &Stage, screen: Screen, service: &str) -> Result<Port> {
    let (file, port) = stage.examples.port(service)?;
    asked(screen, file, &port)?;
    Ok(port)
}
