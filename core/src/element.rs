//! Element types: plain dtypes and ggml's types.
//!
//! The two stay separate although some mean the same. Most ggml types are blocks of quantised
//! elements, which code must not read as numbers by mistake. So a tensor of a GGUF file always has
//! type [`ElementType::Ggml`], and [`GgmlType::plain`] converts the few plain ones.

use crate::dtype::DType;
use core::fmt;

/// The element type of a tensor.
///
/// ```
/// use floodtide_core::{DType, ElementType, GgmlType};
///
/// let plain = ElementType::Plain(DType::BF16);
/// assert_eq!((plain.name(), plain.block_bytes()), ("BF16", 2));
/// // 32 elements of 4 bits and a scale of 16.
/// let quantised = ElementType::Ggml(GgmlType::Q4_0);
/// assert_eq!((quantised.block_elements(), quantised.block_bytes()), (32, 18));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementType {
    /// Plain elements. Those of 4 and 6 bits are packed.
    Plain(DType),
    /// A ggml type: blocks of elements with shared values such as a scale.
    Ggml(GgmlType),
}

impl ElementType {
    /// Returns the plain dtype, or `None` for every ggml type, even one with a [plain
    /// counterpart](GgmlType::plain).
    #[must_use]
    pub const fn plain(self) -> Option<DType> {
        match self {
            Self::Plain(dtype) => Some(dtype),
            Self::Ggml(_) => None,
        }
    }

    /// Returns the ggml type, if it is one.
    #[must_use]
    pub const fn ggml(self) -> Option<GgmlType> {
        match self {
            Self::Plain(_) => None,
            Self::Ggml(ggml) => Some(ggml),
        }
    }

    /// Returns true if equal bytes mean equal elements: equal types, or a ggml type and its [plain
    /// counterpart](GgmlType::plain).
    #[must_use]
    pub fn means_same(self, other: Self) -> bool {
        let dtype = |element: Self| match element {
            Self::Plain(dtype) => Some(dtype),
            Self::Ggml(ggml) => ggml.plain(),
        };
        self == other || (dtype(self).is_some() && dtype(self) == dtype(other))
    }

    /// Returns the unique name: `BF16`, or with a prefix for ggml types, `GGML_Q4_K`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain(dtype) => dtype.name(),
            Self::Ggml(ggml) => ggml.full_name(),
        }
    }

    /// Returns the type with this [name](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match DType::from_name(name) {
            Some(dtype) => Some(Self::Plain(dtype)),
            None => GgmlType::ALL.iter().find(|ggml| ggml.full_name() == name).map(|&ggml| Self::Ggml(ggml)),
        }
    }

    /// Returns the number of elements per block.
    ///
    /// A block is the smallest unit of whole bytes: one element, two or four packed ones, or a
    /// block of ggml.
    #[must_use]
    pub const fn block_elements(self) -> u64 {
        match self {
            // 4 bits: two elements are one byte. 6 bits: four elements are three bytes.
            Self::Plain(dtype) => dtype.whole_bytes() * 8 / dtype.bits(),
            Self::Ggml(ggml) => ggml.block_elements(),
        }
    }

    /// Returns the length of a block in bytes.
    #[must_use]
    pub const fn block_bytes(self) -> u64 {
        match self {
            Self::Plain(dtype) => dtype.whole_bytes(),
            Self::Ggml(ggml) => ggml.block_bytes(),
        }
    }

    /// Returns the alignment of a typed view in bytes. It divides
    /// [`block_bytes`](Self::block_bytes).
    #[must_use]
    pub const fn alignment(self) -> u64 {
        match self {
            Self::Plain(dtype) => dtype.alignment(),
            Self::Ggml(ggml) => ggml.alignment(),
        }
    }

    /// Returns the length of `elements` in bytes, or `None` if they are not whole blocks or on
    /// overflow.
    #[must_use]
    pub const fn bytes_of(self, elements: u128) -> Option<u128> {
        let block = self.block_elements() as u128;
        if !elements.is_multiple_of(block) {
            return None;
        }
        (elements / block).checked_mul(self.block_bytes() as u128)
    }
}

