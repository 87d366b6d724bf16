//! Formulas evaluated over finite structures.
//!
//! There is one text for each formula. What z3 proves of every state and what the tests of the models
//! look up in one state cannot differ.

use std::collections::BTreeMap;

use super::term::Term;

/// The name of a part of the state.
pub(crate) type Symbol = String;

/// A finite structure: how many elements each sort has, and a table for each symbol. Truth is 0 or 1, an
/// element is its index, and time is whole ticks.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Structure {
    pub(crate) sizes: BTreeMap<String, usize>,
    pub(crate) tables: BTreeMap<String, Vec<i64>>,
}

/// A formula that has been prepared for evaluation.
#[derive(Clone, Debug)]
pub(crate) enum Code {
    Number(i64),
    Bound(usize),
    Look(String, Option<Box<Self>>),
    All(String, usize, Box<Self>),
    Op(Op, Vec<Self>),
}

/// What the formulas are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    And,
    Or,
    Not,
    Implies,
    Same,
    Distinct,
    Less,
    AtMost,
    Plus,
    Choose,
}

impl Code {
    /// Prepares a term. `bound` are the variables in scope, by their place.
    pub(crate) fn of(term: &Term, symbols: &[Symbol], bound: &[String]) -> Self {
        let sub = |term: &Term| Self::of(term, symbols, bound);
        match term {
            Term::Atom(name) => {
                if let Some(place) = bound.iter().rposition(|bound| bound == name) {
                    return Self::Bound(place);
                }
                match name.as_str() {
                    "true" => return Self::Number(1),
                    "false" => return Self::Number(0),
                    _ => {}
                }
                if let Ok(number) = name.trim_end_matches(".0").parse() {
                    return Self::Number(number);
                }
                assert!(symbols.contains(name), "unknown: {name}");
                Self::Look(name.clone(), None)
            }
            Term::List(items) => {
                let Term::Atom(head) = &items[0] else { panic!("no operator: {term}") };
                if head == "forall" {
                    return Self::quantified(&items[1], &items[2], symbols, bound);
                }
                let args = items[1..].iter().map(sub).collect();
                let op = match head.as_str() {
                    "and" => Op::And,
                    "or" => Op::Or,
                    "not" => Op::Not,
                    "=>" => Op::Implies,
                    "=" => Op::Same,
                    "distinct" => Op::Distinct,
                    "<" => Op::Less,
                    "<=" => Op::AtMost,
                    "+" => Op::Plus,
                    "ite" => Op::Choose,
                    name => {
                        assert!(symbols.iter().any(|symbol| symbol == name), "unknown: {name}");
                        return Self::Look(name.to_owned(), Some(Box::new(sub(&items[1]))));
                    }
                };
                Self::Op(op, args)
            }
        }
    }

    fn quantified(variables: &Term, body: &Term, symbols: &[Symbol], bound: &[String]) -> Self {
        let Term::List(variables) = variables else { panic!("variables: {variables}") };
        let mut scope = bound.to_vec();
        let mut sorts = Vec::new();
        for variable in variables {
            let Term::List(pair) = variable else { panic!("a variable and its sort: {variable}") };
            scope.push(pair[0].to_string());
            sorts.push((pair[1].to_string(), scope.len() - 1));
        }
        let code = Self::of(body, symbols, &scope);
        let wrap = |code, (sort, place)| Self::All(sort, place, Box::new(code));
        sorts.into_iter().rev().fold(code, wrap)
    }

    /// The value in a structure. `bound` holds the values of the variables in scope.
    pub(crate) fn eval(&self, structure: &Structure, bound: &mut Vec<i64>) -> i64 {
        match self {
            Self::Number(number) => *number,
            Self::Bound(place) => bound[*place],
            Self::Look(name, None) => structure.tables[name][0],
            Self::Look(name, Some(argument)) => {
                let index = argument.eval(structure, bound);
                structure.tables[name][usize::try_from(index).expect("an element")]
            }
            Self::All(sort, place, body) => {
                bound.resize(place + 1, 0);
                for element in 0..structure.sizes[sort] {
                    bound[*place] = element as i64;
                    if body.eval(structure, bound) == 0 {
                        return 0;
                    }
                }
                1
            }
            Self::Op(op, args) => op.eval(args, structure, bound),
        }
    }
}

impl Op {
    fn eval(self, args: &[Code], structure: &Structure, bound: &mut Vec<i64>) -> i64 {
        let mut value = |index: usize| args[index].eval(structure, bound);
        let all = 0..args.len();
        match self {
            Self::And => i64::from(all.into_iter().all(|index| value(index) != 0)),
            Self::Or => i64::from(all.into_iter().any(|index| value(index) != 0)),
            Self::Not => i64::from(value(0) == 0),
            Self::Implies => i64::from(value(0) == 0 || value(1) != 0),
            Self::Same => i64::from(value(0) == value(1)),
            Self::Distinct => i64::from(value(0) != value(1)),
            // A chain: (<= a b c) means a <= b and b <= c.
            Self::Less => i64::from(all.skip(1).all(|i| value(i - 1) < value(i))),
            Self::AtMost => i64::from(all.skip(1).all(|i| value(i - 1) <= value(i))),
            Self::Plus => all.map(value).sum(),
            Self::Choose => {
                let holds = value(0) != 0;
                value(if holds { 1 } else { 2 })
            }
        }
    }
}
