//! Tells a walk through a model as a story, and tells it on: a step more is one step of the model, however long
//! the story is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::around::around;
use super::pace::pace;
use super::story::{Clock, FORMAT, Moment, Sent, Step, Story, hex};
use crate::models::space::{Place, Space, TimerSet, Told};
use crate::models::tree::{Change, Tree};

/// Finds the sending of what arrives.
#[derive(Default)]
pub struct Post {
    sent: BTreeMap<(u16, u16, String), Vec<(String, bool)>>,
}

impl Post {
    /// Notes a sending.
    pub fn send(&mut self, uid: String, src: u16, dst: u16, full: &str) {
        self.sent.entry((src, dst, full.to_owned())).or_default().push((uid, false));
    }

    /// Does what was noted; for an arrival, its name and whether it has arrived before.
    fn note(&mut self, note: &Note) -> Option<(String, bool)> {
        match note {
            Note::Sent { uid, src, dst, full } => {
                self.send(uid.clone(), *src, *dst, full);
                None
            }
            Note::Arrived { src, dst, full, is_kept } => self.arrive(*src, *dst, full, *is_kept),
        }
    }

    /// The name of what arrives, and whether it has arrived before. `is_kept`: it may arrive again.
    ///
    /// Of several alike the newest that has not arrived yet is taken: it alone cannot be shown to be late.
    pub fn arrive(
        &mut self,
        src: u16,
        dst: u16,
        full: &str,
        is_kept: bool,
    ) -> Option<(String, bool)> {
        let waiting = self.sent.get_mut(&(src, dst, full.to_owned()))?;
        let place = waiting.iter().rposition(|(_, arrived)| !arrived);
        let place = place.or_else(|| waiting.len().checked_sub(1))?;
        let (uid, again) = waiting[place].clone();
        waiting[place].1 = true;
        if !is_kept {
            waiting.clear();
        }
        Some((uid, again))
    }
}

/// What was noted of the post in one step.
enum Note {
    Sent { uid: String, src: u16, dst: u16, full: String },
    Arrived { src: u16, dst: u16, full: String, is_kept: bool },
}

/// Tells a walk through a model.
pub struct Teller {
    space: Arc<dyn Space>,
    with_trees: bool,
    post: Post,
    /// The first state, and that after each step.
    places: Vec<Place>,
    /// What was under way at first, and what each step has done to the post.
    notes: Vec<Vec<Note>>,
    /// The timers that were set before the story begins, and those of each step.
    timers: Vec<Vec<TimerSet>>,
    story: Story,
}

impl Teller {
    /// Begins at the first state. `with_trees`: all of each state is told, not only what nodes look like.
    pub fn new(title: &str, space: Arc<dyn Space>, with_trees: bool) -> Self {
        let place = space.start();
        let timed = space.is_timed();
        let clock = Clock {
            unit: if timed { "ticks" } else { "steps" }.to_owned(),
            common: true,
            about: if timed {
                "the model's own ticks, one clock for all nodes: an overlap is certain"
            } else {
                "this model has no clock: bars count steps, and an overlap is certain"
            }
            .to_owned(),
        };
        let under_way = space.under_way(&place).into_iter().enumerate();
        let notes = under_way.map(|(n, (src, sending))| Note::Sent {
            uid: format!("0.{n}"),
            src,
            dst: sending.dst,
            full: sending.full,
        });
        let notes: Vec<_> = notes.collect();
        let tree = with_trees.then(|| space.tree(&place));
        let first = moment(&*space, &place, 0, tree, Vec::new());
        let story = Story {
            tenure_story: FORMAT,
            title: title.to_owned(),
            source: "model".to_owned(),
            clock,
            lanes: space.lanes(),
            first,
            steps: Vec::new(),
            back_to: None,
            notes: Vec::new(),
            around: None,
        };
        let timers = vec![if timed { space.timers_at_start() } else { Vec::new() }];
        let mut teller = Self {
            space,
            with_trees,
            post: Post::default(),
            places: vec![place],
            notes: Vec::new(),
            timers,
            story,
        };
        for note in &notes {
            teller.post.note(note);
        }
        teller.notes.push(notes);
        teller
    }

    /// Where the story has come to.
    pub fn place(&self) -> &Place {
        self.places.last().expect("a story begins somewhere")
    }

    /// The state after so many steps.
    pub fn place_after(&self, steps: usize) -> Option<&Place> {
        self.places.get(steps)
    }

    /// Forgets all but the first steps.
    pub fn back_to(&mut self, steps: usize) {
        if steps >= self.story.steps.len() {
            return;
        }
        self.story.steps.truncate(steps);
        self.places.truncate(steps + 1);
        self.notes.truncate(steps + 1);
        self.timers.truncate(steps + 1);
        self.post = Post::default();
        for note in self.notes.iter().flatten() {
            self.post.note(note);
        }
    }

