//! An HTTP proxy before the API server. It answers selected requests itself, as an overloaded or older API server would, or a
//! load balancer. Other requests are forwarded. Clients connect with plain HTTP.

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

/// A selection of requests, and the response that they get instead of the API server's.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// A substring of the path and query of the selected requests.
    pub of: &'static str,
    /// The status of the response.
    pub status: StatusCode,
    /// The value of the header `Retry-After`, in seconds; `None` for a response without it.
    pub retry_after: Option<u32>,
}

/// A running proxy. It forwards all requests until [`Self::refuse`] is called. Dropping this stops it.
#[derive(Debug)]
pub struct Detour {
    address: SocketAddr,
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Inner {
    refusal: Mutex<Option<Refusal>>,
    /// Number of refused requests since the last change of `refusal`.
    refused: Mutex<usize>,
    /// Notified to end the responses in progress.
    breaks: Notify,
}

impl Detour {
    /// Starts a proxy on a free port of loopback. `api_server` is a client without credentials, because requests have their
    /// own.
    pub async fn start(api_server: Client) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("failed to listen on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner::default());
        let router = axum::Router::new().fallback(answer).with_state((inner.clone(), api_server));
        let server = tokio::spawn(async move {
            // This ends only when the task is aborted.
            axum::serve(listener, router).await.ok();
        });
        Ok(Self { address, inner, server })
    }

    /// The proxy's URL, `http://127.0.0.1:<port>`, which clients use instead of the API server's.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Refuses the selected requests from now on; `None` forwards all requests. Resets [`Self::refused`].
    pub fn refuse(&self, refusal: Option<Refusal>) {
        *self.inner.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
        *self.inner.refused.lock().unwrap_or_else(PoisonError::into_inner) = 0;
    }

    /// Ends all responses in progress, including watches.
    pub fn break_off(&self) {
        self.inner.breaks.notify_waiters();
    }

    /// Number of requests that were refused since the last call of [`Self::refuse`].
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

async fn answer(State((inner, api_server)): State<(Arc<Inner>, Client)>, request: Request) -> Response<Body> {
    if let Some(Refusal { of: _, status, retry_after }) = inner.refusal_of(&request) {
        let headers = retry_after.map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
        return match headers {
            Some(headers) => (status, headers, status.to_string()).into_response(),
            None => (status, status.to_string()).into_response(),
        };
    }
    // The agent, which is the client in these tests, sends only requests without a body.
    let (mut head, _) = request.into_parts();
    head.headers.remove(header::HOST);
    match api_server.send(axum::http::Request::from_parts(head, kube::client::Body::empty())).await {
        Ok(response) => response.map(|body| Body::from_stream(until_break(inner, body))),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

fn until_break(inner: Arc<Inner>, body: kube::client::Body) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    let broken_off = async move { inner.breaks.notified().await };
    Body::new(body).into_data_stream().take_until(Box::pin(broken_off))
}
