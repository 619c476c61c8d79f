//! Interned names of ports: many objects have the same port names, and each name is stored once.

use std::{
    collections::HashSet,
    sync::{LazyLock, Mutex, PoisonError},
};

use arcstr::ArcStr;
use serde::{Deserialize, Deserializer};

/// Minimum of `limit`: with fewer names a search for unused ones is not worth its time.
const FEW: usize = 1024;

static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Names {
    held: HashSet<ArcStr, foldhash::fast::RandomState>,
    /// At this number of names, the unused ones are removed.
    limit: usize,
}

/// The interned copy of a name.
pub fn shared(name: &str) -> ArcStr {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner).get(name)
}

/// Deserializes a name into its interned copy.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ArcStr, D::Error> {
    <&str>::deserialize(deserializer).map(shared)
}

impl Names {
    fn get(&mut self, name: &str) -> ArcStr {
        if let Some(held) = self.held.get(name) {
            return held.clone();
        }
        if self.held.len() >= self.limit {
            self.held.retain(|name| ArcStr::strong_count(name) != Some(1));
            self.limit = (2 * self.held.len()).max(FEW);
        }
        let new = ArcStr::from(name);
        self.held.insert(new.clone());
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_stored_once_and_removed_if_unused() {
        let mut names = Names::default();
        let name = names.get("default");
        assert!(ArcStr::ptr_eq(&name, &names.get("default")));
        for number in 0..10 * FEW {
            drop(names.get(&number.to_string()));
        }
        assert!(names.held.len() <= 2 * FEW, "{} names are held", names.held.len());
        assert!(ArcStr::ptr_eq(&name, &names.get("default")), "a used name was removed");
    }
}
