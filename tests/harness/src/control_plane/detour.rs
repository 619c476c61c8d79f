//! A detour on the way to the API server: requests go on to it, but for some that are answered here as an overloaded or older API
//! server would, or a load balancer before it. It speaks plain HTTP to its clients.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse as _;
use futures::{Stream, StreamExt as _};
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What is answered here instead.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// A part of the path and query of the requests.
    pub of: &'static str,
    /// The answer.
    pub status: StatusCode,
    /// How many seconds the client is asked to wait.
    pub retry_after: Option<u32>,
}

/// A detour that answers nothing itself at first. It is there until dropped.
#[derive(Debug)]
pub struct Detour {
    address: SocketAddr,
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Inner {
    refusal: Mutex<Option<Refusal>>,
    /// How many requests were refused.
    refused: Mutex<usize>,
    /// Ends the answers under way.
    breaks: Notify,
}

impl Detour {
    /// Sets one up on a port of loopback. `onwards` is a client without credentials: those of the requests go on.
    pub async fn start(onwards: Client) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("failed to listen on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner::default());
        let router = axum::Router::new().fallback(answer).with_state((inner.clone(), onwards));
        let server = tokio::spawn(async move {
            // It never ends by itself.
            axum::serve(listener, router).await.ok();
        });
        Ok(Self { address, inner, server })
    }

    /// What a client of the API server is told.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers some requests here from now on, or none.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        *self.inner.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
        *self.inner.refused.lock().unwrap_or_else(PoisonError::into_inner) = 0;
    }

    /// Ends all answers that are under way.
    pub fn break_off(&self) {
        self.inner.breaks.notify_waiters();
    }

    /// How many requests were answered here since the last call of [`Self::refuse`].
    #[must_use]
    pub fn refused(&self) -> usize {
        *self.inner.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Inner {
    fn refusal_of(&self, request: &Request) -> Option<Refusal> {
        let target = request.uri().path_and_query()?.as_str();
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let refusal = refusal.filter(|refusal| target.contains(refusal.of))?;
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Some(refusal)
    }
}

async fn answer(State((inner, onwards)): State<(Arc<Inner>, Client)>, request: Request) -> Response<Body> {
    if let Some(Refusal { of: _, status, retry_after }) = inner.refusal_of(&request) {
        let headers = retry_after.map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
        return match headers {
            Some(headers) => (status, headers, status.to_string()).into_response(),
            None => (status, status.to_string()).into_response(),
        };
    }
    // Nobody who goes this way sends a body.
    let (mut head, _) = request.into_parts();
    head.headers.remove(header::HOST);
    match onwards.send(axum::http::Request::from_parts(head, kube::client::Body::empty())).await {
        Ok(response) => response.map(|body| Body::from_stream(until_broken(inner, body))),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

fn until_broken(inner: Arc<Inner>, body: kube::client::Body) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    let broken = async move { inner.breaks.notified().await };
    Body::new(body).into_data_stream().take_until(Box::pin(broken))
}
