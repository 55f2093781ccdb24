//! Values of any type as trees, read from their `Debug` text, so that answers can be masked and compared
//! without code for each of their types.

use std::fmt::{Debug, Write as _};

use serde_json::Value;

/// What a `Debug` text says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tree {
    /// A number, a quoted string, a name.
    Leaf(String),
    List(Vec<Tree>),
    /// Fields by name.
    Fields(Vec<(String, Tree)>),
}

impl Tree {
    /// Reads the `Debug` text of `value`. Wrappers (`Some(x)`, `TopicName(x)`) are left out.
    pub fn of(value: &impl Debug) -> Tree {
        let text = format!("{value:?}");
        let mut reader = Reader { rest: &text };
        let tree = reader.value();
        assert!(reader.rest.is_empty(), "cannot read {}", reader.rest);
        tree
    }

    /// Replaces what `mask` gives a text for, by field name and leaf. Lists under a field take its name.
    pub fn mask(&mut self, mask: &impl Fn(&str, &str) -> Option<String>) {
        self.mask_field("", mask);
    }

    fn mask_field(&mut self, field: &str, mask: &impl Fn(&str, &str) -> Option<String>) {
        match self {
            Tree::Leaf(text) => {
                if let Some(masked) = mask(field, text) {
                    *text = masked;
                }
            }
            Tree::List(items) => items
                .iter_mut()
                .for_each(|item| item.mask_field(field, mask)),
            Tree::Fields(fields) => {
                for (name, value) in fields {
                    value.mask_field(name, mask);
                }
            }
        }
    }

    /// Sorts lists of structures; the order of plain values has a meaning.
    pub fn sort(&mut self) {
        match self {
            Tree::Leaf(_) => {}
            Tree::List(items) => {
                items.iter_mut().for_each(Tree::sort);
                if items.iter().any(|item| matches!(item, Tree::Fields(_))) {
                    items.sort();
                }
            }
            Tree::Fields(fields) => fields.iter_mut().for_each(|(_, value)| value.sort()),
        }
    }

    /// Drops elements of lists that `keep` rejects; it is told the field of the list.
    pub fn retain(&mut self, keep: &impl Fn(&str, &Tree) -> bool) {
        if let Tree::Fields(fields) = self {
            for (name, value) in fields {
                if let Tree::List(items) = value {
                    items.retain(|item| keep(name, item));
                    for item in items.iter_mut() {
                        item.retain(keep);
                    }
                }
                value.retain(keep);
            }
        }
    }

    /// The leaf of a field.
    pub fn leaf(&self, field: &str) -> Option<&str> {
        let Tree::Fields(fields) = self else {
            return None;
        };
        fields.iter().find_map(|(name, value)| match value {
            Tree::Leaf(text) if name == field => Some(text.as_str()),
            _ => None,
        })
    }

    /// One line per leaf, with its path.
    pub fn lines(&self) -> String {
        let mut lines = String::new();
        self.write_lines("", &mut lines);
        lines
    }

