//! Reads JSON with many objects: Services and EndpointSlices are decoded from their text, on all processors, without a tree of
//! values in between.

mod kind;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    super::{
        kinds,
        objects::{Service, Slice},
    },
    Filter, complete,
    documents::Document,
    named,
};
use crate::parallel;
use kind::Kind;

/// The fields that select the type of a document, and the items of a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

/// The text of an object.
#[derive(Clone)]
pub struct Text<'a> {
    json: &'a str,
    /// The kind and `apiVersion` that the object has if it names none: it is an item of a typed list.
    of_list: Option<(Cow<'a, str>, Cow<'a, str>)>,
}

/// The documents of a text, the items of lists by themselves. `None` if the text is not JSON, or if a document has another
/// form than an object of Kubernetes.
pub fn split(text: &str) -> Option<Vec<Text<'_>>> {
    Some(heads(text)?.into_iter().flat_map(|(json, head)| texts(json, head)).collect())
}

/// Decodes documents. `None` if one has too many levels.
pub fn decode(texts: &[Text], filter: Filter) -> Option<Vec<Document>> {
    let parts = parallel::in_parts(texts, |part| part.iter().map(|text| text.decode(filter)).collect());
    Some(parts.into_iter().collect::<Option<Vec<Vec<_>>>>()?.into_iter().flatten().collect())
}

/// The documents' texts, each with its head.
fn heads(text: &str) -> Option<Vec<(&str, Head<'_>)>> {
    let mut heads = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Head>();
    let mut start = 0;
    while let Some(head) = stream.next() {
        let json = text[start..stream.byte_offset()].trim_start();
        // The decoder would take a list of values for the values of the fields.
        heads.push((json, head.ok().filter(|_| json.starts_with('{'))?));
        start = stream.byte_offset();
    }
    Some(heads)
}

/// The items of a list, or the document itself.
fn texts<'a>(json: &'a str, head: Head<'a>) -> Vec<Text<'a>> {
    let Head { api_version, kind, items } = head;
    let (Some(kind), Some(items)) = (item_kind(kind), items) else { return vec![Text { json, of_list: None }] };
    let of_list = (!kind.is_empty()).then_some((kind, api_version));
    items.into_iter().map(|item| Text { json: item.get(), of_list: of_list.clone() }).collect()
}

/// The kind of the items of a typed list; empty for other lists, and `None` for a kind that is no list.
fn item_kind(list: Cow<'_, str>) -> Option<Cow<'_, str>> {
    match list {
        Cow::Borrowed(list) => list.strip_suffix("List").map(Cow::Borrowed),
        Cow::Owned(list) => list.strip_suffix("List").map(|kind| Cow::Owned(kind.to_owned())),
    }
}

impl Text<'_> {
    fn of_list(&self) -> Option<(&str, &str)> {
        self.of_list.as_ref().map(|(kind, version)| (&**kind, &**version))
    }

    /// Decodes the object. `None` if its text has too many levels. An object that does not fit its type becomes a value.
    fn decode(&self, filter: Filter) -> Option<Document> {
        let typed = Kind::of(self.json).and_then(|kind| self.decode_typed(&kind, filter));
        typed.or_else(|| {
            let mut value: Value = serde_json::from_str(self.json).ok()?;
            complete(&mut value, self.of_list());
            Some(Document::Other(value))
        })
    }

    fn decode_typed(&self, own: &Kind, filter: Filter) -> Option<Document> {
        let (list_kind, list_version) = self.of_list().unwrap_or_default();
        let kind = if own.kind.is_empty() { list_kind } else { &own.kind };
        let version = if own.version.is_empty() { list_version } else { &own.version };
        match (version, kind) {
            ("v1", "Service") | ("discovery.k8s.io/v1", "EndpointSlice") if !filter.takes(self.json) => Some(Document::LeftOut),
            ("v1", "Service") => {
                let raw = serde_json::from_str(self.json).ok()?;
                Some(Document::Service(named(raw, kinds::SERVICE, |raw| Service::new(raw, filter.wanted))))
            }
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                let raw = serde_json::from_str(self.json).ok()?;
                Some(Document::Slice(named(raw, kinds::SLICE, |raw| Slice::new(raw, filter.wanted))))
            }
            _ => kinds::is_ignored(version, kind).then_some(Document::LeftOut),
        }
    }
}
