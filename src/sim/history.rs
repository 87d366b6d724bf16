//! What customers of regions have called and were told, in real time, and whether any order of it explains that.
//!
//! The objects are the tokens of each region (`token`) and the peerings (`two_sides`). A history is judged object by
//! object, which is enough: it has an order if those of each of its objects have one. stateright's tester looks for each
//! of these, and respects who was answered before who asked. A call of which nobody heard again may have been done at
//! any time after it was made, or never. So may one that was answered, if several copies of it have arrived: a refusal is
//! of one copy of a call, and says nothing of the others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;

use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester, SequentialSpec};

use super::token::{OfToken, Register};
use super::two_sides::{OfPeering, TwoSides};
use crate::irc::facts::{Account, OpId, Region, Target};
use crate::irc::msg::{Answer, CallError, Request, Shown, Token};
use crate::irc::peering::Side;

/// What a call has come to. None for what no customer does.
pub(super) type Told = Option<Result<Answer, CallError>>;

/// The place of an answer, and that; none if there was none.
type Answered = Option<(u64, Result<Answer, CallError>)>;

/// Who calls one thing at a time: a customer, and which of its lives.
pub type Client = (u16, u32);

/// A customer's call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who has called.
    pub client: Client,
    /// The region that was called.
    pub region: Region,
    /// In whose name.
    pub caller: Account,
    /// Under which token.
    pub token: Token,
    /// What.
    pub request: Request,
    /// Its place in the history.
    asked: u64,
    /// The place of its answer, and that.
    told: Option<(u64, Result<Answer, CallError>)>,
    /// How many copies of it have arrived.
    copies: u32,
}

/// What an operator has done to a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Has taken its backup.
    BackedUp,
    /// Has put it back to the last one.
    Restored,
}

/// All calls of a run, in the order in which they were made and answered.
#[derive(Clone, Debug, Default)]
pub struct History {
    calls: Vec<Call>,
    turns: Vec<(u64, Region, Turn)>,
    /// A region was declared gone.
    disposed: bool,
    places: u64,
}

/// What a history that has an order consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explained {
    /// Calls that were answered.
    pub answered: usize,
    /// Calls of which nobody heard again.
    pub unknown: usize,
    /// Pairs of calls of one region that were under way side by side.
    pub crossing: usize,
    /// Peerings that were begun.
    pub peerings: usize,
}

/// After how many answers a history is looked at.
const PART: usize = 8;
/// The stack of a search, of which little is used but for thousands of calls.
const STACK: usize = 1 << 30;
/// How much of one that has no order is told.
const SHOWN: usize = 24;

/// Who does something to an object: a customer, an operator, or a copy of a call that is still under way. The tester
/// tries them in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Client(Client),
    Operator(Region),
    Copy(usize),
}

/// One call of an object: who, from when, what, until when, and what came of it.
type Done<O> = (Who, u64, O, Option<(u64, Told)>);

impl History {
    fn place(&mut self) -> u64 {
        self.places += 1;
        self.places
    }

    /// A customer calls. Gives the call's number.
    pub fn ask(
        &mut self,
        client: Client,
        region: Region,
        caller: Account,
        token: Token,
        request: Request,
    ) -> usize {
        let asked = self.place();
        let (told, copies) = (None, 0);
        self.calls.push(Call { client, region, caller, token, request, asked, told, copies });
        self.calls.len() - 1
    }

    /// That call is answered.
    pub fn tell(&mut self, call: usize, result: Result<Answer, CallError>) {
        let place = self.place();
        if let Some(call) = self.calls.get_mut(call) {
            call.told = Some((place, result));
        }
    }

    /// A copy of that call arrives at its region.
    pub fn arrive(&mut self, call: usize) {
        if let Some(call) = self.calls.get_mut(call) {
            call.copies += 1;
        }
    }

    /// An operator does something to a region.
    pub fn turn(&mut self, region: Region, turn: Turn) {
        let place = self.place();
        self.turns.push((place, region, turn));
    }

