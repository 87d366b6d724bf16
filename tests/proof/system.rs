//! A transition system, and what there is to prove of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::eval::{Code, Symbol};
use super::term::{Macro, Term};

/// What marks a symbol of the next state.
const NEXT: &str = "+";

/// A transition system with an inductive invariant, for any number of elements of each sort.
#[derive(Clone, Debug)]
pub(crate) struct System {
    pub(crate) name: &'static str,
    pub(crate) sorts: &'static [&'static str],
    pub(crate) macros: Vec<Macro>,
    /// Symbols that never change: `name`, the sort of the argument or "", the sort of the value.
    pub(crate) rigid: Vec<[&'static str; 3]>,
    /// Symbols that make up the state.
    pub(crate) state: Vec<[&'static str; 3]>,
    /// What is assumed of the rigid symbols.
    pub(crate) axioms: Vec<String>,
    pub(crate) init: Vec<&'static str>,
    pub(crate) actions: Vec<Action>,
    /// The conjuncts of the invariant, and then the properties that follow from them.
    pub(crate) invariant: Vec<Conjunct>,
    pub(crate) safety: Vec<Conjunct>,
}

/// What can happen. Effects give a symbol's new value, at the argument `it` if it has one.
#[derive(Clone, Debug)]
pub(crate) struct Action {
    pub(crate) name: &'static str,
    pub(crate) params: Vec<[&'static str; 2]>,
    pub(crate) guard: Vec<String>,
    pub(crate) effect: Vec<(&'static str, String)>,
}

/// One conjunct: free variables are bound by "for all".
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conjunct {
    pub(crate) name: &'static str,
    pub(crate) vars: &'static [[&'static str; 2]],
    pub(crate) body: &'static str,
}

pub(crate) fn action(
    name: &'static str,
    params: &[[&'static str; 2]],
    guard: &[&str],
    effect: &[(&'static str, &str)],
) -> Action {
    Action {
        name,
        params: params.to_vec(),
        guard: guard.iter().map(|&text| text.to_owned()).collect(),
        effect: effect.iter().map(|&(symbol, text)| (symbol, text.to_owned())).collect(),
    }
}

impl Conjunct {
    pub(crate) fn closed(&self) -> Term {
        let body = Term::parse(self.body);
        if self.vars.is_empty() {
            return body;
        }
        let vars: Vec<String> =
            self.vars.iter().map(|[name, sort]| format!("({name} {sort})")).collect();
        Term::parse(&format!("(forall ({}) {body})", vars.join(" ")))
    }
}

/// A question for the solver and the answer that is expected.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) name: String,
    /// Declarations and assertions of this query alone.
    pub(crate) text: String,
    pub(crate) expect: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Sat,
    Unsat,
}

impl System {
    fn symbols(&self) -> Vec<Symbol> {
        self.rigid.iter().chain(&self.state).map(|[name, ..]| (*name).to_owned()).collect()
    }

    pub(crate) fn action(&self, name: &str) -> &Action {
        self.actions.iter().find(|a| a.name == name).unwrap_or_else(|| panic!("no action {name}"))
    }

    /// The same system with one action changed. Whoever changes nothing is told so.
    pub(crate) fn with(mut self, name: &str, change: impl FnOnce(&mut Action)) -> Self {
        let place = self.actions.iter().position(|action| action.name == name);
        let action = &mut self.actions[place.unwrap_or_else(|| panic!("no action {name}"))];
        let before = format!("{action:?}");
        change(action);
        assert_ne!(before, format!("{action:?}"), "{name}: nothing was changed");
        self
    }

    /// The same system in which a guard says something else.
    pub(crate) fn guard(self, name: &str, old: &str, new: &str) -> Self {
        self.with(name, |action| {
            let guard = action.guard.iter_mut().find(|guard| *guard == old);
            *guard.unwrap_or_else(|| panic!("{name} has no guard {old}")) = new.to_owned();
        })
    }

    /// The same system in which an effect is another.
    pub(crate) fn effect(self, name: &str, symbol: &'static str, new: &str) -> Self {
        self.with(name, |action| {
            action.effect.retain(|(changed, _)| *changed != symbol);
            action.effect.push((symbol, new.to_owned()));
        })
    }

    fn state_at(&self, term: &Term, at: &str) -> String {
        let is_state = |name: &str| self.state.iter().any(|[state, ..]| *state == name);
        let at = |name: &str| is_state(name).then(|| Term::Atom(format!("{name}{at}")));
        term.expand(&self.macros).rename(&at).to_string()
    }

    fn text_at(&self, text: &str, at: &str) -> String {
        self.state_at(&Term::parse(text), at)
    }

    /// The conjuncts and the properties, prepared for evaluation, with their names.
    pub(crate) fn codes(&self) -> Vec<(&'static str, Code)> {
        let symbols = self.symbols();
        let code =
            |c: &Conjunct| (c.name, Code::of(&c.closed().expand(&self.macros), &symbols, &[]));
        self.invariant.iter().chain(&self.safety).map(code).collect()
    }

    /// Sorts, symbols that never change, and what is assumed of them.
    pub(crate) fn prelude(&self) -> String {
        let mut text = String::new();
        for sort in self.sorts {
            let _ = writeln!(text, "(declare-sort {sort} 0)");
        }
        for [name, of, is] in &self.rigid {
            let _ = writeln!(text, "(declare-fun {name} ({of}) {is})");
        }
        for axiom in &self.axioms {
            let _ = writeln!(text, "(assert {})", Term::parse(axiom).expand(&self.macros));
        }
        text
    }

    fn declare_state(&self, at: &str) -> String {
        let line = |[name, of, is]: &[&str; 3]| format!("(declare-fun {name}{at} ({of}) {is})\n");
        self.state.iter().map(line).collect()
    }

    fn assert_init(&self, at: &str) -> String {
        self.init.iter().map(|text| format!("(assert {})\n", self.text_at(text, at))).collect()
    }

    fn assert_invariant(&self, at: &str) -> String {
        let line = |c: &Conjunct| format!("(assert {})\n", self.state_at(&c.closed(), at));
        self.invariant.iter().map(line).collect()
    }

    /// Asserts that the action happens in the state `from`, and defines the state `to` by it.
    fn assert_action(&self, action: &Action, from: &str, to: &str, params: &str) -> String {
        let names: BTreeSet<&str> = action.params.iter().map(|[name, _]| *name).collect();
        let renamed = |text: &str| {
            let named = |name: &str| names.contains(name).then(|| format!("{name}{params}"));
            let term = Term::parse(text).expand(&self.macros);
            Term::parse(&self.state_at(&term.rename(&|name| named(name).map(Term::Atom)), from))
        };
        let mut text = String::new();
        for [name, sort] in &action.params {
            let _ = writeln!(text, "(declare-const {name}{params} {sort})");
        }
        for guard in &action.guard {
            let _ = writeln!(text, "(assert {})", renamed(guard));
        }
        for (changed, _) in &action.effect {
            assert!(self.state.iter().any(|[name, ..]| name == changed), "no state {changed}");
        }
        for [name, of, is] in &self.state {
            let formal = if of.is_empty() { String::new() } else { format!("(it {of})") };
            let same = if of.is_empty() { (*name).to_owned() } else { format!("({name} it)") };
            let effect = action.effect.iter().find(|(changed, _)| changed == name);
            let value = effect.map_or(same, |(_, text)| text.clone());
            let value = renamed(&value);
            let _ = writeln!(text, "(define-fun {name}{to} ({formal}) {is} {value})");
        }
        text
    }

    /// That the invariant holds at the start, is kept by every action, and gives the safety properties.
    pub(crate) fn obligations(&self) -> Vec<Query> {
        let negated = |conjunct: &Conjunct, at: &str| {
            format!("(assert (not {}))\n", self.state_at(&conjunct.closed(), at))
        };
        let mut queries = Vec::new();
        let mut add = |name: String, text: String| {
            queries.push(Query { name, text, expect: Answer::Unsat });
        };
        for conjunct in &self.invariant {
            let text = self.declare_state("") + &self.assert_init("") + &negated(conjunct, "");
            add(format!("Init => {}", conjunct.name), text);
        }
        for action in &self.actions {
            let before = self.declare_state("")
                + &self.assert_invariant("")
                + &self.assert_action(action, "", NEXT, "");
            for conjunct in &self.invariant {
                let text = before.clone() + &negated(conjunct, NEXT);
                add(format!("{} keeps {}", action.name, conjunct.name), text);
            }
        }
        for property in &self.safety {
            let text = self.declare_state("") + &self.assert_invariant("") + &negated(property, "");
            add(format!("invariant => {}", property.name), text);
        }
        queries
    }

    /// That none of this is empty: there is a start, the invariant has states worth the name, and every
    /// action can happen in some state of the invariant.
    pub(crate) fn vacuity(&self, worth: &[(&str, &str)]) -> Vec<Query> {
        let mut queries = Vec::new();
        let mut add = |name: String, text: String| {
            queries.push(Query { name, text, expect: Answer::Sat });
        };
        add("a start".to_owned(), self.declare_state("") + &self.assert_init(""));
        for (name, text) in worth {
            let text = format!("(assert {})\n", self.text_at(text, ""));
            let text = self.declare_state("") + &self.assert_invariant("") + &text;
            add(format!("the invariant with {name}"), text);
        }
        for action in &self.actions {
            let text = self.declare_state("")
                + &self.assert_invariant("")
                + &self.assert_action(action, "", NEXT, "");
            add(format!("{} can happen", action.name), text);
        }
        queries
    }

    /// A run from the start in which these actions happen, in this order, and the last state is such.
    pub(crate) fn run(&self, name: &str, actions: &[&str], goal: &str, expect: Answer) -> Query {
        let mut text = self.declare_state("@0") + &self.assert_init("@0");
        for (step, action) in actions.iter().enumerate() {
            let (from, to) = (format!("@{step}"), format!("@{}", step + 1));
            text += &self.assert_action(self.action(action), &from, &to, &format!("@{step}"));
        }
        let last = format!("@{}", actions.len());
        let _ = writeln!(text, "(assert {})", self.text_at(goal, &last));
        Query { name: name.to_owned(), text, expect }
    }

    /// "Not this property", as a goal of a run.
    pub(crate) fn violation(&self, property: &str) -> String {
        let property = self.safety.iter().find(|known| known.name == property);
        format!("(not {})", property.expect("a safety property").closed())
    }
}
