//! Errors as one line of text.

use std::error::Error;

/// The texts of an error and its causes, joined by colons. A cause is skipped if the text already includes its text: many
/// libraries repeat the text of the cause.
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
