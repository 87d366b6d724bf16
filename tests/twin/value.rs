//! Values as TLA+ has them: what both sides are compared in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A value of TLA+.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Value {
    Int(i64),
    Bool(bool),
    Text(String),
    /// A model value.
    Model(String),
    Set(BTreeSet<Self>),
    Tuple(Vec<Self>),
    Record(BTreeMap<String, Self>),
    Function(BTreeMap<Self, Self>),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).expect("a small number"))
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Value {
    pub(crate) fn none() -> Self {
        Self::Model("None".to_owned())
    }

    pub(crate) fn record(fields: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        Self::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// A function of these. TLA+ knows no difference between a sequence and a function of 1..n.
    pub(crate) fn function(pairs: impl IntoIterator<Item = (Self, Self)>) -> Self {
        let pairs: BTreeMap<Self, Self> = pairs.into_iter().collect();
        let is_sequence =
            pairs.keys().zip(1_i64..).all(|(argument, place)| *argument == Self::Int(place));
        if is_sequence {
            return Self::Tuple(pairs.into_values().collect());
        }
        Self::Function(pairs)
    }

    /// Reads a value as TLC prints it.
    pub(crate) fn parse(text: &str) -> Self {
        let mut reader = Reader { text: text.as_bytes(), at: 0 };
        let value = reader.value();
        reader.skip();
        assert_eq!(reader.at, reader.text.len(), "more than a value: {text}");
        value
    }
}

/// As TLC reads it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(", ");
        match self {
            Self::Int(number) => write!(f, "{number}"),
            Self::Bool(truth) => f.write_str(if *truth { "TRUE" } else { "FALSE" }),
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Model(name) => f.write_str(name),
            Self::Set(values) => {
                write!(f, "{{{}}}", list(&mut values.iter().map(ToString::to_string)))
            }
            Self::Tuple(values) => {
                write!(f, "<<{}>>", list(&mut values.iter().map(ToString::to_string)))
            }
            Self::Record(fields) => {
                let fields = fields.iter().map(|(name, value)| format!("{name} |-> {value}"));
                write!(f, "[{}]", list(&mut fields.into_iter()))
            }
            Self::Function(pairs) => {
                let pairs: Vec<String> =
                    pairs.iter().map(|(of, value)| format!("({of} :> {value})")).collect();
                write!(f, "({})", pairs.join(" @@ "))
            }
        }
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn skip(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn takes(&mut self, token: &str) -> bool {
        self.skip();
        let found = self.text[self.at..].starts_with(token.as_bytes());
        if found {
            self.at += token.len();
        }
        found
    }

    fn needs(&mut self, token: &str) {
        let rest = String::from_utf8_lossy(&self.text[self.at..]);
        let rest: String = rest.chars().take(40).collect();
        assert!(self.takes(token), "{token} is missing before {rest}");
    }

    fn word(&mut self) -> String {
        self.skip();
        let rest = &self.text[self.at..];
        let is_part = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_' || *c == b'-';
        let length = rest.iter().take_while(|c| is_part(c)).count();
        self.at += length;
        String::from_utf8_lossy(&rest[..length]).into_owned()
    }

    fn list(&mut self, end: &str) -> Vec<Value> {
        let mut values = Vec::new();
        while !self.takes(end) {
            if !values.is_empty() {
                self.needs(",");
            }
            values.push(self.value());
        }
        values
    }

    fn value(&mut self) -> Value {
        if self.takes("<<") {
            return Value::Tuple(self.list(">>"));
        }
        if self.takes("{") {
            return Value::Set(self.list("}").into_iter().collect());
        }
        if self.takes("[") {
            let mut fields = BTreeMap::new();
            while !self.takes("]") {
                if !fields.is_empty() {
                    self.needs(",");
                }
                let name = self.word();
                self.needs("|->");
                fields.insert(name, self.value());
            }
            return Value::Record(fields);
        }
        if self.takes("(") {
            let mut pairs = BTreeMap::new();
            while !self.takes(")") {
                if !pairs.is_empty() {
                    self.needs("@@");
                }
                let argument = self.value();
                self.needs(":>");
                pairs.insert(argument, self.value());
            }
            return Value::function(pairs);
        }
        if self.takes("\"") {
            let word = self.word();
            self.needs("\"");
            return Value::Text(word);
        }
        let word = self.word();
        match word.as_str() {
            "TRUE" => Value::Bool(true),
            "FALSE" => Value::Bool(false),
            "" => panic!("no value at {}", self.at),
            word => word.parse().map_or_else(|_| Value::Model(word.to_owned()), Value::Int),
        }
    }
}
