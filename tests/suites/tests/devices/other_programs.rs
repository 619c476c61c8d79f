//! Programs of others at the same devices stay. Programs that others detach are attached again.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use aya::programs::links::LinkOrder;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{SchedClassifier, TcAttachType};
use portmap_harness::agent::Agent;
use portmap_harness::world::{Families, World};

use crate::node::Node;
use crate::view::{Direction, Way};

/// A link of another process, and a filter of another process with the same priority, stay where they are.
#[test]
fn programs_of_others_stay() -> Result<()> {
    for way in Way::all() {
        let mut node = Node::new("others", way, &[])?;
        // The kernel links a program only once to a direction, so this is the other direction's.
        let pin = node.view.pin_program("eth0", Direction::Egress)?;
        let path = pin.0.display().to_string();
        if way == Way::Clsact {
            node.view.tc(&format!("filter add dev eth0 ingress prio 50 handle 2 bpf da pinned {path}"))?;
        } else {
            node.view.tc("qdisc add dev eth0 clsact")?;
        }
        node.view.tc(&format!("filter add dev eth0 ingress prio 7 handle 1 bpf da pinned {path}"))?;
        let mut program = SchedClassifier::from_pin(&pin.0)?;
        if way == Way::Tcx {
            let program = &mut program;
            node.view.inside(move || {
                let order = TcAttachOptions::TcxOrder(LinkOrder::default());
                program.attach_with_options("eth0", TcAttachType::Ingress, order)?;
                Ok(())
            })?;
        }
        let all = node.view.attached("eth0", Direction::Ingress)?;
        node.stop()?;
        node.start(&[])?;
        assert_eq!(node.view.attached("eth0", Direction::Ingress)?.len(), all.len(), "another agent leaves them");
        node.stop()?;
        node.clean_up()?;
        let left = node.view.attached("eth0", Direction::Ingress)?;
        assert_eq!(left.len(), 2, "{left:?} of {all:?}");
        assert!(left.iter().all(|program| program.name != way.program(Direction::Ingress)), "{left:?}");
        drop(program);
    }
    Ok(())
}

/// A filter of another program at portmap's place is not replaced.
#[test]
fn a_filter_in_the_way_is_reported() -> Result<()> {
    let donor = Node::new("donor", Way::Clsact, &[])?;
    let pin = donor.view.pin_program("eth0", Direction::Egress)?;
    let world = World::of("in-the-way", Families::V4)?;
    world.ip("link add eth9 type veth peer name far9")?;
    let tc = |arguments: &str| -> Result<()> {
        let output = world.command("tc").args(arguments.split(' ')).output()?;
        ensure!(output.status.success(), "tc {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    tc("qdisc add dev eth9 clsact")?;
    tc(&format!("filter add dev eth9 egress prio 50 handle 1 bpf da pinned {}", pin.0.display()))?;
    let mut agent = Agent::spawn(&world, &["--devices", "eth9", "--device-attach", "clsact"])?;
    agent.wait_until("the log tells of the filter", |agent| {
        Ok(agent.log().contains("another program has a filter with priority 50 and handle 1 there"))
    })?;
    tc("filter del dev eth9 egress prio 50 handle 1 bpf")?;
    let world = &world;
    agent.wait_until("the programs are attached", |_| {
        let output = world.command("tc").args("filter show dev eth9 ingress".split(' ')).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).contains("portmap_ingress"))
    })
}

#[test]
fn detached_programs_are_reported_and_attached_again() -> Result<()> {
    for way in Way::all() {
        let mut node = Node::new("detached", way, &[])?;
        detach(&node, Direction::Egress)?;
        node.agent.wait_until("the log tells of it", |agent| Ok(agent.log().contains("were detached from eth0")))?;
        node.await_devices(&["eth0 WAY outside 192.0.2.2"])?;
        node.view.expect_attached("eth0")?;
        node.stop()?;
        detach(&node, Direction::Ingress)?;
        let output = node.portmap(&["status"])?;
        let text = String::from_utf8(output.stdout)?;
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("the programs of eth0 are not attached"), "{text}");
        assert_eq!(node.devices()?, ["eth0 - outside 192.0.2.2"]);
        node.start(&[])?;
        node.view.expect_attached("eth0")?;
    }
    Ok(())
}

/// Detaches portmap's program from `eth0`, as another program would.
fn detach(node: &Node, direction: Direction) -> Result<()> {
    match node.view.way {
        Way::Tcx => {
            let link = node.view.link("eth0", direction)?.to_string();
            let output =
                Command::new("bpftool").args(["link", "detach", "id", &link]).output().context("failed to run bpftool")?;
            ensure!(output.status.success(), "bpftool failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Way::Clsact => drop(node.view.tc(&format!("filter del dev eth0 {}", direction.name()))?),
    }
    Ok(())
}
