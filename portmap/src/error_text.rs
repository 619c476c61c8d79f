//! Errors as one line.

use std::error::Error;

/// An error with everything that caused it and is not part of its text already, as libraries often have it.
pub fn of_error(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
