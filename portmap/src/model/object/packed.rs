//! A compact encoding of objects: a cluster has tens of thousands of objects, and the agent keeps all of them.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

/// An object in the postcard encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed<T> {
    bytes: Box<[u8]>,
    object: PhantomData<fn() -> T>,
}

#[expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "never panics: all lists have a known length, as postcard requires, and only `new` creates the bytes"
)]
impl<T: Serialize + DeserializeOwned> Packed<T> {
    /// Encodes an object into an allocation of exactly its size.
    pub fn new(object: &T) -> Self {
        let bytes = postcard::to_stdvec(object).expect("every object can be packed");
        Self { bytes: bytes.into(), object: PhantomData }
    }

    /// Decodes a new copy of the object.
    pub fn unpack(&self) -> T {
        postcard::from_bytes(&self.bytes).expect("bytes of `new` can be unpacked")
    }
}
