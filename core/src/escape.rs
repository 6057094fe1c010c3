//! Names from untrusted files, made safe to print.

use core::fmt::{self, Write as _};

/// Shows a name with its control characters, bidirectional overrides and backslashes escaped, so that a tensor's name
/// can neither move a terminal's cursor nor pass for two lines.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_control() || is_layout_override(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Unicode's line separators and the bidirectional controls of UAX #9, which reorder what stands around them.
fn is_layout_override(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn control_characters_are_escaped_and_letters_are_not() {
        assert_eq!(Escaped("a\nb\u{1b}[31m\u{202e}x\\").to_string(), "a\\nb\\u{1b}[31m\\u{202e}x\\\\");
        assert_eq!(Escaped("模型.ваги").to_string(), "模型.ваги");
    }
}