    /// An operator declares some region gone.
    pub fn dispose(&mut self) {
        self.disposed = true;
    }

    /// Looks for an order in which each call could have been answered as it was, one after the other.
    ///
    /// # Errors
    ///
    /// The first object whose calls have none, and the last of these calls before that shows.
    ///
    /// # Panics
    ///
    /// If there is no room for the stack that the search may need.
    //= SPEC SIM-5
    pub fn judge(&self) -> Result<Explained, String> {
        // The tester goes one call deeper for each call of an object.
        std::thread::scope(|scope| {
            let search = std::thread::Builder::new().stack_size(STACK);
            let judged = search.spawn_scoped(scope, || self.search()).expect("there is room");
            judged.join().unwrap_or_else(|why| std::panic::resume_unwind(why))
        })
    }

    fn search(&self) -> Result<Explained, String> {
        self.judge_tokens()?;
        let births = self.births();
        let mut calls = self.by_peering(&births);
        for (&id, birth) in &births {
            self.judge_peering(id, birth, &calls.remove(&id).unwrap_or_default())?;
        }
        let answered = self.calls.iter().filter(|call| call.told.is_some()).count();
        let unknown = self.calls.len() - answered;
        Ok(Explained { answered, unknown, crossing: self.crossing(), peerings: births.len() })
    }

    fn judge_tokens(&self) -> Result<(), String> {
        let mut tokens: BTreeMap<(Region, Account, Token), Vec<usize>> = BTreeMap::new();
        for (number, call) in self.calls.iter().enumerate().filter(|(_, call)| !call.is_read()) {
            tokens.entry((call.region, call.caller, call.token)).or_default().push(number);
        }
        for ((region, _, token), numbers) in tokens {
            let mut done: Vec<Done<OfToken>> = Vec::new();
            for number in numbers {
                let call = &self.calls[number];
                call.takes_part(number, OfToken::Call(call.request), call.told.clone(), &mut done);
            }
            for &(place, of, turn) in self.turns.iter().filter(|(_, of, _)| *of == region) {
                let op = match turn {
                    Turn::BackedUp => OfToken::BackUp,
                    Turn::Restored => OfToken::Restore,
                };
                done.push((Who::Operator(of), place, op, Some((place, None))));
            }
            explain(Register::default(), done)
                .map_err(|calls| format!("token {} of region {}: {calls}", token.0, region.0))?;
        }
        Ok(())
    }

    /// The numbers of the calls that have to do with each peering, in order.
    fn by_peering(&self, births: &BTreeMap<OpId, Birth>) -> BTreeMap<OpId, Vec<usize>> {
        // One token may have begun several: a restore may lose it.
        let mut tokens: BTreeMap<(Region, u64), Vec<OpId>> = BTreeMap::new();
        for (&id, birth) in births {
            if let Some(token) = birth.token {
                tokens.entry((id.requester, token)).or_default().push(id);
            }
        }
        let mut calls: BTreeMap<OpId, Vec<usize>> = BTreeMap::new();
        for (number, call) in self.calls.iter().enumerate() {
            let ids = match call.request {
                Request::Change { id, .. }
                | Request::Modify { id, .. }
                | Request::Get { id }
                | Request::Explain { id } => vec![id],
                Request::Create { .. } => {
                    let key = call.token.key(call.region, call.caller);
                    tokens.get(&(call.region, key)).cloned().unwrap_or_default()
                }
                _ => call.shown().into_iter().map(|shown| shown.id).collect(),
            };
            for id in ids {
                calls.entry(id).or_default().push(number);
            }
        }
        calls
    }