impl From<DType> for ElementType {
    fn from(dtype: DType) -> Self {
        Self::Plain(dtype)
    }
}

impl From<GgmlType> for ElementType {
    fn from(ggml: GgmlType) -> Self {
        Self::Ggml(ggml)
    }
}

impl PartialEq<DType> for ElementType {
    /// Always false for a ggml type.
    fn eq(&self, dtype: &DType) -> bool {
        self.plain() == Some(*dtype)
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

macro_rules! ggml_types {
    ($($name:ident $id:literal: $elements:literal, $bytes:literal, $plain:expr;)*) => {
        /// A type of ggml. Ids and sizes are from `ggml.h`, `enum ggml_type`, and the block
        /// structures in `ggml-common.h`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[allow(non_camel_case_types, missing_docs, reason = "ggml's own names")]
        pub enum GgmlType {
            $($name,)*
        }

        impl GgmlType {
            /// All types, by id.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the type with this id, or `None` if it is unknown or removed.
            #[must_use]
            pub const fn from_id(id: i32) -> Option<Self> {
                match id { $($id => Some(Self::$name),)* _ => None }
            }

            /// Returns the id in files.
            #[must_use]
            pub const fn id(self) -> i32 {
                match self { $(Self::$name => $id,)* }
            }

            /// Returns ggml's name: `Q4_K`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            const fn full_name(self) -> &'static str {
                match self { $(Self::$name => concat!("GGML_", stringify!($name)),)* }
            }

            /// Returns the number of elements per block.
            #[must_use]
            pub const fn block_elements(self) -> u64 {
                match self { $(Self::$name => $elements,)* }
            }

            /// Returns the length of a block in bytes.
            #[must_use]
            pub const fn block_bytes(self) -> u64 {
                match self { $(Self::$name => $bytes,)* }
            }

            /// Returns the equivalent plain dtype, or `None` for quantised types.
            #[must_use]
            pub const fn plain(self) -> Option<DType> {
                match self { $(Self::$name => $plain,)* }
            }
        }
    };
}

ggml_types! {
    F32 0: 1, 4, Some(DType::F32);
    F16 1: 1, 2, Some(DType::F16);
    Q4_0 2: 32, 18, None;
    Q4_1 3: 32, 20, None;
    Q5_0 6: 32, 22, None;
    Q5_1 7: 32, 24, None;
    Q8_0 8: 32, 34, None;
    Q8_1 9: 32, 36, None;
    Q2_K 10: 256, 84, None;
    Q3_K 11: 256, 110, None;
    Q4_K 12: 256, 144, None;
    Q5_K 13: 256, 176, None;
    Q6_K 14: 256, 210, None;
    Q8_K 15: 256, 292, None;
    IQ2_XXS 16: 256, 66, None;
    IQ2_XS 17: 256, 74, None;
    IQ3_XXS 18: 256, 98, None;
    IQ1_S 19: 256, 50, None;
    IQ4_NL 20: 32, 18, None;
    IQ3_S 21: 256, 110, None;
    IQ2_S 22: 256, 82, None;
    IQ4_XS 23: 256, 136, None;
    I8 24: 1, 1, Some(DType::I8);
    I16 25: 1, 2, Some(DType::I16);
    I32 26: 1, 4, Some(DType::I32);
    I64 27: 1, 8, Some(DType::I64);
    F64 28: 1, 8, Some(DType::F64);
    IQ1_M 29: 256, 56, None;
    BF16 30: 1, 2, Some(DType::BF16);
    TQ1_0 34: 256, 54, None;
    TQ2_0 35: 256, 66, None;
    MXFP4 39: 32, 17, None;
    NVFP4 40: 64, 36, None;
    Q1_0 41: 128, 18, None;
    Q2_0 42: 64, 18, None;
}

impl GgmlType {
    /// Returns true if ggml has removed the type with this id.
    #[must_use]
    pub const fn is_removed(id: i32) -> bool {
        matches!(id, 4 | 5 | 31..=33 | 36..=38)
    }

