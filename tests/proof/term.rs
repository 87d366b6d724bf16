//! Formulas, written as SMT-LIB text.

use std::collections::BTreeMap;
use std::fmt;

/// An S-expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    Atom(String),
    List(Vec<Self>),
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Atom(name) => f.write_str(name),
            Self::List(items) => {
                f.write_str("(")?;
                for (index, item) in items.iter().enumerate() {
                    let space = if index == 0 { "" } else { " " };
                    write!(f, "{space}{item}")?;
                }
                f.write_str(")")
            }
        }
    }
}

impl Term {
    /// Reads one expression.
    pub(crate) fn parse(text: &str) -> Self {
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        let mut stack = vec![Vec::new()];
        for token in spaced.split_whitespace() {
            match token {
                "(" => stack.push(Vec::new()),
                ")" => {
                    let list = Self::List(stack.pop().expect("balanced"));
                    stack.last_mut().unwrap_or_else(|| panic!("one ) too many: {text}")).push(list);
                }
                atom => stack.last_mut().expect("balanced").push(Self::Atom(atom.to_owned())),
            }
        }
        let mut top = stack.pop().expect("never empty");
        assert!(stack.is_empty() && top.len() == 1, "not one expression: {text}");
        top.remove(0)
    }

    /// Writes every abbreviation out.
    pub(crate) fn expand(&self, macros: &[Macro]) -> Self {
        let Self::List(items) = self else { return self.clone() };
        let items: Vec<Self> = items.iter().map(|item| item.expand(macros)).collect();
        let known = match &items[..] {
            [Self::Atom(name), ..] => macros.iter().find(|m| m.name == name.as_str()),
            _ => None,
        };
        let Some(known) = known else { return Self::List(items) };
        assert_eq!(items.len() - 1, known.params.len(), "{self}");
        let bound: BTreeMap<&str, &Self> = known.params.iter().copied().zip(&items[1..]).collect();
        let body = Self::parse(known.body).expand(macros);
        body.rename(&|name| bound.get(name).map(|&term| term.clone()))
    }

    /// Replaces atoms.
    pub(crate) fn rename(&self, new: &impl Fn(&str) -> Option<Self>) -> Self {
        match self {
            Self::Atom(name) => new(name).unwrap_or_else(|| self.clone()),
            Self::List(items) => Self::List(items.iter().map(|item| item.rename(new)).collect()),
        }
    }
}

/// An abbreviation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Macro {
    pub(crate) name: &'static str,
    pub(crate) params: &'static [&'static str],
    pub(crate) body: &'static str,
}
