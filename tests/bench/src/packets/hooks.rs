//! The programs of network devices, on tables with the Services of the measurement. They are not attached to a device.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use k8s_openapi::api::core::v1::Service;
use portmap::kernel::devices::LinkLayer;
use portmap::maps::devices::{DeviceClients, DeviceEntry, DeviceMap};
use portmap::model::event::{Event, Object};
use portmap::model::object::{EndpointSlice, SERVICE_NAME_LABEL};
use portmap::model::{Family, PerFamily};
use portmap_harness::listen::Protocol;
use portmap_harness::world::World;
use serde_json::{Value, json};

use crate::Size;
use crate::cluster::{Cluster, NAMESPACE};
use crate::figures::Figures;
use crate::report::{Row, Section};
use crate::stages::{NODE, Scope, Stages};
use crate::tables::Tables;

/// The interface index of the loopback device, which `BPF_PROG_TEST_RUN` takes for the device of its packets.
const LOOPBACK: u32 = 1;

/// The return value for a packet that goes on to the next program (`TC_ACT_UNSPEC`).
const NEXT: u32 = u32::MAX;

/// A hook of a network device, whose program has the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Received packets.
    Ingress,
    /// Packets that are about to be sent.
    Egress,
}

impl Hook {
    /// Both hooks.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The name of the hook's program for devices with a link-layer header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// The loaded programs with filled tables. Dropping this removes everything.
pub struct Hooks {
    programs: Ebpf,
    _tables: Tables,
}

impl Hooks {
    /// Creates tables with two Services, and with `services` further ones that have an address of each family. Loads the
    /// programs.
    pub fn load(services: u32) -> Result<Self> {
        let world = World::new("bench-packets")?;
        let cluster = Cluster::new(Size { services, endpoints: 1 }, Protocol::Tcp, &[Family::V4, Family::V6])?;
        let tables = Tables::create(&world, cluster.capacity())?;
        let (mut stages, _) = Stages::start(&tables)?;
        let mut events = cluster.events();
        events.extend(objects(1, frontend, backend)?);
        events.extend(objects(2, backend, frontend)?);
        stages.pass(events, Scope::Everything)?;
        let device = DeviceEntry {
            addresses: PerFamily { v4: Some(node(Family::V4)), v6: Some(node(Family::V6)) },
            clients: DeviceClients::Outside,
            link_layer: LinkLayer::Ethernet,
        };
        DeviceMap::open(tables.pins())?.set(LOOPBACK, &device)?;
        Ok(Self { programs: tables.load_for_devices()?, _tables: tables })
    }

    /// Runs the program of a hook on a frame, which then has its last form. Returns the mean time of one run in nanoseconds.
    pub fn run(&self, hook: Hook, frame: &mut [u8], repeat: u32) -> Result<f64> {
        let input = frame.to_vec();
        let mut options = TestRunOptions::new();
        options.data_in = Some(&input);
        options.data_out = Some(frame);
        options.repeat = repeat;
        let result =
            self.program(hook)?.test_run(options).with_context(|| format!("failed to run the program {}", hook.name()))?;
        ensure!(result.return_value == NEXT, "the program {} has returned {}", hook.name(), result.return_value);
        Ok(result.duration.as_secs_f64() * 1e9)
    }

    /// The sizes of the programs, in instructions before the JIT compiler.
    pub fn sizes(&self) -> Result<Section> {
        let mut rows = Vec::new();
        for hook in Hook::ALL {
            let bytes = self.program(hook)?.info()?.size_translated().context("the kernel shows no size of a program")?;
            rows.push(Row { name: hook.name(), figures: Figures::of(vec![f64::from(bytes / 8)]) });
        }
        Ok(Section { name: "sizes", title: "Sizes of the programs".to_owned(), unit: "instructions", rows })
    }

    fn program(&self, hook: Hook) -> Result<&SchedClassifier> {
        let name = hook.name();
        let program = self.programs.program(name).with_context(|| format!("the BPF object has no program {name}"))?;
        Ok(program.try_into()?)
    }
}

/// The frontend of the first Service, and the backend of the second.
pub fn frontend(family: Family) -> SocketAddr {
    SocketAddr::new(address(family, 18, 1), 8443)
}

/// The backend of the first Service, and the frontend of the second.
pub fn backend(family: Family) -> SocketAddr {
    SocketAddr::new(address(family, 18, 2), 8080)
}

/// An address that belongs to no Service, with the port of VXLAN: overlay networks have most of the datagrams between nodes.
pub fn stranger(family: Family) -> SocketAddr {
    SocketAddr::new(address(family, 18, 3), 4789)
}

/// The client with this number, below 65,536. Its port is below 1024, which backends also see.
pub fn client(family: Family, number: u32) -> SocketAddr {
    SocketAddr::new(address(family, 19, number), 1000)
}

fn node(family: Family) -> IpAddr {
    address(family, 18, 4)
}

/// An address of a network for benchmarks or documentation: `198.<network>.x.y`, or `2001:db8:<network>::x`.
fn address(family: Family, network: u8, host: u32) -> IpAddr {
    let [.., high, low] = host.to_be_bytes();
    match family {
        Family::V4 => Ipv4Addr::new(198, network, high, low).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, network.into(), 0, 0, 0, 0, u16::from_be_bytes([high, low])).into(),
    }
}

/// The events of a Service on an externalIP of each family, with one backend of each family on this node.
fn objects(number: u8, frontend: fn(Family) -> SocketAddr, backend: fn(Family) -> SocketAddr) -> Result<Vec<Event>> {
    let families = [(Family::V4, "IPv4"), (Family::V6, "IPv6")];
    let name = format!("packets-{number}");
    let external = families.map(|(family, _)| frontend(family).ip());
    let ports =
        |port: u16| ["TCP", "UDP"].map(|protocol| json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": port}));
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "clusterIP": format!("10.97.255.{number}"),
            "clusterIPs": [format!("10.97.255.{number}"), format!("fd00:10:97::{number}")],
            "ipFamilies": families.map(|(_, text)| text),
            "externalIPs": external,
            "ports": ports(frontend(Family::V4).port()),
        },
    }))?;
    let slice = |(family, text): (Family, &str)| -> Result<EndpointSlice> {
        let value: Value = json!({
            "metadata": {"name": format!("{name}-{text}"), "namespace": NAMESPACE, "labels": {SERVICE_NAME_LABEL: name}},
            "addressType": text,
            "ports": ports(backend(family).port()),
            "endpoints": [{"addresses": [backend(family).ip()], "nodeName": NODE, "conditions": {"ready": true}}],
        });
        Ok(serde_json::from_value(value)?)
    };
    let mut events = vec![Event::Changed(Object::service(service))];
    for family in families {
        events.push(Event::Changed(Object::slice(slice(family)?, NODE)));
    }
    Ok(events)
}
