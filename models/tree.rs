//! A value as a tree: what an explorer shows of a state, and how two states differ.
//!
//! Every state of every world can be printed, so a tree is read from what `{:?}` prints. There is one
//! picture of a state for each protocol without any code of it, and it is the one that counterexamples
//! show too. All leaves are text, so no number is too long for JSON.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tree {
    /// A number, a name, a text.
    Leaf(String),
    /// Values one after the other.
    List(Vec<Self>),
    /// Values with names. What a struct or a variant is called is its first field, [`Tree::NAME`].
    Fields(Vec<(String, Self)>),
}

/// Where and how a value differs from an older one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The names and places on the way there: in the older value for what was removed, otherwise in the
    /// newer one.
    pub path: Vec<String>,
    /// How.
    pub kind: ChangeKind,
    /// What was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Tree>,
    /// What is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Tree>,
}

/// How a value differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
}

impl Tree {
    /// The field that holds the name of a struct or a variant.
    pub const NAME: &'static str = "is";

    /// The tree of a value. What cannot be read as one is a leaf with all of its text.
    pub fn of(value: &impl Debug) -> Self {
        Self::parse(&format!("{value:?}"))
    }

    /// The tree of a printed value.
    pub fn parse(text: &str) -> Self {
        let mut parser = Parser { text, at: 0 };
        match parser.value() {
            Some(tree) if parser.rest().trim().is_empty() => tree,
            _ => Self::Leaf(text.to_owned()),
        }
    }

    /// What has changed from an older value to this one, by path.
    pub fn changes_since(&self, older: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        compare(&mut Vec::new(), older, self, &mut changes);
        changes
    }

    fn name(&self) -> Option<&Self> {
        match self {
            Self::Fields(fields) => {
                fields.iter().find(|(name, _)| name == Self::NAME).map(|(_, is)| is)
            }
            _ => None,
        }
    }
}

fn compare(path: &mut Vec<String>, old: &Tree, new: &Tree, changes: &mut Vec<Change>) {
    match (old, new) {
        _ if old == new => {}
        (Tree::Fields(olds), Tree::Fields(news)) if old.name() == new.name() => {
            for (name, was) in olds {
                path.push(name.clone());
                match news.iter().find(|(other, _)| other == name) {
                    Some((_, is)) => compare(path, was, is, changes),
                    None => changes.push(removed(path, was)),
                }
                path.pop();
            }
            for (name, is) in news {
                if olds.iter().all(|(other, _)| other != name) {
                    path.push(name.clone());
                    changes.push(added(path, is));
                    path.pop();
                }
            }
        }
        (Tree::List(olds), Tree::List(news)) => compare_lists(path, olds, news, changes),
        _ => changes.push(Change {
            path: path.clone(),
            kind: ChangeKind::Changed,
            before: Some(old.clone()),
            after: Some(new.clone()),
        }),
    }
}

fn removed(path: &[String], was: &Tree) -> Change {
    let (path, kind) = (path.to_vec(), ChangeKind::Removed);
    Change { path, kind, before: Some(was.clone()), after: None }
}

fn added(path: &[String], is: &Tree) -> Change {
    let (path, kind) = (path.to_vec(), ChangeKind::Added);
    Change { path, kind, before: None, after: Some(is.clone()) }
}

/// Lists of one length are compared place by place, unless it takes fewer changes to say what was put in and what was
/// taken out. What both have then, in their order, is left alone.
fn compare_lists(path: &mut Vec<String>, olds: &[Tree], news: &[Tree], changes: &mut Vec<Change>) {
    let is_one_length = olds.len() == news.len();
    let differ = olds.iter().zip(news).filter(|(old, new)| old != new).count();
    if is_one_length && differ < FEW {
        return compare_places(path, olds, news, changes);
    }
    let (kept_old, kept_new) = in_both(olds, news);
    let gone = kept_old.iter().filter(|kept| !**kept).count();
    if is_one_length && differ <= 2 * gone {
        return compare_places(path, olds, news, changes);
    }
    for (place, old) in olds.iter().enumerate().filter(|(place, _)| !kept_old[*place]) {
        path.push(place.to_string());
        changes.push(removed(path, old));
        path.pop();
    }
    for (place, new) in news.iter().enumerate().filter(|(place, _)| !kept_new[*place]) {
        path.push(place.to_string());
        changes.push(added(path, new));
        path.pop();
    }
}

