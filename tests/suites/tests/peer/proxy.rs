//! The model of kube-proxy: its nftables maps and chains, followed as a packet follows them.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use serde_json::Value;

use crate::model::{Answer, Family, Frontend, Model, Verdict};
use crate::nftables::{Expression, Table};
use crate::values;

/// The name of kube-proxy's chain that refuses.
const REJECT_CHAIN: &str = "reject-chain";

/// The location of a client. kube-proxy's rules distinguish these three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Pod,
    Node,
    Outside,
}

/// The backends that a chain leads to, and the timeout of its session affinity in seconds.
#[derive(Debug, PartialEq, Eq)]
struct Destination {
    backends: BTreeSet<SocketAddr>,
    affinity: Option<u64>,
}

/// The effect of one rule on a packet.
enum Step {
    Next,
    Goto(String),
    Spread(Vec<String>),
    Arrive(BTreeSet<SocketAddr>),
}

/// Reads the model of kube-proxy from the network namespace of this thread.
pub fn read() -> Result<Model> {
    let mut model = Model::new();
    for (family, name) in [(Family::IPv4, "ip"), (Family::IPv6, "ip6")] {
        Reader { family, table: Table::read(name, "kube-proxy")? }.add_to(&mut model)?;
    }
    Ok(model)
}

struct Reader {
    family: Family,
    table: Table,
}

impl Reader {
    fn add_to(&self, model: &mut Model) -> Result<()> {
        for (services, no_endpoints) in
            [("service-ips", "no-endpoint-services"), ("service-nodeports", "no-endpoint-nodeports")]
        {
            self.add_frontends(services, no_endpoints, model).context(services)?;
        }
        for (key, verdict) in self.table.map("firewall-ips")? {
            let frontend = self.frontend(key)?;
            let sources = self.sources(&target(verdict)?)?;
            let answer = model.get_mut(&frontend).with_context(|| format!("{frontend} has source ranges but no verdict"))?;
            answer.sources = Some(sources);
        }
        for address in self.table.set("cluster-ips")? {
            model.insert(Frontend::OtherPorts(values::address(address)?), Answer::all(Verdict::Refuse));
        }
        Ok(())
    }

    /// Adds the frontends of both maps. If a frontend is in both, clients without a result in its chain get the verdict of
    /// `no_endpoints`.
    fn add_frontends(&self, services: &str, no_endpoints: &str, model: &mut Model) -> Result<()> {
        for (key, verdict) in self.table.map(no_endpoints)? {
            model.insert(self.frontend(key)?, Answer::all(verdict_of(&verdict)?));
        }
        for (key, verdict) in self.table.map(services)? {
            let frontend = self.frontend(key)?;
            let otherwise = model.remove(&frontend).map(|answer| answer.inside);
            let answer = self.answer(&target(verdict)?, otherwise.as_ref()).with_context(|| frontend.to_string())?;
            model.insert(frontend, answer);
        }
        Ok(())
    }

    fn answer(&self, chain: &str, otherwise: Option<&Verdict>) -> Result<Answer> {
        let [pod, node, outside] = [Client::Pod, Client::Node, Client::Outside].map(|client| self.follow(chain, client));
        let (pod, node, outside) = (pod?, node?, outside?);
        ensure!(pod == node, "pods get {pod:?}, but the node {node:?}");
        let affinity = pod.as_ref().and_then(|destination| destination.affinity);
        let verdict = |destination: Option<Destination>| match destination {
            Some(destination) => Ok(Verdict::Forward(destination.backends)),
            None => otherwise.cloned().with_context(|| format!("the chain {chain} has no result")),
        };
        Ok(Answer { inside: verdict(pod)?, outside: verdict(outside)?, affinity, sources: None })
    }

    /// The destination in this chain of a client without a session; `None` if the chain has no verdict for it.
    fn follow(&self, chain: &str, client: Client) -> Result<Option<Destination>> {
        let mut affinity = None;
        for rule in self.table.rules(chain)? {
            match self.step(rule, client, &mut affinity)? {
                Step::Next => {}
                Step::Goto(target) => return self.follow(&target, client),
                Step::Arrive(backends) => return Ok(Some(Destination { backends, affinity })),
                Step::Spread(targets) => {
                    let mut backends = BTreeSet::new();
                    for target in targets {
                        backends.extend(
                            self.follow(&target, client)?.context("the chain of an endpoint has no destination")?.backends,
                        );
                    }
                    return Ok(Some(Destination { backends, affinity }));
                }
            }
        }
        Ok(None)
    }

