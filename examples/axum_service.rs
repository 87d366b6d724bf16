//! A service that writes only while it is primary, and whose table refuses a primary that has been replaced.
//!
//! ```sh
//! DATABASE_URL="host=localhost user=postgres" \
//!   cargo run --example axum_service -- 127.0.0.1:8080
//! curl -X POST 127.0.0.1:8080/add/5
//! curl 127.0.0.1:8080/leader
//! ```
//!
//! The permit is asked for before the statement; the epoch goes with it, and the row refuses an epoch below the
//! highest that it has seen: that is what holds when this process is stopped between the two. The store here is in
//! memory, so this process elects itself; put a store there that the others share.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use tenure::embed::{Builder, MemoryStore};
use tenure::http::{LeaseHealth, install_recorder, router};
use tenure::lease::record::NodeId;
use tenure::lease::timing::Timing;
use tenure::node::Guard;
use tokio_postgres::{Client, NoTls};

/// More than the statement takes.
const STATEMENT: Duration = Duration::from_millis(500);

struct Service {
    guard: Arc<Guard>,
    database: Client,
}

type Answer = Result<String, (StatusCode, String)>;

async fn add(State(service): State<Arc<Service>>, Path(amount): Path<i64>) -> Answer {
    let refuse = |text: String| (StatusCode::SERVICE_UNAVAILABLE, text);
    // Held until the statement is answered: the lease is not given back under it.
    let admission = service.guard.enter(STATEMENT).map_err(|error| refuse(error.to_string()))?;
    let epoch = i64::try_from(admission.epoch()).map_err(|error| refuse(error.to_string()))?;
    let row = service
        .database
        .query_opt(
            "UPDATE counter SET value = value + $2, epoch = $1 WHERE epoch <= $1 RETURNING value",
            &[&epoch, &amount],
        )
        .await
        .map_err(|error| refuse(error.to_string()))?;
    match row {
        Some(row) => Ok(format!("{}\n", row.get::<_, i64>(0))),
        None => Err((StatusCode::CONFLICT, format!("epoch {epoch} has been replaced\n"))),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (Some(address), Ok(url)) = (std::env::args().nth(1), std::env::var("DATABASE_URL")) else {
        return Err("usage: DATABASE_URL=... axum_service ADDRESS".into());
    };
    let (database, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);
    database
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS counter (value bigint NOT NULL, epoch bigint NOT NULL);
             INSERT INTO counter SELECT 0, 0 WHERE NOT EXISTS (SELECT FROM counter)",
        )
        .await?;
    // Before the elector: what happens earlier would be counted nowhere.
    let metrics = install_recorder()?;
    let hosts = [NodeId(0), NodeId(1)];
    let timing = Timing::DEFAULT.validate()?;
    let mut elector =
        Builder::new("counter", hosts[0], hosts, MemoryStore::new(), timing).start()?;
    let (guard, view) = (elector.guard(), elector.view());
    let is_ready = move || view.borrow().epoch.is_some();
    let health = LeaseHealth::new("counter", Arc::clone(&guard), is_ready);
    let service = Router::new()
        .route("/add/{amount}", post(add))
        .with_state(Arc::new(Service { guard, database }))
        .merge(router(vec![health], || true, metrics));
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("ready {}", listener.local_addr()?);
    let terms = async {
        // Whoever asks the guard needs no leadership, but somebody has to hold it.
        while let Ok(term) = elector.acquire().await {
            term.cancelled().await;
        }
    };
    tokio::select! {
        served = axum::serve(listener, service).into_future() => served?,
        () = terms => {}
    }
    Ok(())
}
