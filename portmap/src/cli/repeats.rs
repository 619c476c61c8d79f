//! The limit of repeated log lines: an equal warning or error is written once per [`PERIOD`], with the number of repeats.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// The time in which an equal text is written once.
const PERIOD: Duration = Duration::from_secs(5);

/// The number of remembered texts from which on texts older than [`PERIOD`] are forgotten.
const MANY: usize = 1024;

/// The target of records that libraries write with the `log` crate. Their repeats are not left out.
const LOG_CRATE: &str = "log";

/// A format of log lines that leaves out repeated warnings and errors, and counts them.
pub struct Limited<F> {
    format: F,
    texts: Mutex<Texts>,
}

/// The texts that were written, each with the time of writing and the number of repeats since.
#[derive(Default)]
struct Texts(HashMap<String, (Instant, u64)>);

impl<F> Limited<F> {
    pub fn new(format: F) -> Self {
        Self { format, texts: Mutex::default() }
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN || metadata.target() == LOG_CRATE {
            return self.format.format_event(context, writer, event);
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let held_back = self.texts.lock().unwrap_or_else(PoisonError::into_inner).admit(text.0, Instant::now());
        match held_back {
            None => Ok(()),
            Some(0) => self.format.format_event(context, writer, event),
            Some(count) => {
                self.format.format_event(context, writer.by_ref(), event)?;
                writeln!(writer, "  (repeated {count} times since the last line)")
            }
        }
    }
}

impl Texts {
    /// The number of repeats that were left out, if the text is to be written now; none if it is left out, too.
    fn admit(&mut self, text: String, now: Instant) -> Option<u64> {
        let is_recent = |written: Instant| now.duration_since(written) < PERIOD;
        if self.0.len() >= MANY {
            self.0.retain(|_, (written, _)| is_recent(*written));
        }
        if let Some((written, held_back)) = self.0.get_mut(&text) {
            if is_recent(*written) {
                *held_back += 1;
                return None;
            }
            *written = now;
            return Some(std::mem::take(held_back));
        }
        self.0.insert(text, (now, 0));
        Some(0)
    }
}

/// All fields of an event as one text, by which repeats are recognized.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write as _;
        // Writing to a string does not fail.
        write!(self.0, "{}={value:?} ", field.name()).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_written_once_in_a_period_with_a_count() {
        let start = Instant::now();
        let mut texts = Texts::default();
        let mut admit = |text: &str, at: Duration| texts.admit(text.to_owned(), start + at);
        assert_eq!(admit("a", Duration::ZERO), Some(0));
        assert_eq!(admit("b", Duration::ZERO), Some(0));
        for number in 1..=70 {
            assert_eq!(admit("a", Duration::from_millis(number)), None);
        }
        assert_eq!(admit("a", PERIOD), Some(70));
        assert_eq!(admit("a", PERIOD), None);
        assert_eq!(admit("b", PERIOD), Some(0));
    }

    #[test]
    fn texts_that_differ_do_not_fill_the_memory() {
        let start = Instant::now();
        let mut texts = Texts::default();
        for number in 0..10 * u32::try_from(MANY).expect("a small number") {
            texts.admit(number.to_string(), start + number * Duration::from_millis(10));
        }
        assert!(texts.0.len() <= MANY + 500, "{} are kept", texts.0.len());
    }
}
