//! Splits a text into documents.

use anyhow::{Result, anyhow};
use serde_json::Value;

use super::{
    super::{
        faults::Fault,
        objects::{Service, Slice},
    },
    Filter, Named, json,
};

/// A document of a text, or an item of a list.
pub enum Document {
    /// `v1/Service`.
    Service(Result<Named<Service>, Fault>),
    /// `discovery.k8s.io/v1/EndpointSlice`.
    Slice(Result<Named<Slice>, Fault>),
    /// A Service or an EndpointSlice that the filter leaves out, or an object of a kind that is not read.
    LeftOut,
    /// Any document.
    Other(Value),
}

/// The documents of a text. If the text looks like JSON, the JSON parser is tried first: it is faster, and JSON files may be
/// large.
///
/// # Errors
///
/// The text is neither YAML nor JSON.
pub fn parse(text: &str, filter: Filter) -> Result<Vec<Document>> {
    if text.trim_start().starts_with('{')
        && let Some(documents) = json::documents(text, filter)
    {
        return Ok(documents);
    }
    Ok(values(text)?.into_iter().map(Document::Other).collect())
}

fn values(text: &str) -> Result<Vec<Value>> {
    if text.trim_start().starts_with(['{', '[']) {
        let parsed: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        if let Ok(values) = parsed {
            return Ok(values);
        }
    }
    // No limits: they protect against hostile input, but a dump of a large cluster would exceed them.
    // Comments are not needed. Their limit would reject files with many comments in a row.
    let options = serde_saphyr::options! { budget: None, emit_comments: false };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| anyhow!("{}", first_line(&error.to_string())))
}

/// The first line of an error. The YAML parser adds an excerpt of the text on further lines.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}