    fn judge_peering(&self, id: OpId, birth: &Birth, calls: &[usize]) -> Result<(), String> {
        let side_of = |region: Region| match region {
            region if region == id.requester => Some(Side::Requester),
            region if region == birth.target.region => Some(Side::Accepter),
            _ => None,
        };
        let mut done: Vec<Done<OfPeering>> = Vec::new();
        for &number in calls {
            let call = &self.calls[number];
            let Some(side) = side_of(call.region) else { continue };
            let key = call.token.key(call.region, call.caller);
            let is_birth = side == Side::Requester && birth.token == Some(key);
            let Some((request, told)) = call.about(id, is_birth) else { continue };
            call.takes_part(number, OfPeering::Call(side, key, request), told, &mut done);
        }
        thin(&mut done);
        let mut was_restored = false;
        for &(place, region, turn) in &self.turns {
            let Some(side) = side_of(region) else { continue };
            was_restored |= turn == Turn::Restored;
            let op = match turn {
                Turn::BackedUp => OfPeering::BackUp(side),
                Turn::Restored => OfPeering::Restore(side),
            };
            done.push((Who::Operator(region), place, op, Some((place, None))));
        }
        let ends_itself = was_restored || self.disposed || self.crosses(id, birth);
        explain(TwoSides::new(id, ends_itself), done)
            .map_err(|calls| format!("peering {id:?}: {calls}"))
    }

    /// The peerings that anybody has seen.
    fn births(&self) -> BTreeMap<OpId, Birth> {
        let mut births: BTreeMap<OpId, Birth> = BTreeMap::new();
        for call in &self.calls {
            let Some((_, Ok(answer))) = &call.told else { continue };
            if let (Request::Create { network, target, .. }, Answer::Done { id, .. }) =
                (call.request, answer)
            {
                let token = Some(call.token.key(call.region, call.caller));
                births.entry(*id).or_insert(Birth { network: network.0, target, token });
            }
        }
        // Who asked for it was not told, or is told the contrary: the facts name its token.
        for shown in self.calls.iter().flat_map(Call::shown) {
            let (network, target) = (shown.requested.network.0, shown.requested.target);
            let birth = births.entry(shown.id).or_insert(Birth { network, target, token: None });
            birth.token = birth.token.or(Some(shown.requested.token));
        }
        births
    }

    /// Whether the other side has asked for the same pair.
    fn crosses(&self, id: OpId, birth: &Birth) -> bool {
        self.calls.iter().any(|call| {
            let Request::Create { network, target, .. } = call.request else { return false };
            call.region == birth.target.region
                && network == birth.target.network
                && target.region == id.requester
                && target.network.0 == birth.network
        })
    }

    fn crossing(&self) -> usize {
        let mut moments: Vec<(u64, Region, bool)> = Vec::new();
        for call in &self.calls {
            moments.push((call.asked, call.region, true));
            moments.extend(call.told.iter().map(|&(place, _)| (place, call.region, false)));
        }
        moments.sort_unstable();
        let (mut open, mut crossing) = (BTreeMap::<Region, usize>::new(), 0);
        for (_, region, begins) in moments {
            let open = open.entry(region).or_default();
            if begins {
                crossing += *open;
                *open += 1;
            } else {
                *open -= 1;
            }
        }
        crossing
    }
}

/// How a peering began.
#[derive(Clone, Copy, Debug)]
struct Birth {
    network: u32,
    target: Target,
    /// The hash of its token.
    token: Option<u64>,
}

impl Call {
    const fn is_read(&self) -> bool {
        matches!(self.request, Request::Get { .. } | Request::List { .. } | Request::Explain { .. })
    }

    /// What the answer shows.
    fn shown(&self) -> Vec<Shown> {
        match &self.told {
            Some((_, Ok(Answer::One(shown) | Answer::Explained { shown, .. }))) => vec![*shown],
            Some((_, Ok(Answer::Many { peerings, .. }))) => peerings.clone(),
            _ => Vec::new(),
        }
    }

