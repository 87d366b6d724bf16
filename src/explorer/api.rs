//! What the page asks for. Every answer is JSON or a stream of events, errors too; a number of 64 bits is
//! text. Walking and searching happen on threads of their own, so that no answer waits for another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::around::around;
use super::models::{Here, Lost, parse_path, path_text};
use super::server::Explorer;
use super::story::{Story, hex};
use super::telling::{self, Teller, retell};
use super::{export, gallery, import, report, searching};
use crate::duration;
use crate::lease::timing::Timing;
use crate::models::deployment;
use crate::models::registry::{Counts, Expected};
use crate::models::space::{Goal, Judged, Told};
use crate::models::tree::{Change, Tree};

/// The largest body that is read.
const BODY_MAX: usize = 128 << 20;
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

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

//= SPEC EXPLORER-8
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
            Lost::Action { .. } | Lost::Fingerprint { .. } | Lost::Loop { .. } => {
                StatusCode::CONFLICT
            }
        };
        Self::new(status, lost.to_string())
    }
}

pub(super) type Answer = Result<Response, ApiError>;
pub(super) type Ask = Query<BTreeMap<String, String>>;
pub(super) type Shared = State<Arc<Explorer>>;

fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    in_json(status, serde_json::to_string(body).expect("an answer is plain data"))
}

fn in_json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
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
        .route("/api/story", get(story))
        .route("/api/around", get(neighbours))
        .route("/api/mended", get(mended))
        .route("/api/search", get(searching::search))
        .route("/api/loop", get(searching::search_loop))
        .route("/api/opened", get(opened))
        .route("/api/live", get(live))
        .route("/api/import", post(imported))
        .route("/api/export/{form}", post(exported))
        .route("/api/timing", get(timing))
        .route("/api/timing/check", get(check_timing))
        .layer(DefaultBodyLimit::max(BODY_MAX))
}

/// Computes on a thread that may block.
//= SPEC EXPLORER-9
pub(super) async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        let what = "this state breaks an assertion of the protocol's own code: report it, with this address";
        Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, what))
    })
}

/// Computes an answer, and writes it down on the same thread.
async fn told<T: Serialize>(work: impl FnOnce() -> Result<T, ApiError> + Send + 'static) -> Answer {
    let written = move || Ok(serde_json::to_string(&work()?).expect("an answer is plain data"));
    Ok(in_json(StatusCode::OK, compute(written).await?))
}

pub(super) fn asked<'a>(
    ask: &'a BTreeMap<String, String>,
    name: &str,
) -> Result<&'a str, ApiError> {
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

/// The state that a question names.
pub(super) fn here(explorer: &Explorer, ask: &BTreeMap<String, String>) -> Result<Here, ApiError> {
    let model = asked(ask, "model")?;
    let path = parse_path(ask.get("path").map_or("", String::as_str))?;
    let fingerprint = ask.get("fingerprint").map(String::as_str).filter(|it| !it.is_empty());
    Ok(explorer.models.find(model, &path, fingerprint)?)
}

#[derive(Serialize)]
struct Shown {
    model: String,
    path: String,
    fingerprint: String,
    properties: Vec<Judged>,
    within: bool,
    tree: Arc<Tree>,
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
    told(move || {
        let model = asked(&ask, "model")?;
        let path = parse_path(ask.get("path").map_or("", String::as_str))?;
        let here = here(&explorer, &ask)?;
        let space = &here.space;
        let picture = space.picture(&here.place);
        let tree = explorer.models.tree(&**space, &here.place);
        let before = here.before.map(|before| explorer.models.tree(&**space, &before));
        let changes = before.map(|before| tree.changes_since(&before));
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
    })
    .await
}

