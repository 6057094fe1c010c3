//! Displays shapes in messages.

use core::fmt;

/// A shape, shortened if it has many dimensions. Formats do not limit their number.
pub(super) struct Dims<'a>(pub(super) &'a [u64]);

impl fmt::Display for Dims<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        let Some((first, rest)) = self.0.split_at_checked(SHOWN).filter(|(_, rest)| !rest.is_empty()) else {
            return write!(f, "{:?}", self.0);
        };
        f.write_str("[")?;
        first.iter().try_for_each(|dim| write!(f, "{dim}, "))?;
        write!(f, "…] ({} dimensions)", first.len() + rest.len())
    }
}