    /// What this call is to one peering, if anything. A list reads each one that it shows.
    fn about(&self, id: OpId, is_birth: bool) -> Option<(Request, Answered)> {
        match self.request {
            Request::Create { .. } if is_birth => Some((self.request, self.told.clone())),
            Request::Change { id: of, .. }
            | Request::Modify { id: of, .. }
            | Request::Get { id: of }
            | Request::Explain { id: of }
                if of == id =>
            {
                Some((self.request, self.told.clone()))
            }
            Request::List { .. } => {
                let shown = self.shown().into_iter().find(|shown| shown.id == id)?;
                let (place, _) = self.told.as_ref()?;
                Some((Request::Get { id }, Some((*place, Ok(Answer::One(shown))))))
            }
            _ => None,
        }
    }

    fn takes_part<O: Clone>(
        &self,
        number: usize,
        op: O,
        told: Option<(u64, Result<Answer, CallError>)>,
        done: &mut Vec<Done<O>>,
    ) {
        if self.copies > 1 && !self.is_read() {
            done.push((Who::Copy(number), self.asked, op.clone(), None));
        }
        let told = told.map(|(place, result)| (place, Some(result)));
        done.push((Who::Client(self.client), self.asked, op, told));
    }
}

/// Leaves out what somebody has read who reads the same of that side before and after it: it says nothing more, and
/// takes the search long.
fn thin(done: &mut Vec<Done<OfPeering>>) {
    let mut by_client: BTreeMap<(Who, bool), Vec<usize>> = BTreeMap::new();
    for (number, (who, _, op, _)) in done.iter().enumerate() {
        let is_accepter = matches!(op, OfPeering::Call(Side::Accepter, ..));
        by_client.entry((*who, is_accepter)).or_default().push(number);
    }
    let read = |number: usize| match &done[number] {
        (_, _, OfPeering::Call(side, _, Request::Get { .. }), Some((_, told))) => {
            Some((*side, told))
        }
        _ => None,
    };
    let between = |three: &[usize]| {
        let is_same = read(three[1]).is_some() && read(three[0]) == read(three[1]);
        (is_same && read(three[1]) == read(three[2])).then_some(three[1])
    };
    let dropped: BTreeSet<usize> =
        by_client.values().flat_map(|numbers| numbers.windows(3).filter_map(between)).collect();
    let mut number = 0;
    done.retain(|_| {
        number += 1;
        !dropped.contains(&(number - 1))
    });
}

/// Looks for an order of what was done to an object.
fn explain<S>(object: S, done: Vec<Done<S::Op>>) -> Result<(), String>
where
    S: Clone + SequentialSpec<Ret = Told>,
    S::Op: Clone + Debug,
{
    enum Moment<O> {
        Asked(O),
        Told(Told),
    }
    let mut moments = Vec::new();
    for (who, asked, op, told) in &done {
        moments.push(((*asked, false), *who, Moment::Asked(op.clone())));
        if let Some((place, told)) = told {
            moments.push(((*place, true), *who, Moment::Told(told.clone())));
        }
    }
    moments.sort_by_key(|(when, who, _)| (*when, *who));
    let mut tester = LinearizabilityTester::new(object);
    let (mut answers, mut last) = (0, VecDeque::new());
    for ((place, _), who, moment) in moments {
        last.push_back(match &moment {
            Moment::Asked(op) => format!("\n  {place} {who:?} {op:?}"),
            Moment::Told(told) => format!("\n  {place} {who:?} is told {told:?}"),
        });
        if last.len() > SHOWN {
            last.pop_front();
        }
        let taken = match moment {
            Moment::Asked(op) => tester.on_invoke(who, op).map(|_| true),
            Moment::Told(told) => tester.on_return(who, told).map(|_| false),
        };
        answers += usize::from(!taken?);
        // A beginning that has no order is found sooner than that the whole has none.
        if answers >= PART {
            answers = 0;
            if !tester.is_consistent() {
                break;
            }
        }
    }
    if tester.is_consistent() {
        return Ok(());
    }
    let last: String = last.into_iter().collect();
    Err(format!("no order explains it, here at the latest:{last}"))
}