/// The story of a path, from the step `from` on, which the page has up to there. `back_to`: the path ends in a loop.
fn story_of(explorer: &Explorer, ask: &BTreeMap<String, String>) -> Result<Story, ApiError> {
    let model = asked(ask, "model")?;
    let path = parse_path(ask.get("path").map_or("", String::as_str))?;
    let here = here(explorer, ask)?;
    let number = |name: &str| match ask.get(name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse::<usize>() {
            Ok(number) if number <= path.len() => Ok(Some(number)),
            _ => Err(ApiError::bad(format!(
                "{name}={text}: write the number of a step of the path, which has {}",
                path.len()
            ))),
        },
    };
    let (from, back_to) = (number("from")?.unwrap_or(0), number("back_to")?);
    let is_asked = |name: &str| ask.get(name).is_some_and(|asked| asked == "1");
    if is_asked("around") {
        let story = telling::tell_around(model, &here.space, &path, report::AROUND);
        return Ok(story.expect("the path was just walked"));
    }
    if is_asked("trees") {
        let story = telling::tell(model, &here.space, &path, true);
        return Ok(story.expect("the path was just walked"));
    }
    let show = |teller: &Teller| {
        let mut story = teller.story().since(from);
        if let Some(row) = back_to {
            let first = teller.place_after(row).expect("it was looked at");
            if !here.space.is_alike(first, teller.place()) {
                return Err(Lost::Loop { row });
            }
            story.back_to = Some(row);
            story.notes.push(if here.space.is_same(first, teller.place()) {
                format!("a loop: after the last step all is as it was after step {row}")
            } else {
                format!(
                    "a loop: after the last step all is as it was after step {row}, but for names and numbers \
                     that make no difference"
                )
            });
        }
        Ok(story)
    };
    let story = explorer.tellers.tell(model, &here.space, &path, show);
    Ok(story.expect("the path was just walked")?)
}

async fn story(State(explorer): Shared, Query(ask): Ask) -> Answer {
    told(move || story_of(&explorer, &ask)).await
}

/// How far the states around one may be, in steps.
const AROUND_MAX: usize = 6;
/// How many states before the shown one are in its picture.
const BEFORE: usize = 2;

/// The states around the one that is shown, and around the last ones before it.
async fn neighbours(State(explorer): Shared, Query(ask): Ask) -> Answer {
    told(move || {
        let steps = match ask.get("steps").map(|text| text.parse::<usize>()) {
            None => 2,
            Some(Ok(steps)) if steps <= AROUND_MAX => steps,
            Some(_) => return Err(ApiError::bad(format!("steps is a number up to {AROUND_MAX}"))),
        };
        let here = here(&explorer, &ask)?;
        let path = parse_path(ask.get("path").map_or("", String::as_str))?;
        let model = asked(&ask, "model")?;
        let mut begin = vec![(path.clone(), here.place)];
        for length in (path.len().saturating_sub(BEFORE)..path.len()).rev() {
            let place = explorer.models.find(model, &path[..length], None)?.place;
            begin.push((path[..length].to_vec(), place));
        }
        Ok(around(&*here.space, &begin, steps))
    })
    .await
}

/// The schedule of a path once more, in the model with the rule.
async fn mended(State(explorer): Shared, Query(ask): Ask) -> Answer {
    told(move || {
        let model = asked(&ask, "model")?.to_owned();
        let id = format!("{model}{}", super::models::MENDED);
        let space = explorer.models.space(&id)?;
        let schedule = story_of(&explorer, &ask)?;
        Ok(retell(&format!("{model} with the rule"), &space, &schedule))
    })
    .await
}

async fn opened(State(explorer): Shared) -> Answer {
    ok(&explorer.opened)
}

/// The run that is followed, as it grows.
async fn live(State(explorer): Shared) -> Answer {
    let Some(live) = explorer.live.clone() else {
        let what = "no run is followed: start `tenure explore --follow` with a folder of traces, or with files";
        return Err(ApiError::new(StatusCode::NOT_FOUND, what));
    };
    let (events, receiver) = mpsc::channel(16);
    tokio::spawn(async move { live.listen(events).await });
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default()).into_response())
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
    told(move || {
        let Files { files } = serde_json::from_slice(&body).map_err(|error| {
            ApiError::bad(format!("send {{\"files\":[{{name, text}}]}}: {error}"))
        })?;
        let files: Vec<_> = files.into_iter().map(|file| (file.name, file.text)).collect();
        import::import(&files)
            .map_err(|error| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error))
    })
    .await
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
    let space = (entry.space)();
    let start = space.start();
    searching::explore(&explorer, space, start, Goal::Everything)
}
