//! The server: who may ask, and what every answer carries.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt as _;
use rust_embed::RustEmbed;
use tokio::net::TcpListener;

use super::api::{self, ApiError};
use super::follow::Live;
use super::models::Models;
use super::story::Story;
use super::telling::Tellers;
use super::turns::Turns;

/// The page, as it was built into the program. Nothing is ever read from the working directory; a debug build reads
/// `web/dist` of the sources that it was made from, so that a change of the page needs no build of the program.
#[derive(RustEmbed)]
#[folder = "web/dist"]
pub(super) struct Assets;

/// What a page may load: what comes from here, and nothing else; no script within the page.
//= SPEC EXPLORER-6
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      object-src 'none'";

/// What the server shows.
pub struct Explorer {
    pub(super) models: Models,
    pub(super) tellers: Tellers,
    /// The story that was named when it was started.
    pub(super) opened: Option<Story>,
    /// The run that is followed.
    pub(super) live: Option<Arc<Live>>,
    /// One exploration at a time: each may need all of a core and much memory.
    pub(super) exploring: Arc<tokio::sync::Semaphore>,
    /// The answers that are being made, for which an exploration stands aside.
    pub(super) turns: Arc<Turns>,
    port: u16,
}

/// What an explorer shows besides the models.
#[derive(Default)]
pub struct Named {
    /// A story.
    pub opened: Option<Story>,
    /// A run that is followed.
    pub live: Option<Arc<Live>>,
}

/// The service, for a listener on this port.
pub fn router(named: Named, port: u16) -> Router {
    let Named { opened, live } = named;
    let explorer = Arc::new(Explorer {
        models: Models::new(),
        tellers: Tellers::default(),
        opened,
        live,
        exploring: Arc::new(tokio::sync::Semaphore::new(1)),
        turns: Arc::default(),
        port,
    });
    api::routes()
        .fallback(asset)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&explorer), guard))
        .with_state(explorer)
}

/// Serves on this listener until the process ends.
///
/// # Errors
///
/// If the listener cannot be used.
pub async fn serve(listener: TcpListener, named: Named) -> std::io::Result<()> {
    let address: SocketAddr = listener.local_addr()?;
    // Without it, the end of an answer may wait for the reader's system to say that it has the beginning.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, router(named, address.port())).await
}

/// A page of another site can make a browser ask here under a name of its own that it has made to mean
/// 127.0.0.1: so the name must be ours. What it posts names its origin.
async fn guard(State(explorer): State<Arc<Explorer>>, request: Request, next: Next) -> Response {
    let answering = explorer.turns.answer();
    let mut response = match may_ask(request.headers(), explorer.port) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    drop(answering);
    response
}

//= SPEC EXPLORER-7
fn may_ask(headers: &HeaderMap, port: u16) -> Result<(), ApiError> {
    let names = ["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{port}"));
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if names.iter().all(|name| name != host) {
        let what = format!("ask for one of {}", names.join(", "));
        return Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, what));
    }
    let is_ours = |origin: &str| names.iter().any(|name| origin == format!("http://{name}"));
    if text(header::ORIGIN).is_some_and(|origin| !is_ours(origin)) {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "this page belongs to another site"));
    }
    Ok(())
}

async fn asset(uri: Uri) -> Response {
    let path = match uri.path().trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    let kind = match path.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "application/octet-stream",
    };
    match Assets::get(path) {
        Some(file) => {
            ([(header::CONTENT_TYPE, kind)], Body::from(file.data.into_owned())).into_response()
        }
        None => {
            ApiError::new(StatusCode::NOT_FOUND, "there is nothing at this address").into_response()
        }
    }
}
