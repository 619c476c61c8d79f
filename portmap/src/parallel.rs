//! Work on all processors.

use std::{num::NonZero, panic, thread};

/// The least number of items for which a thread is worth its start.
const FEWEST: usize = 256;

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
}
