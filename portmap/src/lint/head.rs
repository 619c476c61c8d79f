//! The head of an object: kind, name, place, labels, and the codes that its annotation ignores.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{
    catalog::{self, Rule},
    tree::{Invalid, Line, Node},
};

/// The annotation that lists codes to ignore, on an object or on its pod template.
pub const IGNORE: &str = "portmap.io/lint-ignore";

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// The head of an object.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The file; `None` for an object of a cluster.
    pub file: Option<Arc<str>>,
    /// The line on which the object begins.
    pub line: Line,
    /// The kind.
    pub kind: String,
    /// The namespace, or the default one.
    pub namespace: String,
    /// The name, or the prefix of a generated name.
    pub name: String,
    /// The codes that the annotation lists.
    pub ignored: Ignored,
}

/// The codes of an annotation.
#[derive(Clone, Debug, Default)]
pub struct Ignored {
    rules: Vec<&'static Rule>,
    /// Texts that are no codes, each with the line of the annotation.
    pub unknown: Vec<(String, Line)>,
}

impl Ignored {
    /// Reads the annotation of a `metadata` node.
    pub fn read(metadata: Option<&Node>) -> Self {
        let mut ignored = Self::default();
        let Some(annotations) = metadata.and_then(|metadata| metadata.get("annotations")) else { return ignored };
        let text = annotations.text(IGNORE).unwrap_or_default();
        for word in text.split([',', ' ', '\n']).filter(|word| !word.is_empty()) {
            match catalog::by_code(word) {
                Some(rule) => ignored.rules.push(rule),
                None => ignored.unknown.push((word.to_owned(), annotations.line_of(IGNORE))),
            }
        }
        ignored
    }

    /// Whether the annotation lists a rule.
    pub fn has(&self, rule: &Rule) -> bool {
        self.rules.contains(&rule)
    }

    /// Adds the codes of another annotation.
    pub fn extend(&mut self, other: Self) {
        self.rules.extend(other.rules);
        self.unknown.extend(other.unknown);
    }
}

impl Head {
    /// Reads the head of an object. Missing fields stay empty, except the namespace.
    pub fn read(object: &Node, file: Option<&Arc<str>>, default_namespace: &str) -> Self {
        let metadata = object.get("metadata");
        let text = |key| metadata.and_then(|metadata| metadata.text(key));
        Self {
            file: file.cloned(),
            line: object.line,
            kind: object.text("kind").unwrap_or_default().to_owned(),
            namespace: text("namespace").filter(|text| !text.is_empty()).unwrap_or(default_namespace).to_owned(),
            name: text("name").or_else(|| text("generateName")).unwrap_or_default().to_owned(),
            ignored: Ignored::read(metadata),
        }
    }

    /// Kind and name, and the file and line if there are any: `Deployment web (web.yaml:3)`.
    pub fn with_place(&self) -> String {
        match &self.file {
            Some(file) => format!("{} {} ({file}:{})", self.kind, self.name, self.line),
            None => format!("{} {}", self.kind, self.name),
        }
    }

    /// Whether both are the same object.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.kind, &self.namespace, &self.name) == (&other.kind, &other.namespace, &other.name)
    }
}

impl fmt::Display for Head {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{} {}", self.kind, self.name)
    }
}

/// The labels of a `metadata` node.
///
/// # Errors
///
/// A label is no text.
pub fn labels(metadata: Option<&Node>) -> Result<Labels, Invalid> {
    let Some(labels) = metadata.and_then(|metadata| metadata.get("labels")) else { return Ok(Labels::new()) };
    labels.decode()
}
