//! An nftables table in the JSON format of `nft -j`.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// The sets, maps and chains of a table.
#[derive(Debug, Default)]
pub struct Table {
    collections: BTreeMap<String, Collection>,
    chains: BTreeMap<String, Vec<Vec<Value>>>,
}

/// A set, or a map with verdicts.
#[derive(Debug, Deserialize)]
struct Collection {
    name: String,
    #[serde(default)]
    elem: Vec<Value>,
    timeout: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    chain: String,
    expr: Vec<Value>,
}

/// One object of the output of `nft -j`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Object {
    Set(Collection),
    Map(Collection),
    Chain {
        name: String,
    },
    Rule(Rule),
    #[serde(untagged)]
    Other(IgnoredAny),
}

/// The known parts of a rule. Unknown parts are an error, because they may affect the rule's result.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expression {
    /// A comparison. The rule continues only if it is true.
    Match { left: Value, op: String, right: Value },
    /// Sets a mark on the packet, which does not affect the destination.
    Mangle(IgnoredAny),
    /// Adds the client to a set, for session affinity.
    Set(IgnoredAny),
    /// Continues in another chain, and does not come back.
    Goto { target: String },
    /// Continues with the verdict of a matching element.
    Vmap { data: Elements },
    /// Changes the destination address.
    Dnat { addr: Value, port: Option<u16> },
    /// Drops the packet.
    Drop,
}

/// The elements of an anonymous set.
#[derive(Debug, Deserialize)]
pub struct Elements {
    pub set: Vec<Value>,
}

impl Table {
    /// Reads a table in the network namespace of this thread.
    pub fn read(family: &str, name: &str) -> Result<Self> {
        let mut command = Command::new("nft");
        command.args(["-j", "list", "table", family, name]).stdin(Stdio::null());
        let output = command.output().context("failed to run nft (Debian package nftables)")?;
        ensure!(output.status.success(), "nft failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        Self::parse(&output.stdout).with_context(|| format!("failed to read the table {family} {name}"))
    }

    fn parse(json: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Listing {
            nftables: Vec<Object>,
        }
        let mut table = Self::default();
        for object in serde_json::from_slice::<Listing>(json)?.nftables {
            match object {
                Object::Set(collection) | Object::Map(collection) => {
                    table.collections.insert(collection.name.clone(), collection);
                }
                Object::Chain { name } => drop(table.chains.entry(name).or_default()),
                Object::Rule(rule) => table.chains.entry(rule.chain).or_default().push(rule.expr),
                Object::Other(_) => {}
            }
        }
        Ok(table)
    }

    /// The elements of a set. Fails if the table has no such set.
    pub fn set(&self, name: &str) -> Result<&[Value]> {
        Ok(&self.collection(name)?.elem)
    }

    /// The timeout of a set in seconds. Fails if the set has none.
    pub fn timeout(&self, set: &str) -> Result<u64> {
        self.collection(set)?.timeout.with_context(|| format!("the set {set} has no timeout"))
    }

    /// The elements of a map: the parts of the key, such as address, protocol and port, and the verdict.
    pub fn map(&self, name: &str) -> Result<Vec<(&[Value], Expression)>> {
        let elements = &self.collection(name)?.elem;
        elements.iter().map(|element| entry(element).with_context(|| format!("{name}: {element}"))).collect()
    }

    /// The rules of a chain.
    pub fn rules(&self, chain: &str) -> Result<Vec<Vec<Expression>>> {
        let rules = self.chains.get(chain).with_context(|| format!("there is no chain {chain}"))?;
        let parse = |rule: &Vec<Value>| rule.iter().map(Expression::deserialize).collect::<Result<_, _>>();
        rules.iter().map(|rule| parse(rule).with_context(|| format!("chain {chain}: {}", Value::from(rule.clone())))).collect()
    }

    fn collection(&self, name: &str) -> Result<&Collection> {
        self.collections.get(name).with_context(|| format!("there is no set or map {name}"))
    }
}

/// The key and the verdict of a map element. The key of an element with a comment is nested more deeply.
fn entry(element: &Value) -> Result<(&[Value], Expression)> {
    let key = element[0].pointer("/elem/val").unwrap_or(&element[0]);
    let key = key["concat"].as_array().context("the key has only one part")?;
    Ok((key, Expression::deserialize(&element[1])?))
}
