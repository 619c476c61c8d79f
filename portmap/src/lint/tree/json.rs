//! Reads JSON, which is faster than to read it as YAML.

use std::collections::HashSet;

use compact_str::CompactString;
use jiter::{Jiter, NumberAny, NumberInt, Peek};
use memchr::memchr_iter;

use super::{Line, Node, Value};

/// The tree of a JSON text, without the field `endpoints` of objects: no rule reads the addresses of an EndpointSlice, which are most
/// of a dump of a cluster. `None` if the text is no JSON value. So is one with more than `levels` levels, a key twice in one map, or
/// an integer of more than 64 bits, outside of what is left out. The parser for YAML, of which JSON is a part, then has the error.
pub fn parse(text: &str, levels: usize) -> Option<Node> {
    let mut reader = Reader { text: text.as_bytes(), json: Jiter::new(text.as_bytes()), counted: 0, line: 1 };
    let peek = reader.json.peek().ok()?;
    let node = reader.node(peek, levels, Place::Object)?;
    reader.json.finish().ok()?;
    Some(node)
}

/// The place of a value in a document.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The document itself, or an item of a list of objects.
    Object,
    /// The items of a list of objects.
    Items,
    /// Within an object.
    Field,
}

impl Place {
    /// The place of the field with this key, of a value here.
    fn of_field(self, key: &str) -> Self {
        if self == Self::Object && key == "items" { Self::Items } else { Self::Field }
    }

    /// The place of the items of a list here.
    fn of_items(self) -> Self {
        if self == Self::Items { Self::Object } else { Self::Field }
    }
}

struct Reader<'a> {
    text: &'a [u8],
    json: Jiter<'a>,
    /// The number of bytes before which lines are counted.
    counted: usize,
    /// The line at that place.
    line: Line,
}

impl Reader<'_> {
    /// Reads the value that begins at the current place.
    fn node(&mut self, peek: Peek, levels: usize, place: Place) -> Option<Node> {
        let line = self.line_here()?;
        let levels = levels.checked_sub(1)?;
        let value = match peek {
            Peek::Null => self.json.known_null().map(|()| Value::Null).ok()?,
            Peek::True | Peek::False => Value::Bool(self.json.known_bool(peek).ok()?),
            Peek::String => Value::Text(self.json.known_str().ok()?.into()),
            Peek::Array => Value::List(self.items(levels, place.of_items())?),
            Peek::Object => Value::Map(self.fields(levels, place)?),
            _ => match self.json.known_number(peek).ok()? {
                NumberAny::Int(NumberInt::Int(number)) => Value::Integer(number),
                NumberAny::Float(number) => Value::Float(number),
            },
        };
        Some(Node { line, value })
    }

    fn items(&mut self, levels: usize, place: Place) -> Option<Vec<Node>> {
        let mut items = Vec::new();
        let mut next = self.json.known_array().ok()?;
        while let Some(peek) = next {
            items.push(self.node(peek, levels, place)?);
            next = self.json.array_step().ok()?;
        }
        Some(items)
    }

    fn fields(&mut self, levels: usize, place: Place) -> Option<Vec<(CompactString, Node)>> {
        let mut fields = Vec::new();
        let mut next = self.json.known_object().ok()?.map(CompactString::from);
        while let Some(key) = next {
            let peek = self.json.peek().ok()?;
            if place == Place::Object && key == "endpoints" {
                self.json.known_skip(peek).ok()?;
            } else {
                let inner = place.of_field(&key);
                fields.push((key, self.node(peek, levels, inner)?));
            }
            next = self.json.next_key().ok()?.map(CompactString::from);
        }
        has_different_keys(&fields).then_some(fields)
    }

    /// The line of the current place.
    fn line_here(&mut self) -> Option<Line> {
        let here = self.json.current_index();
        let passed = self.text.get(self.counted..here)?;
        self.line += Line::try_from(memchr_iter(b'\n', passed).count()).ok()?;
        self.counted = here;
        Some(self.line)
    }
}

fn has_different_keys(fields: &[(CompactString, Node)]) -> bool {
    /// Up to this number, comparing all keys with each other is faster.
    const FEW: usize = 16;
    if fields.len() > FEW {
        return fields.iter().map(|(key, _)| key).collect::<HashSet<_>>().len() == fields.len();
    }
    fields.iter().enumerate().all(|(index, (key, _))| fields.iter().take(index).all(|(other, _)| other != key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
  "kind": "Service", "metadata": {"name": "a\"\u00e4\n",
    "labels": {}},
  "spec":
    {
    "ports": [
      {"port": 80, "weight": 1.5, "low": -3},
      [
        null, true, false, 9223372036854775807
      ]
    ]
  }
}
"#;

    #[test]
    fn json_gives_the_same_tree_as_yaml() {
        let yaml: Node = serde_saphyr::from_str(TEXT).expect("YAML");
        assert_eq!(parse(TEXT, 100), Some(yaml));
    }

    #[test]
    fn the_addresses_of_slices_are_left_out() {
        let object = r#"{"endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"endpoints": 1}]}"#;
        let read = |text: &str| parse(text, 100).expect("JSON");
        let without = read(r#"{"ports": [{"endpoints": 1}]}"#);
        assert_eq!(read(object), without);
        assert_eq!(read(&format!(r#"{{"items": [{object}]}}"#)).list("items"), [without]);
        assert_eq!(parse(r#"{"endpoints": [1,]}"#, 100), None);
    }

    #[test]
    fn the_parser_for_yaml_has_the_error() {
        for text in ["{", "{\"a\": 1, \"a\": 2}", "{} {}", "{\"a\": 9223372036854775808}", "{a: 1}", "{\"a\": NaN}", "", "[1,]"]
        {
            assert_eq!(parse(text, 100), None, "{text}");
        }
        let many = (0..20).map(|number| format!("\"{number}\": 1")).collect::<Vec<_>>().join(", ");
        assert!(parse(&format!("{{{many}}}"), 100).is_some());
        assert_eq!(parse(&format!("{{{many}, \"7\": 1}}"), 100), None);
    }

    #[test]
    fn the_number_of_levels_is_limited() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&nested(100), 100).is_some());
        assert_eq!(parse(&nested(101), 100), None);
        assert_eq!(parse(&nested(1_000_000), 100), None);
    }
}