    /// Returns the alignment of a view of its blocks in bytes.
    ///
    /// A structure's size is a multiple of its alignment, and no member of a block is longer than 4
    /// bytes. So the alignment is at most the largest power of two up to 4 that divides the size.
    #[must_use]
    pub const fn alignment(self) -> u64 {
        if let Some(dtype) = self.plain() {
            return dtype.alignment();
        }
        match self.block_bytes() % 4 {
            0 => 4,
            2 => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn all() -> impl Iterator<Item = ElementType> {
        let plain = DType::ALL.iter().map(|&dtype| ElementType::Plain(dtype));
        plain.chain(GgmlType::ALL.iter().map(|&ggml| ElementType::Ggml(ggml)))
    }

    #[test]
    fn every_id_is_of_one_type_removed_or_unknown() {
        for id in -1..=1000 {
            match GgmlType::from_id(id) {
                Some(ggml) => assert!(ggml.id() == id && !GgmlType::is_removed(id), "{ggml}"),
                None => assert!(GgmlType::is_removed(id) || !(0..=42).contains(&id), "{id}"),
            }
        }
        assert!(GgmlType::ALL.is_sorted_by_key(|ggml| ggml.id()));
        assert_eq!((GgmlType::ALL.len(), (0..43).filter(|&id| GgmlType::is_removed(id)).count()), (35, 8));
    }

    #[test]
    fn names_are_unique_and_lead_back() {
        for element in all() {
            assert_eq!(ElementType::from_name(element.name()), Some(element));
            assert_eq!(all().filter(|other| other.to_string() == element.to_string()).count(), 1, "{element}");
        }
        assert_eq!(ElementType::from_name("Q4_K"), None, "a ggml type is named as one");
        assert_eq!(
            alloc::format!("{:>10}|{:<6}|", ElementType::Ggml(GgmlType::Q4_K), GgmlType::F32),
            " GGML_Q4_K|F32   |"
        );
    }

    #[test]
    fn a_ggml_type_is_no_plain_one() {
        let (plain, ggml) = (ElementType::from(DType::F32), ElementType::from(GgmlType::F32));
        assert!(plain != ggml && plain == DType::F32 && ggml != DType::F32);
        assert_eq!((plain.plain(), ggml.plain(), ggml.ggml()), (Some(DType::F32), None, Some(GgmlType::F32)));
        for ggml in GgmlType::ALL {
            // A plain counterpart has the same size and name.
            match ggml.plain() {
                Some(dtype) => assert_eq!((dtype.name(), dtype.bits()), (ggml.name(), 8 * ggml.block_bytes())),
                None => assert!(ggml.block_elements() >= 32 && ggml.block_elements().is_power_of_two()),
            }
        }
    }

    #[test]
    fn a_ggml_type_means_the_same_as_its_plain_counterpart_and_nothing_else() {
        for one in all() {
            for other in all() {
                let names = (one.name().trim_start_matches("GGML_"), other.name().trim_start_matches("GGML_"));
                assert_eq!(one.means_same(other), names.0 == names.1, "{one} and {other}");
            }
        }
    }

    #[test]
    fn blocks_are_whole_bytes_and_their_alignment_divides_them() {
        for element in all() {
            let (elements, bytes) = (element.block_elements(), element.block_bytes());
            assert!(bytes.is_multiple_of(element.alignment()) && element.alignment() <= 8, "{element}");
            assert_eq!(element.bytes_of(u128::from(3 * elements)), Some(u128::from(3 * bytes)));
            assert_eq!(element.bytes_of(0), Some(0));
            if elements > 1 {
                assert_eq!(element.bytes_of(u128::from(3 * elements) + 1), None);
            }
            if let Some(dtype) = element.plain() {
                assert_eq!(elements * dtype.bits(), 8 * bytes);
            }
        }
        assert_eq!(ElementType::Plain(DType::F64).bytes_of(u128::MAX), None);
        let size = |ggml: GgmlType| (ggml.block_elements(), ggml.block_bytes(), ggml.alignment());
        assert_eq!(size(GgmlType::Q8_1), (32, 36, 4), "as ggml has it");
        assert_eq!((size(GgmlType::Q4_0), size(GgmlType::MXFP4)), ((32, 18, 2), (32, 17, 1)));
    }
}
