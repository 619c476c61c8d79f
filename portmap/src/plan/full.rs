//! The reason for which a frontend is left out, and the remedy.

use crate::{
    maps::{Capacity, Room},
    model::Family,
};

/// The reason for which a frontend is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Full {
    /// SERVICES has no free entry.
    Services,
    /// BACKENDS of this family has no free range with this number of slots.
    Backends(Family, u32),
    /// Too few ids or endpoint numbers are left, according to NUMBERS or to the numbers in use.
    Numbers,
}

impl Full {
    /// The option that gives more room; `None` if none does.
    pub fn room(self) -> Option<Room> {
        match self {
            Self::Services => Some(Room::Services),
            Self::Backends(..) => Some(Room::Backends),
            Self::Numbers => None,
        }
    }

    /// A text that names the full map, or NUMBERS, and the remedy.
    pub fn advice(self, capacity: Capacity) -> String {
        match self {
            Self::Services => {
                format!("SERVICES is full with {} entries; restart with a larger --max-services", capacity.services)
            }
            Self::Backends(family, count) => format!(
                "BACKENDS_{family:?} has no {count} consecutive free slots among its {} slots; restart with a larger --max-backends",
                capacity.backends
            ),
            Self::Numbers => {
                "according to NUMBERS all numbers were used, so another program wrote to it; stop the agent, run portmap cleanup, \
                 and start the agent again"
                    .to_owned()
            }
        }
    }
}
