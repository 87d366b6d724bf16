//! A token in one region: a register that is written once, with a call and its answer.

use stateright::semantics::SequentialSpec;

use super::history::Told;
use crate::irc::msg::{Answer, CallError, Request};

/// What happens to a token.
#[derive(Clone, Copy, Debug)]
pub(super) enum OfToken {
    /// A customer calls under it.
    Call(Request),
    /// The region's backup is taken.
    BackUp,
    /// The region is put back to it.
    Restore,
}

/// What may be kept under a token.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "there are one or two of a token")]
enum Entry {
    Free,
    /// This call was done. None: whoever has called was not told what came of it.
    Done(Request, Option<Answer>),
}

impl Entry {
    /// What is kept after this answer; none if it cannot be given.
    fn after(&self, request: &Request, told: &Result<Answer, CallError>) -> Option<Self> {
        match (self, told) {
            // A region that takes no calls, or none of this caller, does not look.
            (_, Err(CallError::Unavailable | CallError::NotOwner)) => Some(self.clone()),
            (Self::Free, Ok(answer)) => Some(Self::Done(*request, Some(answer.clone()))),
            (Self::Free, Err(CallError::TokenMismatch)) => None,
            (Self::Free, Err(_)) => Some(Self::Free),
            (Self::Done(of, kept), Ok(answer)) if is_same(of, request) => {
                let is_kept = kept.as_ref().is_none_or(|kept| kept == answer);
                is_kept.then(|| Self::Done(*of, Some(answer.clone())))
            }
            (Self::Done(of, _), Err(CallError::TokenMismatch)) if !is_same(of, request) => {
                Some(self.clone())
            }
            _ => None,
        }
    }
}

/// One token in one region: written once, with a call and its answer.
#[derive(Clone, Debug)]
pub(super) struct Register {
    may_be: Vec<Entry>,
    backup: Vec<Entry>,
}

impl Default for Register {
    fn default() -> Self {
        Self { may_be: vec![Entry::Free], backup: vec![Entry::Free] }
    }
}

impl Register {
    fn add(&mut self, entry: Entry) {
        if !self.may_be.contains(&entry) {
            self.may_be.push(entry);
        }
    }
}

impl SequentialSpec for Register {
    type Op = OfToken;
    type Ret = Told;

    /// What nobody was told: a call that may have been done, or something of an operator.
    fn invoke(&mut self, op: &OfToken) -> Told {
        match op {
            OfToken::Call(request) if self.may_be.contains(&Entry::Free) => {
                self.add(Entry::Done(*request, None));
            }
            OfToken::Call(_) => {}
            OfToken::BackUp => self.backup.clone_from(&self.may_be),
            OfToken::Restore => {
                // What a peer returns brings its token back.
                for entry in self.backup.clone() {
                    self.add(entry);
                }
            }
        }
        None
    }

    fn is_valid_step(&mut self, op: &OfToken, told: &Told) -> bool {
        let (OfToken::Call(request), Some(told)) = (op, told) else {
            self.invoke(op);
            return true;
        };
        let before = std::mem::take(&mut self.may_be);
        for entry in before.iter().filter_map(|entry| entry.after(request, told)) {
            self.add(entry);
        }
        !self.may_be.is_empty()
    }
}

/// Whether two calls under one token are the same call. Options at the creation do not count.
fn is_same(one: &Request, other: &Request) -> bool {
    match (one, other) {
        (
            Request::Create { network, target, .. },
            Request::Create { network: other_network, target: other_target, .. },
        ) => (network, target) == (other_network, other_target),
        _ => one == other,
    }
}
