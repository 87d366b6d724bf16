//! What the page asks for. Every answer is JSON or a stream of events, errors too; a number of 64 bits is
//! text. Walking and searching happen on threads of their own, so that no answer waits for another.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::models::{Lost, parse_path, path_text};
use super::server::Explorer;
use super::story::{self, Story, hex, retell};
use super::{export, gallery, import, report};
use crate::duration;
use crate::lease::timing::Timing;
use crate::models::deployment;
use crate::models::engine::{End, Limits, Progress, Reason};
use crate::models::registry::{Counts, Expected};
use crate::models::space::{Found, Judged, Space, Told};
use crate::models::tree::{Change, Tree};

/// The largest body that is read.
const BODY_MAX: usize = 128 << 20;
/// How long an exploration may take, and how many states it may find.
const TIME_MAX: Duration = Duration::from_secs(300);
const STATES_MAX: u64 = 5_000_000;

/// Something that cannot be answered.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    /// With what to do about it.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        answer(self.status, &json!({ "error": self.message }))
    }
}

impl From<Lost> for ApiError {
    fn from(lost: Lost) -> Self {
        let status = match lost {
            Lost::Model(_) => StatusCode::NOT_FOUND,
            Lost::Path(_) | Lost::Length => StatusCode::BAD_REQUEST,
            Lost::Action { .. } | Lost::Fingerprint { .. } => StatusCode::CONFLICT,
        };
        Self::new(status, lost.to_string())
    }
}

type Answer = Result<Response, ApiError>;
type Ask = Query<BTreeMap<String, String>>;
type Shared = State<Arc<Explorer>>;

fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, serde_json::to_string(body).expect("an answer is plain data")).into_response()
}

fn ok(body: &impl Serialize) -> Answer {
    Ok(answer(StatusCode::OK, body))
}

/// Everything that can be asked.
pub(super) fn routes() -> Router<Arc<Explorer>> {
    Router::new()
        .route("/api/models", get(models))
        .route("/api/gallery", get(exhibits))
        .route("/api/state", get(state))
        .route("/api/story", get(told))
        .route("/api/mended", get(mended))
        .route("/api/search", get(search))
        .route("/api/opened", get(opened))
        .route("/api/import", post(imported))
        .route("/api/export/{form}", post(exported))
        .route("/api/timing", get(timing))
        .route("/api/timing/check", get(check_timing))
        .layer(DefaultBodyLimit::max(BODY_MAX))
}

/// Computes on a thread that may block.
async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        let what = "this state breaks an assertion of the protocol's own code: report it, with this address";
        Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, what))
    })
}

fn asked<'a>(ask: &'a BTreeMap<String, String>, name: &str) -> Result<&'a str, ApiError> {
    let missing = || ApiError::bad(format!("{name} is missing: add ?{name}="));
    ask.get(name).map(String::as_str).ok_or_else(missing)
}

#[derive(Serialize)]
struct ModelRow {
    id: String,
    about: String,
    protocol: &'static str,
    is_mutant: bool,
    /// How many states a complete exploration finds, where that is registered.
    states: Option<u64>,
}

async fn models(State(explorer): Shared) -> Answer {
    let row = |entry: &crate::models::registry::Entry| ModelRow {
        id: entry.name.clone(),
        about: entry.about.clone(),
        protocol: gallery::protocol(&entry.name),
        is_mutant: entry.is_mutant(),
        states: match entry.expected {
            Expected::Safe(Counts { unique, .. }) => Some(unique),
            _ => None,
        },
    };
    ok(&explorer.models.entries().map(row).collect::<Vec<_>>())
}

async fn exhibits(State(explorer): Shared) -> Answer {
    ok(&gallery::exhibits(explorer.models.entries()))
}

#[derive(Serialize)]
struct Shown {
    model: String,
    path: String,
    fingerprint: String,
    properties: Vec<Judged>,
    within: bool,
    tree: Tree,
    changes: Vec<Change>,
    actions: Vec<Next>,
}

#[derive(Serialize)]
struct Next {
    index: u32,
    /// It changes nothing.
    idle: bool,
    #[serde(flatten)]
    told: Told,
}

