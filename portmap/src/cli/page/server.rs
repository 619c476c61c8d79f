//! The HTTP server of the page. It answers only on 127.0.0.1, and only to requests that name this machine: so no page of
//! another origin can read it through a DNS name that leads here.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use anyhow::Result;
use axum::{
    Router,
    extract::{Query, Request, State},
    middleware::{self, Next},
    response::{
        Html, IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures::{Stream, stream};
use http::{StatusCode, header};
use portmap::{
    error_text,
    inspect::{explain::target::Target, top::Row},
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::watch, task, time::sleep};

use super::{
    blocks::{Blocks, SETTLING},
    board::{Board, Boards},
    html,
};

/// Only files of this server, and no script or style within the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// Answers requests until the listener fails.
pub async fn run(listener: TcpListener, boards: Arc<Boards>) -> Result<()> {
    let router = Router::new()
        .route("/", get(page))
        .route("/events", get(events))
        .route("/explain", get(explain))
        .route("/page.css", get(([(header::CONTENT_TYPE, "text/css")], include_str!("page.css"))))
        .route("/page.js", get(([(header::CONTENT_TYPE, "text/javascript")], include_str!("page.js"))))
        .layer(middleware::from_fn(guard))
        .with_state(boards);
    Ok(axum::serve(listener, router).await?)
}

/// Refuses requests for other hosts, and adds headers.
async fn guard(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if !["127.0.0.1", "localhost"].contains(&name) {
        return (StatusCode::FORBIDDEN, "this page answers to the names 127.0.0.1 and localhost only\n").into_response();
    }
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, next.run(request).await).into_response()
}

/// An error as an answer.
struct Failure(StatusCode, String);

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", error_text::of_error(error.as_ref())))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

/// The Services to show.
#[derive(Deserialize)]
struct Search {
    /// A part of `namespace/name`.
    #[serde(default)]
    q: String,
}

async fn page(State(boards): State<Arc<Boards>>, Query(search): Query<Search>) -> Result<Html<String>, Failure> {
    let board = boards.boards().borrow().clone();
    let blocks = select(&boards, board, search.q.clone()).await?;
    Ok(Html(html::page(boards.node(), &search.q, &blocks).into_string()))
}

/// The destination to explain.
#[derive(Deserialize)]
struct Destination {
    /// As the argument of `portmap explain`.
    target: String,
    /// Any value asks for the part of the page that the script shows.
    part: Option<String>,
}

async fn explain(State(boards): State<Arc<Boards>>, Query(wanted): Query<Destination>) -> Result<Html<String>, Failure> {
    let invalid = |error| Failure(StatusCode::BAD_REQUEST, format!("{}: {error}\n", wanted.target));
    let target: Target = wanted.target.parse().map_err(invalid)?;
    let report = blocking(move || boards.explain(&target)).await?;
    let body = html::report(&report);
    let body = if wanted.part.is_some() { body } else { html::explanation_page(&body) };
    Ok(Html(body.into_string()))
}

/// Sends the Services and rates to a viewer, now and after each change.
async fn events(
    State(boards): State<Arc<Boards>>,
    Query(search): Query<Search>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let viewer = Viewer { board: boards.boards(), rates: boards.rates(), boards, query: search.q, sent: BTreeMap::new() };
    let events = stream::unfold(viewer, |mut viewer| async {
        let event = viewer.next().await?;
        Some((Ok(event), viewer))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(10)))
}

/// An open page.
struct Viewer {
    boards: Arc<Boards>,
    board: watch::Receiver<Arc<Board>>,
    rates: watch::Receiver<Arc<[Row]>>,
    query: String,
    /// The HTML of each Service that the page has, by its id.
    sent: BTreeMap<String, String>,
}

/// The Services of a page, in order.
#[derive(Serialize)]
struct Services {
    services: Vec<Item>,
    text: String,
}

/// A Service of a page.
#[derive(Serialize)]
struct Item {
    id: String,
    /// None if the page has it already.
    html: Option<String>,
}

/// The rate of a Service port.
#[derive(Serialize)]
struct Rate {
    text: String,
    flows: bool,
    fails: bool,
}

impl Viewer {
    /// The next event; `None` after the end of the reader.
    async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                changed = self.board.changed() => {
                    changed.ok()?;
                    match self.services().await {
                        Ok(event) => return Some(event),
                        Err(error) => tracing::warn!("failed to show the Services: {error:#}"),
                    }
                }
                changed = self.rates.changed() => {
                    changed.ok()?;
                    let rows = self.rates.borrow_and_update().clone();
                    let rates: BTreeMap<String, Rate> = rows.iter().filter_map(rate).collect();
                    return Event::default().event("rates").json_data(rates).ok();
                }
            }
        }
    }

    async fn services(&mut self) -> Result<Event> {
        let board = self.board.borrow_and_update().clone();
        let mut blocks = select(&self.boards, board, self.query.clone()).await?;
        if !blocks.agree() {
            sleep(SETTLING).await;
            let board = self.board.borrow_and_update().clone();
            blocks = select(&self.boards, board, self.query.clone()).await?;
        }
        let mut sent = BTreeMap::new();
        let item = |block| {
            let (id, html) = (html::id(block), html::service(block).into_string());
            let is_known = self.sent.get(&id) == Some(&html);
            sent.insert(id.clone(), html.clone());
            Item { id, html: (!is_known).then_some(html) }
        };
        let services = Services { services: blocks.shown.iter().map(item).collect(), text: blocks.summary() };
        self.sent = sent;
        Ok(Event::default().event("services").json_data(services)?)
    }
}

/// The rate of a Service port, if it has any connections.
fn rate(row: &Row) -> Option<(String, Rate)> {
    let (flows, fails) = (row.forwarded_per_second > 0.0, row.failures() > 0.0);
    if !flows && !fails {
        return None;
    }
    let mut parts = Vec::new();
    for (value, name) in [
        (row.forwarded_per_second, "new connections/s"),
        (row.refused_per_second, "refused/s"),
        (row.dropped_per_second, "dropped/s"),
    ] {
        parts.extend((value > 0.0).then(|| format!("{value:.1} {name}")));
    }
    Some((html::key(&row.service, &row.port, row.protocol), Rate { text: parts.join(", "), flows, fails }))
}

async fn select(boards: &Arc<Boards>, board: Arc<Board>, query: String) -> Result<Blocks> {
    let boards = boards.clone();
    blocking(move || Blocks::of(&board, &boards, query.trim())).await
}

/// Runs work that takes some milliseconds, or that waits for an API server.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    task::spawn_blocking(work).await?
}
