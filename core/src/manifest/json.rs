//! Parses the JSON of a manifest.
//!
//! `schema` and `version` are checked first. A manifest of a later version may have unknown fields,
//! and must be distinguished from a damaged one. Then every field must occur exactly once, and no
//! other.

use super::{Manifest, ManifestError, ManifestFile, ManifestTensor, SCHEMA, VERSION};
use crate::element::ElementType;
use crate::escape::without_middle;
use crate::format::Text;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

/// The fields of an object. The derived code alone would also accept an array of the values without
/// names.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    schema: Text<'a>,
    version: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest<'a> {
    #[serde(rename = "schema")]
    _schema: IgnoredAny,
    #[serde(rename = "version")]
    _version: IgnoredAny,
    #[serde(borrow)]
    files: Vec<Object<RawFile<'a>>>,
    #[serde(borrow)]
    tensors: Vec<Object<RawTensor<'a>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    bytes: u64,
    #[serde(borrow)]
    sha256: Text<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    dtype: Text<'a>,
    shape: Vec<u64>,
    bytes: u64,
    #[serde(borrow)]
    blake3: Text<'a>,
}

pub(super) fn parse(json: &[u8]) -> Result<Manifest, ManifestError> {
    let not_json = |error: serde_json::Error| ManifestError::Json { message: without_middle(error.to_string()) };
    let Object(Head { schema: Text(schema), version }) = serde_json::from_slice(json).map_err(not_json)?;
    if schema != SCHEMA {
        return Err(ManifestError::Schema { found: schema.into_owned() });
    }
    if version != VERSION {
        return Err(ManifestError::Version { found: version });
    }
    let Object(RawManifest { files, tensors, .. }) = serde_json::from_slice(json).map_err(not_json)?;
    let files = files.into_iter().map(|Object(raw)| file(raw)).collect::<Result<_, _>>()?;
    let tensors = tensors.into_iter().map(|Object(raw)| tensor(raw)).collect::<Result<_, _>>()?;
    Manifest::new(tensors, files)
}

fn file(raw: RawFile<'_>) -> Result<ManifestFile, ManifestError> {
    let RawFile { name: Text(name), bytes, sha256: Text(sha256) } = raw;
    let name = name.into_owned();
    match sha256.parse() {
        Ok(sha256) => Ok(ManifestFile { name, bytes, sha256 }),
        Err(_) => Err(ManifestError::NotHex { name, field: "sha256", found: sha256.into_owned() }),
    }
}

fn tensor(raw: RawTensor<'_>) -> Result<ManifestTensor, ManifestError> {
    let RawTensor { name: Text(name), dtype: Text(dtype), shape, bytes, blake3: Text(blake3) } = raw;
    let name = name.into_owned();
    let Some(dtype) = ElementType::from_name(&dtype) else {
        return Err(ManifestError::DType { name, found: dtype.into_owned() });
    };
    match blake3.parse() {
        Ok(blake3) => Ok(ManifestTensor { name, dtype, shape, bytes, blake3 }),
        Err(_) => Err(ManifestError::NotHex { name, field: "blake3", found: blake3.into_owned() }),
    }
}