async fn state(State(explorer): Shared, Query(ask): Ask) -> Answer {
    let shown = compute(move || {
        let model = asked(&ask, "model")?;
        let path = parse_path(ask.get("path").map_or("", String::as_str))?;
        let fingerprint = ask.get("fingerprint").map(String::as_str).filter(|it| !it.is_empty());
        let here = explorer.models.find(model, &path, fingerprint)?;
        let space = &here.space;
        let picture = space.picture(&here.place);
        let tree = space.tree(&here.place);
        let changes = here.before.map(|before| tree.changes_since(&space.tree(&before)));
        let actions = space.actions(&here.place).into_iter().zip(space.idle(&here.place));
        let next = |(index, (told, idle))| Next {
            index: u32::try_from(index).expect("few actions"),
            idle,
            told,
        };
        Ok(Shown {
            model: model.to_owned(),
            path: path_text(&path),
            fingerprint: hex(picture.fingerprint),
            properties: picture.properties,
            within: picture.within,
            tree,
            changes: changes.unwrap_or_default(),
            actions: actions.enumerate().map(next).collect(),
        })
    });
    ok(&shown.await?)
}

fn story_of(explorer: &Explorer, ask: &BTreeMap<String, String>) -> Result<Story, ApiError> {
    let model = asked(ask, "model")?;
    let path = parse_path(ask.get("path").map_or("", String::as_str))?;
    let fingerprint = ask.get("fingerprint").map(String::as_str).filter(|it| !it.is_empty());
    let here = explorer.models.find(model, &path, fingerprint)?;
    let with_trees = ask.get("trees").is_some_and(|trees| trees == "1");
    let story = story::tell(model, &*here.space, &path, with_trees);
    Ok(story.expect("the path was just walked"))
}

async fn told(State(explorer): Shared, Query(ask): Ask) -> Answer {
    ok(&compute(move || story_of(&explorer, &ask)).await?)
}

/// The schedule of a path once more, in the model with the rule.
async fn mended(State(explorer): Shared, Query(ask): Ask) -> Answer {
    let story = compute(move || {
        let model = asked(&ask, "model")?.to_owned();
        let id = format!("{model}{}", super::models::MENDED);
        let space = explorer.models.space(&id)?;
        let schedule = story_of(&explorer, &ask)?;
        Ok(retell(&format!("{model} with the rule"), &*space, &schedule))
    });
    ok(&story.await?)
}

async fn opened(State(explorer): Shared) -> Answer {
    ok(&explorer.opened)
}

#[derive(Deserialize)]
struct Files {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    name: String,
    text: String,
}

async fn imported(body: Bytes) -> Answer {
    let story = compute(move || {
        let Files { files } = serde_json::from_slice(&body).map_err(|error| {
            ApiError::bad(format!("send {{\"files\":[{{name, text}}]}}: {error}"))
        })?;
        let files: Vec<_> = files.into_iter().map(|file| (file.name, file.text)).collect();
        import::import(&files)
            .map_err(|error| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error))
    });
    ok(&story.await?)
}

