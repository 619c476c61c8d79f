//! Work on all processors.

use std::{num::NonZero, panic, sync::mpsc, thread};

/// The least number of items for which a thread is worth its start.
const FEWEST: usize = 256;

/// The number of groups of [`FEWEST`] items that [`ahead`] may compute before they are used.
const AHEAD: usize = 4;

/// Applies `work` to parts of the items, one part for each processor. Returns the results in the order of the items.
///
/// # Panics
///
/// `work` panics.
pub fn in_parts<T: Sync, R: Send>(items: &[T], work: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let mut parts = items.chunks(items.len().div_ceil(processors).max(FEWEST));
    let own = parts.next().unwrap_or_default();
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        let mut results = vec![work(own)];
        results.extend(threads.into_iter().map(|thread| thread.join().unwrap_or_else(|error| panic::resume_unwind(error))));
        results
    })
}

/// Calls `work` with the items of an iterator that another thread runs ahead of it.
///
/// # Panics
///
/// The iterator or `work` panics.
pub fn ahead<T: Send, R>(items: impl Iterator<Item = T> + Send, work: impl FnOnce(&mut dyn Iterator<Item = T>) -> R) -> R {
    thread::scope(|scope| {
        let (sender, groups) = mpsc::sync_channel::<Vec<T>>(AHEAD);
        scope.spawn(move || {
            let mut items = items.peekable();
            // Fails if `work` has returned before the last item.
            while items.peek().is_some() && sender.send(items.by_ref().take(FEWEST).collect()).is_ok() {}
        });
        work(&mut groups.into_iter().flatten())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        for count in [0, 1, FEWEST, FEWEST + 1, 100 * FEWEST] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(in_parts(&items, <[usize]>::to_vec).concat(), items);
        }
    }

    #[test]
    fn items_that_are_computed_ahead_keep_their_order() {
        for count in [0, 1, FEWEST, 10 * AHEAD * FEWEST + 1] {
            assert!(ahead(0..count, |items| items.eq(0..count)), "{count}");
            assert_eq!(ahead(0..count, |items| items.next()), (count > 0).then_some(0), "the rest is not used");
        }
    }
}
