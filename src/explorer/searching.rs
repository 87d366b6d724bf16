//! Searches: each runs on a thread of its own, lets everything else go first, tells how far it is, and ends when nobody
//! listens any more.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::response::sse::{Event, KeepAlive, Sse};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::api::{Answer, ApiError, Ask, Shared, asked, compute, here};
use super::models::path_text;
use super::server::Explorer;
use super::turns::Last;
use crate::models::engine::{End, Limits, Progress, Reason, WANTED};
use crate::models::space::{Found, Goal, Loop, Place, Space};

/// How long an exploration may take, and how many states it may find.
const TIME_MAX: Duration = Duration::from_secs(600);
const STATES_MAX: u64 = 5_000_000;
/// A loop is found in a graph that is kept, with its edges.
const GRAPH_MAX: u64 = 2_000_000;

/// Searches from the state that is named on: for `goal`, a property; for `node`, words that one node's picture
/// must have; or for neither, all there is.
pub(super) async fn search(State(explorer): Shared, Query(ask): Ask) -> Answer {
    let given = |name: &str| ask.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
    let goal = match (given("goal"), given("node")) {
        (Some(_), Some(_)) => {
            return Err(ApiError::bad("ask for a goal or for a node, not for both"));
        }
        (Some(goal), None) => Goal::Property(goal.to_owned()),
        (None, Some(words)) if words.contains(|c: char| c.is_ascii_digit()) => {
            let what = "a search is for words such as `host holding`: the names and numbers of nodes, epochs and \
                        versions change in the form in which states are searched";
            return Err(ApiError::bad(what));
        }
        (None, Some(words)) => Goal::Node(words.to_owned()),
        (None, None) => Goal::Everything,
    };
    let begin = Arc::clone(&explorer);
    let at = compute(move || {
        let at = here(&begin, &ask)?;
        if let Goal::Property(name) = &goal {
            known_property(&*at.space, name)?;
        }
        Ok((at, goal))
    });
    let (at, goal) = at.await?;
    explore(&explorer, at.space, at.place, goal)
}

/// Searches from the state that is named for a way on which `property` is never true any more.
pub(super) async fn search_loop(State(explorer): Shared, Query(ask): Ask) -> Answer {
    let begin = Arc::clone(&explorer);
    let again = ask.get("again").is_some_and(|again| again == "1");
    let property = asked(&ask, "property")?.to_owned();
    let at = compute(move || {
        let at = here(&begin, &ask)?;
        known_property(&*at.space, &property)?;
        Ok((at, property))
    });
    let (at, property) = at.await?;
    run(&explorer, move |on_progress| {
        let limits = Limits { time: Some(TIME_MAX), states: Some(GRAPH_MAX), ..Limits::default() };
        let found = at.space.lasso(&at.place, &property, again, limits, on_progress);
        told_loop(&property, &found.expect("the property was looked up"))
    })
}

fn known_property(space: &dyn Space, wanted: &str) -> Result<(), ApiError> {
    let names: Vec<_> = space.properties().into_iter().map(|(name, _)| name).collect();
    if names.contains(&wanted) {
        return Ok(());
    }
    let names = names.join(", ");
    Err(ApiError::bad(format!("this model has no property {wanted:?}; it has {names}")))
}

/// Explores from a state on.
pub(super) fn explore(
    explorer: &Explorer,
    space: Arc<dyn Space>,
    from: Place,
    goal: Goal,
) -> Answer {
    run(explorer, move |on_progress| {
        let limits = Limits {
            time: Some(TIME_MAX),
            states: Some(STATES_MAX),
            past_violations: goal == Goal::Everything,
            ..Limits::default()
        };
        told_end(&*space, &goal, &space.search(&from, &goal, limits, on_progress))
    })
}

type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// Runs a search on a thread of its own.
fn run(
    explorer: &Explorer,
    search: impl FnOnce(OnProgress<'_>) -> Value + Send + 'static,
) -> Answer {
    let permit = Arc::clone(&explorer.exploring).try_acquire_owned().map_err(|_| {
        let what = "another exploration is running: stop it, or wait for its end";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, what)
    })?;
    let (events, receiver) = mpsc::channel::<Result<Event, Infallible>>(16);
    let turns = Arc::clone(&explorer.turns);
    std::thread::spawn(move || {
        let mut last = Last::default();
        let begun = Instant::now();
        let mut told = begun;
        let mut on_progress = |progress: Progress| {
            last.stand_aside(&turns, || !events.is_closed());
            if events.is_closed() {
                return ControlFlow::Break(());
            }
            if told.elapsed() >= Duration::from_millis(200) {
                told = Instant::now();
                // A reader that is slow misses some.
                let _ = events
                    .try_send(Ok(event("progress", &told_progress(progress, begun.elapsed()))));
            }
            ControlFlow::Continue(())
        };
        let end = search(&mut on_progress);
        // Who hears the end may ask for the next at once, and who does not read it keeps nobody from searching.
        drop(permit);
        let _ = events.blocking_send(Ok(event("end", &end)));
    });
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default()).into_response())
}

fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

fn told_progress(progress: Progress, elapsed: Duration) -> Value {
    json!({
        "unique": progress.unique.to_string(), "generated": progress.generated.to_string(),
        "depth": progress.depth, "waiting": progress.frontier.to_string(),
        "seconds": elapsed.as_secs_f64(),
    })
}

fn told_end(space: &dyn Space, goal: &Goal, found: &Found) -> Value {
    let properties: Vec<(&str, bool)> = match goal {
        Goal::Node(_) => vec![(WANTED, false)],
        Goal::Property(goal) => {
            space.properties().into_iter().filter(|(name, _)| goal == name).collect()
        }
        Goal::Everything => space.properties(),
    };
    let properties = properties.into_iter().map(|(name, always)| {
        let path = found.paths.get(name);
        let verdict = match (always, path.is_some(), found.exhaustive) {
            (true, true, _) => "violated",
            (true, false, true) => "holds",
            (false, true, _) => "found",
            (false, false, true) => "never",
            (_, false, false) => "unknown",
        };
        let shown = if let Goal::Node(words) = goal { words } else { name };
        json!({
            "name": shown, "always": always, "verdict": verdict,
            "path": path.map(|path| path_text(path)),
        })
    });
    let end = match found.end {
        End::Incomplete(Reason::Found) => "found",
        End::Violated if !found.exhaustive => "found",
        End::Incomplete(Reason::Stopped) => "stopped",
        End::Incomplete(_) => "incomplete",
        _ => "complete",
    };
    json!({
        "end": end, "unique": found.unique.to_string(), "generated": found.generated.to_string(),
        "depth": found.depth, "seconds": found.elapsed.as_secs_f64(),
        "properties": properties.collect::<Vec<_>>(),
    })
}

fn told_loop(property: &str, found: &Loop) -> Value {
    let verdict = match (&found.path, found.back_to, found.incomplete) {
        (Some(_), Some(_), _) => "stays away",
        (Some(_), None, _) => "ends without it",
        (None, _, None) => "comes",
        (None, _, Some(_)) => "unknown",
    };
    let end = match found.incomplete {
        None => "complete",
        Some(Reason::Stopped) => "stopped",
        Some(_) => "incomplete",
    };
    json!({
        "end": end, "unique": found.unique.to_string(), "generated": found.generated.to_string(),
        "depth": found.depth, "seconds": found.elapsed.as_secs_f64(),
        "properties": [{
            "name": property, "always": false, "verdict": verdict,
            "path": found.path.as_deref().map(path_text), "back_to": found.back_to,
        }],
    })
}
