//! Errors as one line of text.

use std::error::Error;

use kube::core::Status;

/// The texts of an error and its causes, joined by colons. A cause is skipped if the text already includes its text: many
/// libraries repeat the text of the cause.
///
/// An answer of the API server is shown by its message. The text of [`kube::Error`] has all its fields, too.
pub fn of_error(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let whole = cause.to_string();
        let answer = answer(cause);
        let short = answer.map_or_else(|| whole.clone(), of_answer);
        if text.contains(&whole) {
            text = text.replace(&whole, &short);
        } else if text.is_empty() {
            text = short;
        } else {
            text = format!("{text}: {short}");
        }
        next = cause.source().filter(|_| answer.is_none());
    }
    text
}

/// The answer of the API server that this error is about; `None` for other errors.
fn answer<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Status> {
    if let kube::Error::Api(status) = error.downcast_ref()? { Some(status) } else { None }
}

/// The message of an answer, or its reason if it has none, with its HTTP status code.
fn of_answer(status: &Status) -> String {
    let Status { message, reason, code, .. } = status;
    match [message, reason].into_iter().find(|text| !text.is_empty()) {
        Some(text) => format!("{text} (HTTP status {code})"),
        None => format!("HTTP status {code}"),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use kube::runtime::watcher;

    use super::*;

    fn api_error(message: &str, reason: &str) -> kube::Error {
        let status = Status { code: 401, message: message.to_owned(), reason: reason.to_owned(), ..Status::default() };
        kube::Error::Api(Box::new(status))
    }

    #[test]
    fn causes_are_named_once() {
        let error = anyhow::Error::msg("no such file").context("no such file: a.yaml").context("failed to read");
        assert_eq!(of_error(error.as_ref()), "failed to read: no such file: a.yaml");
    }

    #[test]
    fn answers_of_the_api_server_are_short() {
        let list = |error: kube::Error| of_error(Err::<(), _>(error).context("failed to list Nodes").unwrap_err().as_ref());
        assert_eq!(list(api_error("no token", "Unauthorized")), "failed to list Nodes: no token (HTTP status 401)");
        assert_eq!(list(api_error("", "Unauthorized")), "failed to list Nodes: Unauthorized (HTTP status 401)");
        assert_eq!(list(api_error("", "")), "failed to list Nodes: HTTP status 401");
        let watch = of_error(&watcher::Error::WatchStartFailed(api_error("no token", "Unauthorized")));
        assert_eq!(watch, "failed to start watching object: no token (HTTP status 401)");
    }
}