    /// Takes the action of that number; says whether there is one.
    pub fn take(&mut self, index: u32) -> bool {
        let space = Arc::clone(&self.space);
        let place = Arc::clone(self.place());
        let number = index as usize;
        let Some(told) = space.told(&place, number) else { return false };
        let Some(after) = space.take(&place, number) else { return false };
        let n = self.story.steps.len() + 1;
        let mut notes = Vec::new();
        let (mut uid, mut again) = (None, false);
        if let (Some(src), Some(dst), Some(full)) = (told.src, told.dst, &told.full)
            && matches!(told.kind.as_str(), "deliver" | "lose")
        {
            let is_kept = space.is_kept(&place, number, &after);
            let note = Note::Arrived { src, dst, full: full.clone(), is_kept };
            if let Some((name, before)) = self.post.note(&note) {
                (uid, again) = (Some(name), before);
            }
            notes.push(note);
        }
        let mut sends = Vec::new();
        let sendings: Vec<_> = match (told.kind.as_str(), told.actor) {
            // Whoever acts from outside may make a node start again: what it says is new on the network.
            ("intervene", _) => {
                let known = space.under_way(&place);
                let now = space.under_way(&after).into_iter();
                now.filter(|one| !known.contains(one)).collect()
            }
            (_, Some(actor)) => {
                space.sends(&place, number).into_iter().map(|sending| (actor, sending)).collect()
            }
            _ => Vec::new(),
        };
        for (k, (src, sending)) in sendings.into_iter().enumerate() {
            let uid = format!("{n}.{k}");
            sends.push(Sent { uid: uid.clone(), dst: sending.dst, msg: sending.msg });
            let note = Note::Sent { uid, src, dst: sending.dst, full: sending.full };
            self.post.note(&note);
            notes.push(note);
        }
        let pace = match (told.kind.as_str(), told.actor, &told.msg) {
            ("fire", Some(node), Some(timer)) => {
                let tick = space.tick();
                tick.and_then(|tick| pace(tick, &self.timers, &self.story, node, timer))
            }
            _ => None,
        };
        let timers = if space.is_timed() { space.timers(&place, number) } else { Vec::new() };
        let idle = space.is_same(&place, &after);
        let before = self.story.moment(n - 1).expect("a story has each of its moments");
        let ticks: u64 = before.at.parse().expect("a model's time is a number");
        let at = ticks + u64::from(told.kind == "elapse");
        let tree = self.with_trees.then(|| space.tree(&after));
        let changes = match (&before.tree, &tree) {
            (Some(old), Some(new)) => new.changes_since(old),
            _ => Vec::new(),
        };
        let moment = moment(&*space, &after, at, tree, changes);
        self.places.push(after);
        self.notes.push(notes);
        self.timers.push(timers);
        self.story.steps.push(Step {
            told,
            index: Some(index),
            uid,
            again,
            idle,
            inferred: false,
            impossible: false,
            sends,
            pace,
            after: moment,
        });
        true
    }

    /// Notes that the last step was not in the schedule.
    pub fn inferred(&mut self) {
        if let Some(step) = self.story.steps.last_mut() {
            step.inferred = true;
        }
    }

    /// Notes that this was in the schedule and cannot happen.
    pub fn miss(&mut self, told: Told) {
        let after = self.story.steps.last().map_or(&self.story.first, |step| &step.after).clone();
        let after = Moment { changes: Vec::new(), ..after };
        self.places.push(Arc::clone(self.place()));
        self.notes.push(Vec::new());
        self.timers.push(Vec::new());
        self.story.steps.push(Step {
            told,
            index: None,
            uid: None,
            again: false,
            idle: true,
            inferred: false,
            impossible: true,
            sends: Vec::new(),
            pace: None,
            after,
        });
    }

    /// The story so far.
    pub fn story(&self) -> &Story {
        &self.story
    }

    /// The story so far.
    pub fn end(self) -> Story {
        self.story
    }
}

/// What a state is told as.
pub(super) fn moment(
    space: &dyn Space,
    place: &Place,
    at: u64,
    tree: Option<Tree>,
    changes: Vec<Change>,
) -> Moment {
    let picture = space.picture(place);
    Moment {
        at: at.to_string(),
        lanes: picture.lanes,
        properties: picture.properties,
        tree,
        changes,
        fingerprint: Some(hex(picture.fingerprint)),
    }
}

/// Tells a path. None if one of its actions is not there.
pub fn tell(title: &str, space: &Arc<dyn Space>, path: &[u32], with_trees: bool) -> Option<Story> {
    let mut teller = Teller::new(title, Arc::clone(space), with_trees);
    path.iter().all(|&index| teller.take(index)).then(|| teller.end())
}

