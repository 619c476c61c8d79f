//! Names that many objects have in common (of namespaces, Services, ports and nodes), each held once.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

/// Fewer names are not worth looking through.
const FEW: usize = 1024;

static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Names {
    held: HashSet<Arc<str>, foldhash::fast::RandomState>,
    /// With as many, those that nobody has any more are let go.
    limit: usize,
}

/// A name, without a copy of its own if somebody has the same.
pub fn shared(name: &str) -> Arc<str> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner).get(name)
}

impl Names {
    fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(held) = self.held.get(name) {
            return held.clone();
        }
        if self.held.len() >= self.limit {
            self.held.retain(|name| Arc::strong_count(name) > 1);
            self.limit = (2 * self.held.len()).max(FEW);
        }
        let new: Arc<str> = name.into();
        self.held.insert(new.clone());
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_held_once_and_let_go() {
        let mut names = Names::default();
        let name = names.get("default");
        assert!(Arc::ptr_eq(&name, &names.get("default")));
        for number in 0..10 * FEW {
            drop(names.get(&number.to_string()));
        }
        assert!(names.held.len() <= 2 * FEW, "{} names are held", names.held.len());
        assert!(Arc::ptr_eq(&name, &names.get("default")), "a name in use was let go");
    }
}
