//! The element types of safetensors, with the names and widths of the reference (crate
//! `safetensors`, `Dtype`).

use core::fmt;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

macro_rules! dtypes {
    ($($(#[$doc:meta])* $name:ident = $bits:literal, $align:literal;)*) => {
        /// The element type of a tensor.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[allow(non_camel_case_types, reason = "the format's own names")]
        pub enum DType {
            $($(#[$doc])* $name,)*
        }

        impl DType {
            /// All types, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the name in files.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Returns the width of an element in bits. Types of 4 and 6 bits are packed.
            #[must_use]
            pub const fn bits(self) -> u64 {
                match self { $(Self::$name => $bits,)* }
            }

            /// Returns the smallest number of bytes that holds whole elements: 3 for 6 bits, which
            /// is four elements.
            #[must_use]
            pub const fn whole_bytes(self) -> u64 {
                match self.bits() {
                    4 => 1,
                    6 => 3,
                    bits => bits / 8,
                }
            }

            /// Returns the alignment of a typed view in bytes.
            #[must_use]
            pub const fn alignment(self) -> u64 {
                match self { $(Self::$name => $align,)* }
            }

            /// Returns the type with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $(stringify!($name) => Some(Self::$name),)* _ => None }
            }
        }
    };
}

dtypes! {
    /// A boolean in one byte.
    BOOL = 8, 1;
    /// MXFP4, OCP Microscaling Formats 1.0.
    F4 = 4, 1;
    /// MXFP6 (E2M3), OCP Microscaling Formats 1.0.
    F6_E2M3 = 6, 1;
    /// MXFP6 (E3M2), OCP Microscaling Formats 1.0.
    F6_E3M2 = 6, 1;
    /// An unsigned byte.
    U8 = 8, 1;
    /// A signed byte.
    I8 = 8, 1;
    /// FP8 (E5M2), arXiv:2209.05433.
    F8_E5M2 = 8, 1;
    /// FP8 (E4M3), arXiv:2209.05433.
    F8_E4M3 = 8, 1;
    /// The scale type of OCP Microscaling Formats 1.0.
    F8_E8M0 = 8, 1;
    /// FP8 (E4M3FNUZ), arXiv:2206.02915.
    F8_E4M3FNUZ = 8, 1;
    /// FP8 (E5M2FNUZ), arXiv:2206.02915.
    F8_E5M2FNUZ = 8, 1;
    /// A signed 16-bit integer.
    I16 = 16, 2;
    /// An unsigned 16-bit integer.
    U16 = 16, 2;
    /// IEEE 754 half precision.
    F16 = 16, 2;
    /// Brain floating point.
    BF16 = 16, 2;
    /// A signed 32-bit integer.
    I32 = 32, 4;
    /// An unsigned 32-bit integer.
    U32 = 32, 4;
    /// IEEE 754 single precision.
    F32 = 32, 4;
    /// Two single-precision numbers, aligned as one, like the C++ complex types of array libraries.
    C64 = 64, 8;
    /// IEEE 754 double precision.
    F64 = 64, 8;
    /// A signed 64-bit integer.
    I64 = 64, 8;
    /// An unsigned 64-bit integer.
    U64 = 64, 8;
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl<'de> Deserialize<'de> for DType {
    /// Accepts what the reference accepts: `"F32"`, and serde's form of a unit variant, `{"F32":
    /// null}`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DTypeVisitor)
    }
}

struct DTypeVisitor;

impl<'de> Visitor<'de> for DTypeVisitor {
    type Value = DType;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a dtype such as \"BF16\"")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<DType, E> {
        DType::from_name(name).ok_or_else(|| {
            E::custom(format_args!(
                "unknown dtype \"{}\", expected one of {} (update floodtide if the dtype is a newer one, else save the tensor as one of these)",
                crate::escape::Quoted(name),
                Names
            ))
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DType, A::Error> {
        let Some((dtype, ())) = map.next_entry::<DType, ()>()? else {
            return Err(A::Error::custom("expected a dtype, found an empty object"));
        };
        match map.next_key::<DType>()? {
            None => Ok(dtype),
            Some(_) => Err(A::Error::custom("expected one dtype, found an object with several keys")),
        }
    }
}

struct Names;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, dtype) in DType::ALL.iter().enumerate() {
            write!(f, "{}{dtype}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_widths_are_those_of_the_reference() {
        for &dtype in DType::ALL {
            let reference: safetensors::Dtype =
                serde_json::from_value(serde_json::Value::from(dtype.name())).expect("a dtype of the reference");
            assert_eq!(dtype.bits(), reference.bitsize() as u64, "{dtype}");
            assert_eq!(DType::from_name(dtype.name()), Some(dtype));
        }
    }

    #[test]
    fn the_object_form_of_a_unit_variant_is_read_as_the_reference_reads_it() {
        for good in [r#""F32""#, r#"{"F32":null}"#] {
            assert_eq!(serde_json::from_str::<DType>(good).expect(good), DType::F32);
        }
        for bad in [
            r#"{"F32":1}"#,
            r#"{"F32":{}}"#,
            r#"{"F32":[]}"#,
            r#"{}"#,
            r#"{"F32":null,"F16":null}"#,
            "3",
            "null",
            r#""f32""#,
        ] {
            assert!(serde_json::from_str::<DType>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_line_up_in_a_table() {
        assert_eq!(alloc::format!("{:>5}|{:<5}|", DType::U8, DType::BF16), "   U8|BF16 |");
    }

    #[test]
    fn what_is_no_dtype_is_told_what_one_is() {
        let message = |json| alloc::format!("{}", serde_json::from_str::<DType>(json).expect_err(json));
        assert!(message(r#""F33""#).contains("unknown dtype \"F33\", expected one of BOOL, F4, F6_E2M3"));
        assert!(message(r#""F33""#).contains("update floodtide"), "what to do");
        assert!(message("[]").contains("expected a dtype such as \"BF16\""));
        assert!(message("{}").contains("an empty object"));
        assert!(message(r#"{"F32":null,"F16":null}"#).contains("several keys"));
    }
}
