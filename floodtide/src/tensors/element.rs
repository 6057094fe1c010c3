//! Views of a tensor's bytes as elements of a Rust type.

use bytemuck::AnyBitPattern;
use floodtide_core::{DType, ElementType, GgmlType};
use thiserror::Error;

/// Returns the bytes of a dtype as elements.
pub(super) fn view<T: Element>(bytes: &[u8], dtype: ElementType) -> Result<&[T], ViewError> {
    let requested = std::any::type_name::<T>();
    let plain = match dtype {
        ElementType::Plain(dtype) => dtype,
        ElementType::Ggml(ggml) => ggml.plain().ok_or(ViewError::Quantised { dtype: ggml, requested })?,
    };
    if !T::DTYPES.contains(&plain) || cfg!(target_endian = "big") {
        return Err(ViewError::WrongType { dtype, requested });
    }
    if bytes.is_empty() {
        return Ok(&[]);
    }
    // The length is a whole number of elements: the parser checks it.
    bytemuck::try_cast_slice(bytes).map_err(|_| ViewError::Misaligned { dtype, requested, alignment: align_of::<T>() })
}

/// Why a tensor cannot be viewed as elements.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum ViewError {
    /// The dtype does not match.
    #[error(
        "a tensor of dtype {dtype} cannot be viewed as {requested}; use its bytes, or the type that fits its dtype"
    )]
    WrongType { dtype: ElementType, requested: &'static str },
    /// The tensor has blocks, not elements.
    #[error(
        "a tensor of ggml type {dtype} cannot be viewed as {requested}: it is quantised, {} elements to a block of {} bytes; \
         use its bytes and decode the blocks",
        dtype.block_elements(), dtype.block_bytes()
    )]
    Quantised { dtype: GgmlType, requested: &'static str },
    /// The dtype matches, but the address is not aligned.
    #[error(
        "a tensor of dtype {dtype} cannot be viewed as {requested}: its memory is not at a multiple of {alignment} bytes; \
         use its bytes, or check the MemoryProvider: the usual cause is one that violates the alignment that it states"
    )]
    Misaligned { dtype: ElementType, requested: &'static str, alignment: usize },
}

/// A Rust type that tensors of some dtypes can be viewed as.
pub trait Element: AnyBitPattern + private::Sealed {
    /// The dtypes.
    const DTYPES: &'static [DType];
}

mod private {
    #[expect(unnameable_types, reason = "seals `Element`")]
    pub trait Sealed {}
}

macro_rules! elements {
    ($($rust:ty: $($dtype:ident)|*;)*) => {
        $(impl private::Sealed for $rust {}
        impl Element for $rust {
            const DTYPES: &'static [DType] = &[$(DType::$dtype),*];
        })*
    };
}

elements! {
    u8: U8 | BOOL | F8_E5M2 | F8_E4M3 | F8_E8M0 | F8_E4M3FNUZ | F8_E5M2FNUZ;
    i8: I8;
    u16: U16 | F16 | BF16;
    i16: I16;
    u32: U32;
    i32: I32;
    f32: F32;
    u64: U64;
    i64: I64;
    f64: F64;
    [f32; 2]: C64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_at_an_odd_address_says_why() {
        let bytes = [0_u64; 2];
        let odd = &bytemuck::bytes_of(&bytes)[1..5];
        let misaligned = view::<f32>(odd, DType::F32.into()).expect_err("is at an odd address").to_string();
        assert!(misaligned.contains("multiple of 4") && misaligned.contains("MemoryProvider"), "{misaligned}");
        assert!(!misaligned.contains("the type that fits"), "{misaligned}");
    }

    #[test]
    fn blocks_are_no_elements_and_plain_ggml_types_are() {
        let bytes = [0_u64; 4];
        let bytes: &[u8] = bytemuck::bytes_of(&bytes);
        let quantised = view::<u16>(&bytes[..18], GgmlType::Q4_0.into()).expect_err("has blocks").to_string();
        assert!(quantised.contains("Q4_0") && quantised.contains("32 elements to a block of 18 bytes"), "{quantised}");
        assert_eq!(view::<f32>(bytes, GgmlType::F32.into()), Ok(&[0.0; 8][..]));
        assert_eq!(view::<u16>(bytes, GgmlType::BF16.into()), Ok(&[0; 16][..]));
        assert!(matches!(view::<u8>(bytes, GgmlType::F32.into()), Err(ViewError::WrongType { .. })));
    }
}
