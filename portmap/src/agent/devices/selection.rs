//! The devices that the user selects: `--devices` and `--pod-devices`.

use std::{fmt, str::FromStr};

/// The longest name of a device, in bytes (`IFNAMSIZ` without the last byte).
const LONGEST: usize = 15;

/// The options about devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceOptions {
    /// The devices that lead to clients outside the node.
    pub outside: DeviceSelection,
    /// The devices that lead to pods whose sockets are not the node's.
    pub pods: Vec<NamePattern>,
}

/// The selection of devices that lead to clients outside the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceSelection {
    /// The devices with an address of the Node, or with a route to other hosts.
    #[default]
    Automatic,
    /// The devices with these names.
    Named(Vec<NamePattern>),
    /// No device at all, not even one that leads to pods.
    None,
}

/// The name of a device, or the beginning of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// The device with this name.
    Name(String),
    /// The devices whose names begin with this text, written with a `*` after it.
    Beginning(String),
}

impl NamePattern {
    /// Whether a device of this name is selected.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Name(exact) => exact == name,
            Self::Beginning(beginning) => name.starts_with(beginning),
        }
    }
}

impl FromStr for NamePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (beginning, is_beginning) = text.strip_suffix('*').map_or((text, false), |beginning| (beginning, true));
        if beginning.contains('*') {
            return Err("a * may only be the last character".to_owned());
        }
        if beginning.len() > LONGEST || beginning.contains(['/', ':']) || beginning.contains(char::is_whitespace) {
            return Err("no network device can have this name".to_owned());
        }
        match is_beginning {
            true => Ok(Self::Beginning(beginning.to_owned())),
            false if beginning.is_empty() => Err("expected the name of a network device".to_owned()),
            false => Ok(Self::Name(beginning.to_owned())),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Beginning(beginning) => write!(f, "{beginning}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_its_beginning() {
        let pattern = |text: &str| text.parse::<NamePattern>().expect("a pattern");
        for (text, name, matches) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth*", "eth0", true),
            ("eth*", "eth", true),
            ("eth*", "neth0", false),
            ("*", "anything", true),
        ] {
            assert_eq!(pattern(text).matches(name), matches, "{text} {name}");
            assert_eq!(pattern(text).to_string(), text);
        }
        for text in ["", "e*h", "**", "eth 0", "a/b", "eth0:1", "sixteen-letters-"] {
            assert!(text.parse::<NamePattern>().is_err(), "{text}");
        }
    }
}
