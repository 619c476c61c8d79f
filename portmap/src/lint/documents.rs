//! Splits the text of a file into documents, and parses each by itself: a document with an error leaves the others readable.

use std::mem;

use memchr::memchr_iter;
use serde_saphyr::Budget;

use super::tree::{
    Line, Node,
    json::{self, List},
};

/// The greatest depth of a document. Schemas of custom resources have some 50 levels.
const MAX_DEPTH: usize = 100;

/// A document of a file.
#[derive(Debug)]
pub enum Document {
    /// The tree of a document that is not empty.
    Tree(Node),
    /// A document that is neither YAML nor JSON.
    Broken(Broken),
}

/// A document that is neither YAML nor JSON.
#[derive(Debug)]
pub struct Broken {
    /// The line of the error in the file.
    pub line: Line,
    /// The error of the parser.
    pub reason: String,
    /// The value of `kind` in the text; `None` if there is none.
    pub kind: Option<String>,
    /// Whether the text looks like a template that was not rendered.
    pub is_template: bool,
}

/// A part of a text between two document markers.
#[derive(Debug, PartialEq)]
pub struct Part<'a> {
    text: &'a str,
    /// The number of lines before the part.
    lines_before: Line,
}

/// The parts of a text that are not empty. A marker is at the start of a line. YAML forbids such a line inside of a document, in
/// block scalars too.
pub fn split(text: &str) -> Vec<Part<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parts = Vec::new();
    let (mut start, mut lines_before, mut position) = (0, 0, 0);
    for (number, line) in (0..).zip(lines(text)) {
        if is_marker(line) {
            parts.push(Part { text: &text[start..position], lines_before });
            // A document may begin on the line of its marker: `--- {kind: Pod}`.
            (start, lines_before) = (position + 3, number);
        }
        position += line.len();
    }
    parts.push(Part { text: &text[start..], lines_before });
    parts.retain(|part| lines(part.text).any(|line| !is_blank(line)));
    parts
}

/// The lines with their ends.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let ends = memchr_iter(b'\n', text.as_bytes()).map(|end| end + 1).chain([text.len()]);
    let lines = ends.scan(0, |start, end| Some(&text[mem::replace(start, end)..end]));
    lines.filter(|line| !line.is_empty())
}

impl<'a> Part<'a> {
    /// The documents of the part: one, or several JSON values without a separator.
    pub fn documents(&self) -> Vec<Document> {
        parse_part(self.text, self.lines_before)
    }

    /// The part as a list of JSON; `None` for all other parts.
    pub fn list(&self) -> Option<List<'a>> {
        List::parse(self.text, self.lines_before + 1, MAX_DEPTH)
    }
}

fn is_marker(line: &str) -> bool {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// Whether a line has no content: it is blank, a comment, or a directive such as `%YAML 1.2`.
fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line.starts_with('%')
}

fn parse_part(part: &str, lines_before: Line) -> Vec<Document> {
    match parse_one(part) {
        Ok(tree) => vec![Document::Tree(shifted(tree, lines_before))],
        Err(broken) => match values_of_json(part) {
            Some(values) => values.into_iter().flat_map(|(line, value)| parse_part(value, lines_before + line)).collect(),
            None => vec![Document::Broken(Broken { line: broken.line + lines_before, ..broken })],
        },
    }
}

fn parse_one(part: &str) -> Result<Node, Broken> {
    if let Some(tree) = json::parse(part, MAX_DEPTH) {
        return Ok(tree);
    }
    let options = serde_saphyr::options! { budget: limits(), emit_comments: false };
    serde_saphyr::from_str_with_options(part, options).map_err(|error| {
        let line = error.location().map_or(1, |location| Line::try_from(location.line()).unwrap_or(1));
        let text = error.without_snippet().to_string();
        // The parser adds the position, which is the one in the part, and an excerpt of the text on further lines.
        let reason = text.lines().next().unwrap_or_default().split(", set DuplicateKeyPolicy").next().unwrap_or_default();
        let reason = reason.split(" at line ").next().unwrap_or_default().trim();
        let is_deep = reason.starts_with("budget breached") || reason.starts_with("recursion limit");
        let reason = if is_deep { format!("it has more than {MAX_DEPTH} levels") } else { reason.to_owned() };
        Broken { line, reason, kind: kind_of(part), is_template: part.contains("{{") || part.contains("{%") }
    })
}

/// The limits of the parser. Only the depth is limited, because each level takes room on the stack. A dump of a large cluster
/// would exceed the default limits.
fn limits() -> Option<Budget> {
    serde_saphyr::budget! {
        max_depth: MAX_DEPTH,
        flow_nesting_limit: MAX_DEPTH,
        max_events: usize::MAX,
        max_nodes: usize::MAX,
        max_aliases: usize::MAX,
        max_anchors: usize::MAX,
        max_merge_keys: usize::MAX,
        max_total_scalar_bytes: usize::MAX,
        enforce_alias_anchor_ratio: false,
    }
}

/// The kind of a document that cannot be parsed: the value of `kind` at the start of a line.
fn kind_of(part: &str) -> Option<String> {
    let kind = part.lines().find_map(|line| line.strip_prefix("kind:"))?;
    let kind = kind.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']);
    let is_kind = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_kind.then(|| kind.to_owned())
}

/// The texts of several JSON values without a separator, each with the number of lines before it. `None` if the text is
/// something else.
fn values_of_json(part: &str) -> Option<Vec<(Line, &str)>> {
    if !part.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut values = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(part).into_iter::<serde::de::IgnoredAny>();
    let mut start = 0;
    while let Some(value) = stream.next() {
        value.ok()?;
        let lines = part[..start].matches('\n').count();
        values.push((Line::try_from(lines).unwrap_or(0), &part[start..stream.byte_offset()]));
        start = stream.byte_offset();
    }
    (values.len() > 1).then_some(values)
}

/// Adds a number of lines to all lines of a tree.
fn shifted(mut tree: Node, lines: Line) -> Node {
    if lines > 0 {
        tree.shift(lines);
    }
    tree
}