/// With fewer places that differ, nothing was put in and something else taken out.
const FEW: usize = 3;

fn compare_places(path: &mut Vec<String>, olds: &[Tree], news: &[Tree], changes: &mut Vec<Change>) {
    for (place, (old, new)) in olds.iter().zip(news).enumerate() {
        path.push(place.to_string());
        compare(path, old, new, changes);
        path.pop();
    }
}

/// Which elements of two lists belong to a longest common subsequence. What they begin and end with alike belongs
/// to one, so only what lies between is compared each with each.
fn in_both(olds: &[Tree], news: &[Tree]) -> (Vec<bool>, Vec<bool>) {
    let (mut kept_old, mut kept_new) = (vec![true; olds.len()], vec![true; news.len()]);
    let same = |(old, new): &(&Tree, &Tree)| old == new;
    let begin = olds.iter().zip(news).take_while(same).count();
    let ends = olds[begin..].iter().rev().zip(news[begin..].iter().rev());
    let end = ends.take_while(same).count();
    let (olds, news) = (&olds[begin..olds.len() - end], &news[begin..news.len() - end]);
    kept_old[begin..begin + olds.len()].fill(false);
    kept_new[begin..begin + news.len()].fill(false);
    // Each different value as a number, so that two are compared at once.
    let mut numbers = BTreeMap::new();
    let mut number = |tree| {
        let next = numbers.len();
        *numbers.entry(tree).or_insert(next)
    };
    let olds: Vec<usize> = olds.iter().map(&mut number).collect();
    let news: Vec<usize> = news.iter().map(&mut number).collect();
    let mut longest = vec![vec![0_u32; news.len() + 1]; olds.len() + 1];
    for (i, old) in olds.iter().enumerate().rev() {
        for (j, new) in news.iter().enumerate().rev() {
            longest[i][j] = if old == new {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < olds.len() && j < news.len() {
        if olds[i] == news[j] {
            (kept_old[begin + i], kept_new[begin + j]) = (true, true);
            (i, j) = (i + 1, j + 1);
        } else if longest[i + 1][j] >= longest[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    (kept_old, kept_new)
}

/// Reads what `{:?}` prints.
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

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Leaf(text) => serializer.serialize_str(text),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Fields(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Tree;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.to_string()))
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Leaf("None".to_owned()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Leaf(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Tree::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(Tree::Fields(fields))
            }
        }
        deserializer.deserialize_any(Any)
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

    #[test]
    fn a_tree_comes_back_from_json() {
        let tree = Tree::parse("A { b: [1, 2], c: {(1): x}, d: None }");
        assert_eq!(serde_json::from_str::<Tree>(&json(&tree)).unwrap(), tree);
    }

    #[test]
    fn a_difference_says_where_and_how() {
        let old = Tree::parse("S { a: 1, list: [x, y, z], same: T { b: 1 }, gone: 1 }");
        let new = Tree::parse("S { a: 2, list: [x, z, w, v], same: T { b: 1 }, new: 1 }");
        let told: Vec<_> = new
            .changes_since(&old)
            .into_iter()
            .map(|change| format!("{:?} {}", change.kind, change.path.join("/")))
            .collect();
        assert_eq!(
            told,
            [
                "Changed a",
                "Removed list/1",
                "Added list/2",
                "Added list/3",
                "Removed gone",
                "Added new"
            ]
        );
        assert!(new.changes_since(&new).is_empty());
    }

    #[test]
    fn what_was_put_in_and_taken_out_moves_nothing_else() {
        let told = |old: &str, new: &str| -> Vec<_> {
            let changes = Tree::parse(new).changes_since(&Tree::parse(old)).into_iter();
            changes.map(|change| format!("{:?} {}", change.kind, change.path.join("/"))).collect()
        };
        // One message has gone and another has come: of the rest, each has another place.
        assert_eq!(told("[b, c, d, e, f]", "[c, d, e, f, g]"), ["Removed 0", "Added 4"]);
        // Each of the nodes is another one now.
        let changed = ["Changed 0", "Changed 1", "Changed 2", "Changed 3"];
        assert_eq!(told("[a, b, c, d]", "[w, x, y, z]"), changed);
        assert_eq!(told("[a, b]", "[b, a]"), ["Changed 0", "Changed 1"]);
    }
}