    fn step(&self, rule: Vec<Expression>, client: Client, affinity: &mut Option<u64>) -> Result<Step> {
        for expression in rule {
            match expression {
                Expression::Match { left, op, right } => {
                    ensure!(op == "==", "a match other than equality: {left} {op} {right}");
                    if !self.is_match(&left, &right, client, affinity)? {
                        return Ok(Step::Next);
                    }
                }
                Expression::Mangle(_) | Expression::Set(_) => {}
                Expression::Goto { target } => return Ok(Step::Goto(target)),
                Expression::Vmap { data } => return data.set.iter().map(spread).collect::<Result<_>>().map(Step::Spread),
                Expression::Dnat { addr, port } => return values::backends(&addr, port).map(Step::Arrive),
                Expression::Drop => bail!("a chain of a Service that drops"),
            }
        }
        Ok(Step::Next)
    }

    fn is_match(&self, left: &Value, right: &Value, client: Client, affinity: &mut Option<u64>) -> Result<bool> {
        if left["meta"]["key"] == "l4proto" {
            return Ok(true);
        }
        if left["meta"]["key"] == "iifname" {
            return Ok(client == Client::Pod);
        }
        if left["fib"]["flags"] == serde_json::json!(["saddr"]) && right == "local" {
            return Ok(client == Client::Node);
        }
        let set = right.as_str().and_then(|right| right.strip_prefix('@')).filter(|_| left["payload"]["field"] == "saddr");
        let set = set.with_context(|| format!("an unknown match: {left} {right}"))?;
        *affinity = Some(self.table.timeout(set)?);
        Ok(false)
    }

    /// The source ranges that a firewall chain admits.
    fn sources(&self, chain: &str) -> Result<Vec<IpNet>> {
        let [rule]: [_; 1] = self.table.rules(chain)?.try_into().ok().context("a firewall chain has one rule")?;
        let Ok([Expression::Match { left, op, right }, Expression::Drop]) = <[Expression; 2]>::try_from(rule) else {
            bail!("the rule of {chain} is unknown")
        };
        ensure!(op == "!=" && left["payload"]["field"] == "saddr", "the rule of {chain} does not test the source");
        let ranges = right["set"].as_array().map_or(std::slice::from_ref(&right), Vec::as_slice);
        let ranges: Vec<_> = ranges.iter().map(values::ranges).collect::<Result<_>>()?;
        Ok(IpNet::aggregate(&ranges.concat()))
    }

    fn frontend(&self, key: &[Value]) -> Result<Frontend> {
        let text = |value: &Value| value.as_str().map(str::to_uppercase).context("a protocol is a text");
        match key {
            [address, protocol, port] => {
                Ok(Frontend::Address(SocketAddr::new(values::address(address)?, values::port(port)?), text(protocol)?))
            }
            [protocol, port] => Ok(Frontend::NodePort(self.family, values::port(port)?, text(protocol)?)),
            _ => bail!("a key of {} parts", key.len()),
        }
    }
}

fn target(expression: Expression) -> Result<String> {
    let Expression::Goto { target } = expression else { bail!("expected a chain, not {expression:?}") };
    Ok(target)
}

fn spread(element: &Value) -> Result<String> {
    let target = element[1]["goto"]["target"].as_str();
    target.map(str::to_owned).with_context(|| format!("an element without a chain: {element}"))
}

fn verdict_of(expression: &Expression) -> Result<Verdict> {
    if matches!(expression, Expression::Drop) {
        return Ok(Verdict::Drop);
    }
    let is_refusal = matches!(expression, Expression::Goto { target } if target == REJECT_CHAIN);
    ensure!(is_refusal, "an unknown verdict: {expression:?}");
    Ok(Verdict::Refuse)
}