    fn write_lines(&self, path: &str, lines: &mut String) {
        match self {
            Tree::Leaf(text) => {
                let _ = writeln!(lines, "{path} = {text}");
            }
            Tree::List(items) if items.is_empty() => {
                let _ = writeln!(lines, "{path} = []");
            }
            Tree::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.write_lines(&format!("{path}[{index}]"), lines);
                }
            }
            Tree::Fields(fields) => {
                for (name, value) in fields {
                    value.write_lines(&format!("{path}.{name}"), lines);
                }
            }
        }
    }

    /// The same for JSON as Kafka writes it: `camelCase` names.
    pub fn of_json(value: &Value) -> Tree {
        match value {
            Value::Null => Tree::Leaf("None".to_owned()),
            Value::String(text) => Tree::Leaf(format!("{text:?}")),
            Value::Bool(_) | Value::Number(_) => Tree::Leaf(value.to_string()),
            Value::Array(items) => Tree::List(items.iter().map(Tree::of_json).collect()),
            Value::Object(fields) => Tree::Fields(
                fields
                    .iter()
                    .map(|(name, value)| (snake_case(name), Tree::of_json(value)))
                    .collect(),
            ),
        }
    }

    /// Keeps only those fields that `pattern` has too: JSON lacks what a version lacks.
    pub fn keep_fields_of(&mut self, pattern: &Tree) {
        match (self, pattern) {
            (Tree::Fields(fields), Tree::Fields(wanted)) => {
                let mut kept = Vec::new();
                for (name, like) in wanted {
                    if let Some((_, value)) = fields.iter().find(|(other, _)| other == name) {
                        let mut value = value.clone();
                        value.keep_fields_of(like);
                        kept.push((name.clone(), value));
                    }
                }
                *fields = kept;
            }
            (Tree::List(items), Tree::List(wanted)) => {
                if let Some(like) = wanted.first() {
                    for item in items.iter_mut() {
                        item.keep_fields_of(like);
                    }
                }
            }
            _ => {}
        }
    }
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn value(&mut self) -> Tree {
        if self.eat("[") {
            return Tree::List(self.items("]", Self::value));
        }
        if self.eat("{") {
            // A map. None that matters has anything in it.
            return Tree::List(self.items("}", |reader| {
                let key = reader.value();
                if reader.eat(": ") {
                    Tree::List(vec![key, reader.value()])
                } else {
                    key
                }
            }));
        }
        let token = self.token();
        if self.eat("(") {
            let mut items = self.items(")", Self::value);
            return if items.len() == 1 {
                items.remove(0)
            } else {
                Tree::List(items)
            };
        }
        if self.eat(" { ") {
            let fields = self.items(" }", |reader| {
                let name = reader.token();
                reader.eat(": ");
                Tree::Fields(vec![(name, reader.value())])
            });
            let fields = fields.into_iter().filter_map(|field| match field {
                Tree::Fields(mut one) => one.pop(),
                _ => None,
            });
            return Tree::Fields(
                fields
                    .filter(|(name, _)| name != "unknown_tagged_fields")
                    .collect(),
            );
        }
        Tree::Leaf(token)
    }

    fn items(&mut self, end: &str, mut item: impl FnMut(&mut Self) -> Tree) -> Vec<Tree> {
        let mut items = Vec::new();
        while !self.eat(end) {
            assert!(!self.rest.is_empty(), "no {end}");
            items.push(item(self));
            self.eat(", ");
        }
        items
    }

    /// A string literal with its quotes, or whatever reaches to the next mark.
    fn token(&mut self) -> String {
        let prefix = usize::from(self.rest.starts_with("b\""));
        let length = if self.rest[prefix..].starts_with('"') {
            let mut is_escaped = false;
            let end = self.rest[prefix + 1..].find(|character| {
                let ends = character == '"' && !is_escaped;
                is_escaped = character == '\\' && !is_escaped;
                ends
            });
            prefix + end.map_or(self.rest.len() - prefix, |end| end + 2)
        } else {
            let is_mark = |character: char| ",:()[]{} ".contains(character);
            self.rest.find(is_mark).unwrap_or(self.rest.len())
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        token.to_owned()
    }

    fn eat(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    #[expect(dead_code, reason = "read through Debug")]
    struct Outer {
        name: Option<&'static str>,
        none: Option<i32>,
        inner: Vec<Inner>,
        bytes: bytes::Bytes,
        empty: Vec<i32>,
    }

    #[derive(Debug)]
    #[expect(dead_code, reason = "read through Debug")]
    struct Inner {
        id: i32,
        is_on: bool,
    }

    #[test]
    fn trees_are_read_masked_and_sorted() {
        let mut tree = Tree::of(&Outer {
            name: Some("a \"quoted, {text\""),
            none: None,
            inner: vec![
                Inner { id: 2, is_on: true },
                Inner {
                    id: -1,
                    is_on: false,
                },
            ],
            bytes: bytes::Bytes::from_static(b"x\0\"y"),
            empty: vec![],
        });
        tree.mask(&|field, leaf| (field == "is_on" && leaf == "true").then(|| "yes".to_owned()));
        tree.sort();
        assert_eq!(
            tree.lines(),
            ".name = \"a \\\"quoted, {text\\\"\"\n.none = None\n.inner[0].id = -1\n\
             .inner[0].is_on = false\n.inner[1].id = 2\n.inner[1].is_on = yes\n\
             .bytes = b\"x\\0\\\"y\"\n.empty = []\n"
        );
    }

    #[test]
    fn json_is_compared_by_the_fields_it_has() {
        let json = serde_json::json!({"inner": [{"isOn": true}], "name": "a"});
        let expected = Tree::of_json(&json);
        let mut tree = Tree::of(&Outer {
            name: Some("a"),
            none: Some(1),
            inner: vec![Inner { id: 2, is_on: true }],
            bytes: bytes::Bytes::new(),
            empty: vec![],
        });
        tree.keep_fields_of(&expected);
        assert_eq!(tree, expected);
    }
}
