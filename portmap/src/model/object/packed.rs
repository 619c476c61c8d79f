//! Objects in few bytes: a cluster has tens of thousands of them, and the agent keeps them all.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

/// An object in postcard's encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed<T> {
    bytes: Box<[u8]>,
    object: PhantomData<fn() -> T>,
}

#[expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "never: lists of known length are all that postcard asks for, and only `new` makes the bytes"
)]
impl<T: Serialize + DeserializeOwned> Packed<T> {
    /// Packs an object.
    pub fn new(object: &T) -> Self {
        let bytes = postcard::to_stdvec(object).expect("every object can be packed");
        Self { bytes: bytes.into(), object: PhantomData }
    }

    /// The object.
    pub fn unpack(&self) -> T {
        postcard::from_bytes(&self.bytes).expect("what was packed can be unpacked")
    }
}