/// Tells a path with every state, and with what else could have happened within so many steps of it.
pub fn tell_around(
    title: &str,
    space: &Arc<dyn Space>,
    path: &[u32],
    steps: usize,
) -> Option<Story> {
    let mut teller = Teller::new(title, Arc::clone(space), true);
    if !path.iter().all(|&index| teller.take(index)) {
        return None;
    }
    let begin = teller.places.iter().enumerate();
    let begin: Vec<_> =
        begin.map(|(row, place)| (path[..row].to_vec(), Arc::clone(place))).collect();
    Some(Story { around: Some(around(&**space, &begin, steps)), ..teller.end() })
}

/// How many stories are kept to be told on.
const KEPT: usize = 8;

/// The stories that were told last, each with the model and the path that it is of.
#[derive(Default)]
pub struct Tellers {
    kept: Mutex<Vec<(String, Vec<u32>, Teller)>>,
}

impl Tellers {
    /// Tells a path through a model, or tells on what was told before; then shows it. None if one of its
    /// actions is not there. No lock is held meanwhile.
    //= SPEC EXPLORER-17
    pub fn tell<T>(
        &self,
        model: &str,
        space: &Arc<dyn Space>,
        path: &[u32],
        show: impl FnOnce(&Teller) -> T,
    ) -> Option<T> {
        let (known, mut teller) = self
            .take(model, path)
            .unwrap_or_else(|| (0, Teller::new(model, Arc::clone(space), false)));
        teller.back_to(known);
        if !path[known..].iter().all(|&index| teller.take(index)) {
            return None;
        }
        let shown = show(&teller);
        let mut kept = self.kept.lock().expect("no thread panics with the lock");
        kept.push((model.to_owned(), path.to_vec(), teller));
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
        Some(shown)
    }

    /// The story that has most of this path, and how many of its steps.
    fn take(&self, model: &str, path: &[u32]) -> Option<(usize, Teller)> {
        let mut kept = self.kept.lock().expect("no thread panics with the lock");
        let shared = |told: &[u32]| told.iter().zip(path).take_while(|(a, b)| a == b).count();
        let best = (0..kept.len())
            .filter(|&at| kept[at].0 == model)
            .max_by_key(|&at| shared(&kept[at].1))?;
        let known = shared(&kept[best].1);
        (known > 0 || path.is_empty()).then(|| (known, kept.remove(best).2))
    }
}

/// How many steps that are due may come before one tick.
const DUE_MAX: usize = 8;

/// Takes the schedule of a story through another model: each step is the action there that is called the
/// same, or else the one that is of the same kind between the same nodes; what has none is marked. Where a
/// tick cannot pass because something is due there, that comes first, and is marked too.
pub fn retell(title: &str, space: &Arc<dyn Space>, schedule: &Story) -> Story {
    let mut teller = Teller::new(title, Arc::clone(space), false);
    for step in &schedule.steps {
        let wanted = &step.told;
        for _ in 0..DUE_MAX {
            match (find(&**space, teller.place(), wanted), due(&**space, teller.place())) {
                (None, Some(due)) if wanted.kind == "elapse" && teller.take(due) => {
                    teller.inferred()
                }
                _ => break,
            }
        }
        match find(&**space, teller.place(), wanted) {
            Some(index) if teller.take(index) => {}
            _ => teller.miss(wanted.clone()),
        }
    }
    teller.end()
}

/// The action that comes closest to what is wanted.
fn find(space: &dyn Space, place: &Place, wanted: &Told) -> Option<u32> {
    let actions = space.actions(place);
    let by = |same: &dyn Fn(&Told) -> bool| actions.iter().position(same);
    let is_alike = |told: &Told| {
        let word =
            |told: &Told| told.msg.as_ref().map(|msg| msg.split(' ').next().map(str::to_owned));
        (&told.kind, told.actor, told.src, told.dst, word(told))
            == (&wanted.kind, wanted.actor, wanted.src, wanted.dst, word(wanted))
    };
    let found = by(&|told| told == wanted)
        .or_else(|| by(&|told| (&told.kind, &told.label) == (&wanted.kind, &wanted.label)))
        .or_else(|| by(&is_alike));
    found.and_then(|index| u32::try_from(index).ok())
}

/// Something that keeps a tick from passing: a timer, what a node tells itself, or a message that must have
/// arrived. One after which the tick may pass, if there is one.
fn due(space: &dyn Space, place: &Place) -> Option<u32> {
    let actions = space.actions(place).into_iter().enumerate();
    let mut all: Vec<(bool, usize)> = actions
        .filter(|(_, told)| told.kind == "fire" || told.kind == "deliver")
        .map(|(index, told)| (told.kind == "deliver" && told.src != told.dst, index))
        .collect();
    all.sort_unstable();
    let local: Vec<usize> = all.into_iter().map(|(_, index)| index).collect();
    let frees = |index: &&usize| {
        let after = space.take(place, **index);
        after.is_some_and(|after| space.actions(&after).iter().any(|told| told.kind == "elapse"))
    };
    let found = local.iter().find(frees).or_else(|| local.first());
    found.and_then(|&index| u32::try_from(index).ok())
}
