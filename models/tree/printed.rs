//! What `{:?}` prints, read as a tree.

use super::Tree;

/// The tree of a printed value. None if the text is no value, or more than one.
pub(super) fn read(text: &str) -> Option<Tree> {
    let mut parser = Parser { text, at: 0 };
    let tree = parser.value()?;
    parser.rest().trim().is_empty().then_some(tree)
}

/// A printed text, and how far it has been read.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.spaces();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn value(&mut self) -> Option<Tree> {
        self.spaces();
        match self.rest().chars().next()? {
            quote @ ('"' | '\'') => self.quoted(quote),
            '[' => self.list("[", "]"),
            '(' => self.list("(", ")"),
            '{' => self.braces(None),
            _ => self.word(),
        }
    }

    fn quoted(&mut self, quote: char) -> Option<Tree> {
        let mut text = String::new();
        let rest = self.rest();
        let mut chars = rest.char_indices().skip(1);
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' => match chars.next()?.1 {
                    'n' => text.push('\n'),
                    'r' => text.push('\r'),
                    't' => text.push('\t'),
                    '0' => text.push('\0'),
                    'u' => {
                        let (_, hex) = rest[at..].split_once('{')?;
                        let (hex, _) = hex.split_once('}')?;
                        text.push(char::from_u32(u32::from_str_radix(hex, 16).ok()?)?);
                        while chars.next()?.1 != '}' {}
                    }
                    other => text.push(other),
                },
                _ if char == quote => {
                    self.at += at + quote.len_utf8();
                    return Some(Tree::Leaf(text));
                }
                _ => text.push(char),
            }
        }
        None
    }

    fn list(&mut self, open: &str, close: &str) -> Option<Tree> {
        self.eat(open).then_some(())?;
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(self.value()?);
            if !self.eat(",") {
                self.eat(close).then_some(())?;
                break;
            }
        }
        Some(Tree::List(items))
    }

    /// A struct's fields, a map or a set. The keys of a map are shown as they are printed.
    fn braces(&mut self, name: Option<&str>) -> Option<Tree> {
        self.eat("{").then_some(())?;
        let mut fields = Vec::new();
        let mut items = Vec::new();
        if let Some(name) = name {
            fields.push((Tree::NAME.to_owned(), Tree::Leaf(name.to_owned())));
        }
        while !self.eat("}") {
            if self.eat("..") {
                self.eat("}").then_some(())?;
                break;
            }
            self.spaces();
            // A name, as fields have, is no value of its own; a key of a map may be any.
            if let Some(key) = self.key() {
                fields.push((key.to_owned(), self.value()?));
            } else {
                let begun = self.at;
                let first = self.value()?;
                let key = self.text[begun..self.at].trim();
                if self.eat(":") {
                    fields.push((key.to_owned(), self.value()?));
                } else {
                    items.push(first);
                }
            }
            if !self.eat(",") {
                self.eat("}").then_some(())?;
                break;
            }
        }
        let is_list = items.len() + fields.len() > 0 && fields.is_empty();
        Some(if is_list { Tree::List(items) } else { Tree::Fields(fields) })
    }

    /// The name of a field and its colon, if they are next.
    fn key(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
        let is_key = end > 0 && rest[end..].starts_with(": ");
        self.at += if is_key { end + 1 } else { 0 };
        is_key.then(|| &rest[..end])
    }

    /// A name, alone or before its fields, or a number.
    fn word(&mut self) -> Option<Tree> {
        let rest = self.rest();
        let is_end =
            |c: char| matches!(c, ',' | ':' | '(' | ')' | '{' | '}' | '[' | ']' | '"' | '\'' | ' ');
        let end = rest.find(is_end).unwrap_or(rest.len());
        let word = &rest[..end];
        if word.is_empty() {
            return None;
        }
        self.at += end;
        let is_name = word.starts_with(|c: char| c.is_alphabetic());
        if is_name && self.rest().starts_with(" {") {
            return self.braces(Some(word));
        }
        if is_name && self.rest().starts_with('(') {
            let Tree::List(mut items) = self.list("(", ")")? else { return None };
            return Some(match (word, items.len()) {
                ("Some", 1) => items.swap_remove(0),
                (_, 1) => Tree::Fields(vec![(word.to_owned(), items.swap_remove(0))]),
                _ => Tree::Fields(vec![(word.to_owned(), Tree::List(items))]),
            });
        }
        Some(Tree::Leaf(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn json(tree: &Tree) -> String {
        serde_json::to_string(tree).unwrap()
    }

    #[derive(Debug)]
    #[allow(dead_code, reason = "they are printed")]
    struct Inner {
        n: i64,
        text: &'static str,
    }

    #[derive(Debug)]
    #[allow(dead_code, reason = "they are printed")]
    enum Outer {
        Unit,
        One(u64),
        Two(u8, u8),
        Struct { map: BTreeMap<(u8, u8), Inner>, set: BTreeSet<u8>, none: Option<u8> },
    }

    //= SPEC EXPLORER-10 test
    #[test]
    fn what_is_printed_is_read() {
        assert_eq!(json(&Tree::of(&Outer::Unit)), r#""Unit""#);
        let long = json(&Tree::of(&Outer::One(u64::MAX)));
        assert_eq!(long, r#"{"One":"18446744073709551615"}"#);
        assert_eq!(json(&Tree::of(&Outer::Two(1, 2))), r#"{"Two":["1","2"]}"#);
        let text = "<img onerror=\"x\"> {a: 1}, \u{7f}\n";
        let map = BTreeMap::from([((1, 2), Inner { n: -3, text })]);
        let outer = Outer::Struct { map, set: [4, 5].into(), none: None };
        assert_eq!(
            json(&Tree::of(&outer)),
            r#"{"is":"Struct","map":{"(1, 2)":{"is":"Inner","n":"-3","text":"<img onerror=\"x\"> {a: 1}, "#
                .to_owned()
                + "\u{7f}"
                + r#"\n"}},"set":["4","5"],"none":"None"}"#
        );
        assert_eq!(Tree::parse("a { b"), Tree::Leaf("a { b".to_owned()), "no tree, but not lost");
    }
}
