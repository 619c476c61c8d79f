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
    Reader::new(text, 1).finish(levels)
}

/// A list of objects, whose items are still text.
pub struct List<'a> {
    /// The other fields.
    pub head: Node,
    /// The items.
    pub items: Vec<Item<'a>>,
    /// The levels that are left for an item.
    levels: usize,
}

/// An item of a list.
pub struct Item<'a> {
    text: &'a str,
    line: Line,
}

impl<'a> List<'a> {
    /// The list of objects in a JSON text, which begins on `line`. `None` for all other texts, and for some that [`parse`] refuses.
    pub fn parse(text: &'a str, line: Line, levels: usize) -> Option<Self> {
        let (mut reader, mut lists) = (Reader::new(text, line), Vec::new());
        if reader.json.peek().ok()? != Peek::Object {
            return None;
        }
        let (line, levels) = (reader.line_here()?, levels.checked_sub(1)?);
        let take_items = |reader: &mut Reader<'a>, key: &str, peek| {
            let are_items = key == "items" && peek == Peek::Array;
            if are_items {
                lists.push(reader.item_texts()?);
            }
            Some(are_items)
        };
        let fields = reader.fields_but(take_items, levels, Place::Field)?;
        reader.json.finish().ok()?;
        let is_once = lists.len() == 1 && fields.iter().all(|(key, _)| key != "items");
        let items = lists.pop().filter(|_| is_once)?;
        Some(Self { head: Node { line, value: Value::Map(fields) }, items, levels: levels.checked_sub(1)? })
    }

    /// The tree of an item, as in the tree of the whole list; `None` if [`parse`] refuses its text.
    pub fn tree(&self, item: &Item<'_>) -> Option<Node> {
        Reader::new(item.text, item.line).finish(self.levels)
    }
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
    text: &'a str,
    json: Jiter<'a>,
    /// The number of bytes before which lines are counted.
    counted: usize,
    /// The line at that place.
    line: Line,
}

impl<'a> Reader<'a> {
    /// A reader of a text that begins on this line.
    fn new(text: &'a str, line: Line) -> Self {
        Self { text, json: Jiter::new(text.as_bytes()), counted: 0, line }
    }

    /// Reads the text as one object.
    fn finish(mut self, levels: usize) -> Option<Node> {
        let peek = self.json.peek().ok()?;
        let node = self.node(peek, levels, Place::Object)?;
        self.json.finish().ok()?;
        Some(node)
    }

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
        let leave_out = |reader: &mut Self, key: &str, peek| {
            let is_left_out = place == Place::Object && key == "endpoints";
            if is_left_out {
                reader.json.known_skip(peek).ok()?;
            }
            Some(is_left_out)
        };
        self.fields_but(leave_out, levels, place)
    }

    /// Reads the fields of a map, except those that `take` reads itself, for which it returns true.
    fn fields_but(
        &mut self,
        mut take: impl FnMut(&mut Self, &str, Peek) -> Option<bool>,
        levels: usize,
        place: Place,
    ) -> Option<Vec<(CompactString, Node)>> {
        let mut fields = Vec::new();
        let mut next = self.json.known_object().ok()?.map(CompactString::from);
        while let Some(key) = next {
            let peek = self.json.peek().ok()?;
            if !take(self, &key, peek)? {
                let inner = place.of_field(&key);
                fields.push((key, self.node(peek, levels, inner)?));
            }
            next = self.json.next_key().ok()?.map(CompactString::from);
        }
        has_different_keys(&fields).then_some(fields)
    }

    /// Passes over the items of the array that begins at the current place.
    fn item_texts(&mut self) -> Option<Vec<Item<'a>>> {
        let mut items = Vec::new();
        let mut next = self.json.known_array().ok()?;
        while let Some(peek) = next {
            let (line, start) = (self.line_here()?, self.json.current_index());
            self.json.known_skip(peek).ok()?;
            items.push(Item { text: self.text.get(start..self.json.current_index())?, line });
            next = self.json.array_step().ok()?;
        }
        Some(items)
    }

    /// The line of the current place.
    fn line_here(&mut self) -> Option<Line> {
        let here = self.json.current_index();
        let passed = self.text.as_bytes().get(self.counted..here)?;
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
    fn the_items_of_a_list_are_those_of_its_tree() {
        let text = format!("{{\"kind\": \"List\",\n\"items\": [{TEXT}, {{\"endpoints\": [1]}},\n 7],\n\"metadata\": {{}}}}");
        let (whole, list) = (parse(&text, 100).expect("JSON"), List::parse(&text, 1, 100).expect("a list"));
        let items: Vec<Node> = list.items.iter().map(|item| list.tree(item).expect("JSON")).collect();
        assert_eq!(items, whole.list("items"));
        assert_eq!((list.head.text("kind"), list.head.get("metadata")), (Some("List"), whole.get("metadata")));
        assert_eq!(List::parse(&text, 11, 100).expect("a list").items[0].line, 12);
        let deep = List::parse(r#"{"items": [{"a": [1]}]}"#, 1, 5).expect("a list");
        assert!(deep.tree(&deep.items[0]).is_some());
        let deep = List::parse(r#"{"items": [{"a": [1]}]}"#, 1, 4).expect("a list");
        assert_eq!(deep.tree(&deep.items[0]), None);
    }

    #[test]
    fn other_texts_are_no_list() {
        for text in
            ["{}", "[]", r#"{"items": {}}"#, r#"{"items": [], "items": []}"#, r#"{"items": [], "items": 1}"#, r#"{"items": [}"#]
        {
            assert!(List::parse(text, 1, 100).is_none(), "{text}");
        }
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
