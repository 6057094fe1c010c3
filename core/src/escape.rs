//! Displays names from untrusted files safely.

use alloc::string::String;
use core::fmt::{self, Write as _};

/// Displays a name with control characters, bidirectional overrides and backslashes escaped.
///
/// A name can then neither move a terminal's cursor nor look like two lines. Nothing is omitted, so
/// this suits listings.
///
/// ```
/// use floodtide_core::Escaped;
///
/// assert_eq!(Escaped("name\u{1b}[2J").to_string(), "name\\u{1b}[2J");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_str(&escape(c)))
    }
}

/// Displays a name like [`Escaped`], shortened for messages.
///
/// An ellipsis replaces what exceeds [`Quoted::CHARS`] characters, because a hostile name can be as
/// long as its file.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a str);

impl Quoted<'_> {
    /// The maximum number of characters before the ellipsis.
    pub const CHARS: usize = 200;
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = Self::CHARS;
        for c in self.0.chars() {
            let shown = escape(c);
            // An escape is several ASCII characters, anything else is one.
            let chars = if shown.is_ascii() { shown.len() } else { 1 };
            if chars > left {
                return f.write_char('…');
            }
            left -= chars;
            f.write_str(&shown)?;
        }
        Ok(())
    }
}

/// Shortens the middle of a library's message that may quote the file.
///
/// Such messages start with what is wrong, and end with what was expected and the line and column.
pub(crate) fn without_middle(message: String) -> String {
    let is_short = message.chars().nth(2 * Quoted::CHARS).is_none();
    let head = message.char_indices().nth(Quoted::CHARS);
    let tail = message.char_indices().rev().nth(Quoted::CHARS - 1);
    match (head, tail) {
        (Some((head, _)), Some((tail, _))) if !is_short => alloc::format!("{}…{}", &message[..head], &message[tail..]),
        _ => message,
    }
}

/// Returns a character as displayed. `\u{10ffff}` is the longest.
fn escape(c: char) -> heapless::String<12> {
    let mut shown = heapless::String::new();
    let written = match c {
        '\\' => shown.write_str("\\\\"),
        '\n' => shown.write_str("\\n"),
        '\r' => shown.write_str("\\r"),
        '\t' => shown.write_str("\\t"),
        // A byte that is not Unicode, as local storage encodes it in a name.
        '\u{10ff00}'..='\u{10ffff}' => write!(shown, "\\x{:02x}", u32::from(c) & 0xff),
        c if c.is_control() || is_layout_override(c) => write!(shown, "\\u{{{:x}}}", u32::from(c)),
        c => shown.write_char(c),
    };
    debug_assert!(written.is_ok(), "every escape fits");
    shown
}

/// Returns true for Unicode's line separators and the bidirectional controls of UAX #9, which
/// reorder the text around them.
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

    #[test]
    fn listings_are_whole_and_quotes_are_short() {
        let long = "模".repeat(1000);
        assert_eq!(Escaped(&long).to_string(), long);
        assert_eq!(Quoted(&long).to_string(), "模".repeat(200) + "…");
        assert_eq!(Quoted(&long[..600]).to_string(), &long[..600]);
        // The limit counts displayed characters, and no escape is cut.
        let shown = Quoted(&"\u{1b}".repeat(1000)).to_string();
        assert_eq!(shown, "\\u{1b}".repeat(33) + "…");
    }

    #[test]
    fn a_long_message_keeps_its_ends() {
        let (head, tail) = ("ä".repeat(200), "ö".repeat(200));
        assert_eq!(without_middle(head.clone() + &tail), head.clone() + &tail);
        assert_eq!(without_middle(head.clone() + "x" + &tail), head + "…" + &tail);
    }
}
