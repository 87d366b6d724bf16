//! A value as a tree: what an explorer shows of a state, and how two states differ.
//!
//! Every state of every world can be printed, so a tree is read from what `{:?}` prints. There is one
//! picture of a state for each protocol without any code of it, and it is the one that counterexamples
//! show too. All leaves are text, so no number is too long for JSON.
//!
//! The value and its JSON are here; `printed` reads what was printed, and `change` compares two trees.

mod change;
mod printed;

use std::fmt::Debug;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::change::{Change, ChangeKind};

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

impl Tree {
    /// The field that holds the name of a struct or a variant.
    pub const NAME: &'static str = "is";

    /// The tree of a value. What cannot be read as one is a leaf with all of its text.
    pub fn of(value: &impl Debug) -> Self {
        Self::parse(&format!("{value:?}"))
    }

    /// The tree of a printed value.
    pub fn parse(text: &str) -> Self {
        printed::read(text).unwrap_or_else(|| Self::Leaf(text.to_owned()))
    }

    /// What has changed from an older value to this one, by path.
    pub fn changes_since(&self, older: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        change::compare(&mut Vec::new(), older, self, &mut changes);
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
    use super::*;

    #[test]
    fn a_tree_comes_back_from_json() {
        let tree = Tree::parse("A { b: [1, 2], c: {(1): x}, d: None }");
        assert_eq!(
            serde_json::from_str::<Tree>(&serde_json::to_string(&tree).unwrap()).unwrap(),
            tree
        );
    }
}
