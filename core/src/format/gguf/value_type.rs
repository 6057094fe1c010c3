//! The types of metadata values.

use core::fmt;

macro_rules! value_types {
    ($($(#[$doc:meta])* $name:ident $id:literal: $text:literal, $bytes:expr;)*) => {
        /// The type of a metadata value or of an array's elements.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ValueType {
            $($(#[$doc])* $name,)*
        }

        impl ValueType {
            /// All types, by id.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the type with this id.
            #[must_use]
            pub const fn from_id(id: i32) -> Option<Self> {
                match id { $($id => Some(Self::$name),)* _ => None }
            }

            /// Returns the id in files.
            #[must_use]
            pub const fn id(self) -> i32 {
                match self { $(Self::$name => $id,)* }
            }

            /// Returns the name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Returns the size of a value in bytes, or `None` for strings and arrays, which state
            /// it themselves.
            #[must_use]
            pub const fn size(self) -> Option<u64> {
                match self { $(Self::$name => $bytes,)* }
            }
        }
    };
}

value_types! {
    /// An unsigned byte.
    U8 0: "u8", Some(1);
    /// A signed byte.
    I8 1: "i8", Some(1);
    /// 16 bits, unsigned.
    U16 2: "u16", Some(2);
    /// 16 bits, signed.
    I16 3: "i16", Some(2);
    /// 32 bits, unsigned.
    U32 4: "u32", Some(4);
    /// 32 bits, signed.
    I32 5: "i32", Some(4);
    /// IEEE 754 single precision.
    F32 6: "f32", Some(4);
    /// A byte: false if 0.
    Bool 7: "bool", Some(1);
    /// A 64-bit length, then the bytes.
    String 8: "string", None;
    /// The element type, the number of elements, then the elements.
    Array 9: "array", None;
    /// 64 bits, unsigned.
    U64 10: "u64", Some(8);
    /// 64 bits, signed.
    I64 11: "i64", Some(8);
    /// IEEE 754 double precision.
    F64 12: "f64", Some(8);
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