async fn exported(Path(form): Path<String>, body: Bytes) -> Answer {
    let (kind, text) = compute(move || {
        let story: Story = serde_json::from_slice(&body).map_err(|error| {
            ApiError::bad(format!("send a story, as /api/story gives it: {error}"))
        })?;
        Ok(match form.as_str() {
            "ndjson" => ("application/x-ndjson", export::ndjson(&story)),
            "itf" => ("application/json", export::itf(&story)),
            "plantuml" => ("text/plain; charset=utf-8", export::plantuml(&story)),
            "html" => ("text/plain; charset=utf-8", report::html(&story)),
            other => {
                let what = format!("there is no form {other:?}: ndjson, itf, plantuml or html");
                return Err(ApiError::new(StatusCode::NOT_FOUND, what));
            }
        })
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

// -------------------------------------------------------------------------------------------------
// Searching
// -------------------------------------------------------------------------------------------------

async fn search(State(explorer): Shared, Query(ask): Ask) -> Answer {
    let model = asked(&ask, "model")?;
    let space = explorer.models.space(model)?;
    let goal = ask.get("goal").filter(|goal| !goal.is_empty()).cloned();
    if let Some(goal) = &goal
        && space.properties().iter().all(|(name, _)| name != goal)
    {
        let names: Vec<_> = space.properties().into_iter().map(|(name, _)| name).collect();
        return Err(ApiError::bad(format!(
            "{model} has no property {goal:?}: {}",
            names.join(", ")
        )));
    }
    explore(&explorer, space, goal)
}

/// Explores on a thread of its own and tells how far it is; ends when nobody listens any more.
fn explore(explorer: &Explorer, space: Arc<dyn Space>, goal: Option<String>) -> Answer {
    let permit = Arc::clone(&explorer.exploring).try_acquire_owned().map_err(|_| {
        let what = "another exploration is running: stop it, or wait for its end";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, what)
    })?;
    let (events, receiver) = mpsc::channel::<Result<Event, Infallible>>(16);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let limits = Limits {
            time: Some(TIME_MAX),
            states: Some(STATES_MAX),
            past_violations: goal.is_none(),
            ..Limits::default()
        };
        let mut told = std::time::Instant::now();
        let begun = told;
        let mut on_progress = |progress: Progress| {
            if events.is_closed() {
                return ControlFlow::Break(());
            }
            if told.elapsed() >= Duration::from_millis(200) {
                told = std::time::Instant::now();
                // A reader that is slow misses some.
                let _ = events
                    .try_send(Ok(event("progress", &told_progress(progress, begun.elapsed()))));
            }
            ControlFlow::Continue(())
        };
        let found = space.search(goal.as_deref(), limits, &mut on_progress);
        let _ = events.blocking_send(Ok(event("end", &told_end(&*space, goal.as_deref(), &found))));
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

fn told_end(space: &dyn Space, goal: Option<&str>, found: &Found) -> Value {
    let properties = space.properties().into_iter();
    let properties = properties.filter(|(name, _)| goal.is_none_or(|goal| goal == *name));
    let properties = properties.map(|(name, always)| {
        let path = found.paths.get(name);
        let verdict = match (always, path.is_some(), found.exhaustive) {
            (true, true, _) => "violated",
            (true, false, true) => "holds",
            (false, true, _) => "found",
            (false, false, true) => "never",
            (_, false, false) => "unknown",
        };
        json!({
            "name": name, "always": always, "verdict": verdict,
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

// -------------------------------------------------------------------------------------------------
// Timing
// -------------------------------------------------------------------------------------------------

fn asked_timing(ask: &BTreeMap<String, String>) -> Result<Timing, ApiError> {
    let period = |name: &str, default: Duration| match ask.get(name) {
        None => Ok(default),
        Some(text) => {
            duration::parse(text).map_err(|error| ApiError::bad(format!("{name}={text}: {error}")))
        }
    };
    let d = Timing::DEFAULT;
    let ppm = ask.get("clock_error_ppm").map(|text| {
        let wrong = |_| ApiError::bad(format!("clock_error_ppm={text}: write a whole number"));
        text.parse().map_err(wrong)
    });
    Ok(Timing {
        lease: period("lease", d.lease)?,
        give_up: period("give_up", d.give_up)?,
        renew: period("renew", d.renew)?,
        retry: period("retry", d.retry)?,
        poll: period("poll", d.poll)?,
        jitter: period("jitter", d.jitter)?,
        hook: period("hook", d.hook)?,
        clock_error_ppm: ppm.unwrap_or(Ok(d.clock_error_ppm))?,
    })
}

fn ns(duration: Duration) -> String {
    duration.as_nanos().to_string()
}

async fn timing(Query(ask): Ask) -> Answer {
    let timing = asked_timing(&ask)?;
    let numbers = timing.inequality();
    let errors = timing.validate().err();
    let errors: Vec<_> =
        errors.iter().flat_map(|errors| errors.iter()).map(ToString::to_string).collect();
    ok(&json!({
        "lease": ns(timing.lease), "give_up": ns(timing.give_up), "renew": ns(timing.renew),
        "hook": ns(timing.hook), "clock_error_ppm": timing.clock_error_ppm,
        "safe": numbers.is_safe(),
        "need": numbers.need_ns().map(|ns| ns.to_string()),
        "margin": numbers.margin_ns().to_string(),
        "last_act": ns(numbers.last_act()),
        "takeover_earliest": ns(numbers.takeover_earliest()),
        "overlap": ns(numbers.overlap()),
        "smallest_lease": numbers.smallest_lease().map(ns),
        "largest_give_up": timing.largest_give_up().map(ns),
        "largest_hook": numbers.largest_hook().map(ns),
        "errors": errors,
    }))
}

/// Explores the model of these very numbers.
async fn check_timing(State(explorer): Shared, Query(ask): Ask) -> Answer {
    let timing = asked_timing(&ask)?;
    let refused = |error: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error);
    let checked = timing.validate().map_err(|errors| refused(errors.to_string()))?;
    let entry =
        deployment::entry("browser", &checked).map_err(|error| refused(error.to_string()))?;
    explore(&explorer, (entry.space)(), None)
}
