//! The order in which the two routes to the API server are tried. Pure.

use std::time::{Duration, Instant};

/// After a failure, only untranslated connections are tried for this time, if the last response came over one. The API
/// server may only be restarting. Meanwhile a Service that claims its address must not receive the connections.
const UNTRANSLATED_ONLY: Duration = Duration::from_mins(1);

/// Whether the node's eBPF programs translate a connection of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Not translated, by [`OWN_PRIORITY`](crate::kernel::OWN_PRIORITY).
    Untranslated,
    /// Translated like connections of other processes.
    Translated,
}

impl Route {
    const fn other(self) -> Self {
        match self {
            Self::Untranslated => Self::Translated,
            Self::Translated => Self::Untranslated,
        }
    }
}

/// The state of the routes with and without translation.
#[derive(Debug)]
pub struct ConnectionRoutes {
    /// The route to try first.
    first: Route,
    /// The route of the last TCP connection.
    pub connected: Route,
    /// Whether the API server has responded since the last failed request.
    has_answered: bool,
    /// The route of the API server's last response.
    answered: Option<Route>,
    /// The time of the first failure since the last response, or since the start.
    failing_since: Option<Instant>,
}

impl ConnectionRoutes {
    /// The state before the first connection: without translation first.
    pub const fn new() -> Self {
        let (first, connected) = (Route::Untranslated, Route::Untranslated);
        Self { first, connected, has_answered: false, answered: None, failing_since: None }
    }

    /// The routes for a new connection, in the order of the attempts.
    pub fn to_try(&self, now: Instant) -> Vec<Route> {
        let is_lasting = self.failing_since.is_some_and(|since| now.duration_since(since) >= UNTRANSLATED_ONLY);
        if self.answered == Some(Route::Untranslated) && !is_lasting {
            vec![Route::Untranslated]
        } else {
            vec![self.first, self.first.other()]
        }
    }

    /// Records the time of a failure, unless one is recorded since the last response.
    pub fn mark_failure(&mut self, now: Instant) {
        self.failing_since.get_or_insert(now);
    }

    /// Records a response. Returns the route if it has changed, see [`super::Connector::answered`].
    pub fn answered(&mut self) -> Option<Route> {
        self.has_answered = true;
        self.failing_since = None;
        self.first = self.connected;
        let before = self.answered.replace(self.connected);
        (before != Some(self.connected)).then_some(self.connected)
    }

    /// Records a failed request, see [`super::Connector::failed`].
    pub fn failed(&mut self, now: Instant) {
        self.mark_failure(now);
        if !std::mem::take(&mut self.has_answered) {
            self.first = self.connected.other();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_without_responses_is_tried_after_the_other() {
        let (mut routes, now) = (ConnectionRoutes::new(), Instant::now());
        routes.failed(now);
        assert_eq!(routes.first, Route::Translated);
        routes.connected = Route::Translated;
        routes.failed(now);
        assert_eq!(routes.first, Route::Untranslated);
    }

    #[test]
    fn a_route_with_a_response_is_tried_once_more() {
        let (mut routes, now) = (ConnectionRoutes::new(), Instant::now());
        routes.connected = Route::Translated;
        assert_eq!(routes.answered(), Some(Route::Translated));
        assert_eq!(routes.answered(), None, "the route has not changed");
        routes.failed(now);
        assert_eq!(routes.first, Route::Translated);
        routes.failed(now);
        assert_eq!(routes.first, Route::Untranslated);
    }

    #[test]
    fn translation_is_tried_if_the_api_server_stays_away() {
        let (mut routes, now) = (ConnectionRoutes::new(), Instant::now());
        assert_eq!(routes.to_try(now), [Route::Untranslated, Route::Translated], "at first");
        routes.answered();
        routes.mark_failure(now);
        routes.failed(now + UNTRANSLATED_ONLY / 2);
        assert_eq!(routes.to_try(now + UNTRANSLATED_ONLY / 2), [Route::Untranslated]);
        assert_eq!(routes.to_try(now + UNTRANSLATED_ONLY).len(), 2, "since the first failure");
        routes.answered();
        assert_eq!(routes.to_try(now + UNTRANSLATED_ONLY), [Route::Untranslated], "the API server responds again");
        routes.connected = Route::Translated;
        routes.answered();
        assert_eq!(routes.to_try(now), [Route::Translated, Route::Untranslated], "the translated route had a response");
    }
}
