//! Values of NAMES, and texts in the maps.

use anyhow::{Context, Result, ensure};
use portmap_common::{Name, TEXT};

use super::{protocol_number, protocol_of};
use crate::model::{ObjectName, ServicePort};

/// Encodes a service port as a value of NAMES. Fails if a name has more than 63 bytes or a 0 byte; the API server accepts no
/// such name.
pub fn name(owner: &ServicePort) -> Result<Name> {
    let ServicePort { service, port, protocol } = owner;
    Ok(Name {
        namespace: text(service.namespace())?,
        service: text(service.name())?,
        port: text(port)?,
        protocol: protocol_number(*protocol),
        unused: [0; 7],
    })
}

/// Decodes a value of NAMES; `None` if a text has no end or is not UTF-8, or if the protocol is neither TCP nor UDP.
pub fn owner_of(name: &Name) -> Option<ServicePort> {
    let service = ObjectName::new(text_of(&name.namespace)?, text_of(&name.service)?);
    Some(ServicePort { service, port: text_of(&name.port)?.into(), protocol: protocol_of(name.protocol)? })
}

/// Encodes a text with a 0 byte at its end. Fails if the text does not fit, or contains a 0 byte itself.
pub fn text(text: &str) -> Result<[u8; TEXT]> {
    ensure!(text.len() < TEXT, "the name {text:?} has more than {} bytes", TEXT - 1);
    ensure!(!text.contains('\0'), "the name {text:?} contains a 0 byte");
    let mut bytes = [0; TEXT];
    bytes.get_mut(..text.len()).context("the name does not fit")?.copy_from_slice(text.as_bytes());
    Ok(bytes)
}

/// Decodes the text before the first 0 byte; `None` if there is no 0 byte, or if the text is not UTF-8.
pub fn text_of(bytes: &[u8; TEXT]) -> Option<&str> {
    let length = bytes.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(bytes.get(..length)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    #[test]
    fn a_name_reads_back() {
        let service = ObjectName::new("default", "web");
        let owner = ServicePort { service, port: "http".into(), protocol: Protocol::Udp };
        assert_eq!(name(&owner).ok().and_then(|name| owner_of(&name)), Some(owner));
    }

    #[test]
    fn foreign_bytes_are_no_name() {
        assert_eq!(text_of(&[b'x'; TEXT]), None);
        assert_eq!(text_of(&[0xff; TEXT]), None);
        assert!(text(&"x".repeat(TEXT)).is_err());
    }
}
