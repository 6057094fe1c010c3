//! Shell-style patterns over tensor names, as in fnmatch and the `allow_patterns` of Hugging Face's
//! tools.
//!
//! `*` and `?` match any character, including dots and slashes. `[a-z]` and `[!a-z]` match a
//! character of a class.
//!
//! The maintained glob crates need std and treat `/` as a path separator, which tensor names do not
//! have.

use crate::escape::Quoted;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use thiserror::Error;

/// The error of a malformed pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the pattern \"{}\" has a \"[\" without its \"]\"", Quoted(.pattern))]
pub struct GlobError {
    pattern: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    One,
    Many,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Token {
    fn matches(&self, c: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == c,
            Self::One | Self::Many => true,
            Self::Class { negated, ranges } => ranges.iter().any(|&(from, to)| from <= c && c <= to) != *negated,
        }
    }
}

/// A parsed pattern.
///
/// ```
/// use floodtide_core::Glob;
///
/// let norms = Glob::new("model.layers.*.[a-z]*norm.weight")?;
/// assert!(norms.matches("model.layers.12.input_layernorm.weight"));
/// assert!(!norms.matches("model.layers.12.mlp.up_proj.weight"));
/// # Ok::<(), floodtide_core::GlobError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    pattern: String,
    tokens: Vec<Token>,
}

impl Glob {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Fails if a `[` is not closed.
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '?' => Token::One,
                '*' if tokens.last() == Some(&Token::Many) => continue,
                '*' => Token::Many,
                '[' => {
                    let negated = chars.next_if(|&c| c == '!' || c == '^').is_some();
                    let mut ranges = Vec::new();
                    loop {
                        let unclosed = || GlobError { pattern: pattern.to_string() };
                        let from = chars.next().ok_or_else(unclosed)?;
                        // A "]" directly after the "[" is literal.
                        if from == ']' && !ranges.is_empty() {
                            break;
                        }
                        let mut ahead = chars.clone();
                        match (ahead.next(), ahead.next()) {
                            (Some('-'), Some(to)) if to != ']' => {
                                chars = ahead;
                                ranges.push((from, to));
                            }
                            _ => ranges.push((from, from)),
                        }
                    }
                    Token::Class { negated, ranges }
                }
                c => Token::Literal(c),
            });
        }
        Ok(Self { pattern: pattern.to_string(), tokens })
    }

    /// Returns the pattern as given.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Returns true if the pattern matches the whole of `name`. The time is at most the product of
    /// both lengths.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut token = 0;
        let mut rest = name.chars();
        // The position after the last `*`, and the rest of the name when it was reached.
        let mut retry: Option<(usize, core::str::Chars<'_>)> = None;
        loop {
            if self.tokens.get(token) == Some(&Token::Many) {
                token += 1;
                retry = Some((token, rest.clone()));
                continue;
            }
            let mut ahead = rest.clone();
            match (ahead.next(), self.tokens.get(token)) {
                (None, None) => return true,
                (Some(c), Some(t)) if t.matches(c) => {
                    token += 1;
                    rest = ahead;
                }
                (None, Some(_)) => return false,
                (Some(_), _) => {
                    let Some((after_star, from)) = &mut retry else { return false };
                    from.next();
                    token = *after_star;
                    rest = from.clone();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::char;
    use proptest::prelude::*;

    #[test]
    fn stars_cross_dots_and_slashes() {
        for (pattern, name, expected) in [
            ("*.weight", "h.0.attn.weight", true),
            ("*.weight", "h.0.attn.bias", false),
            ("h.?.*", "h.0.x", true),
            ("h.?.*", "h.10.x", false),
            ("h.[0-3].*", "h.2.x", true),
            ("h.[!0-3].*", "h.2.x", false),
            ("[]x]", "]", true),
            ("[a-]", "-", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "a/b/b/c", true),
            ("a*b*c", "a/b/b/d", false),
            ("模?", "模型", true),
        ] {
            assert_eq!(Glob::new(pattern).expect(pattern).matches(name), expected, "{pattern} on {name}");
        }
        assert!(Glob::new("a[b").is_err());
        assert!(Glob::new("[]").is_err());
    }

    /// Matches a pattern of letters, `?` and `*` by its definition.
    fn means(pattern: &[u8], name: &[u8]) -> bool {
        match pattern {
            [] => name.is_empty(),
            [b'*', rest @ ..] => (0..=name.len()).any(|taken| means(rest, &name[taken..])),
            [one, rest @ ..] => {
                name.split_first().is_some_and(|(c, tail)| [b'?', *c].contains(one) && means(rest, tail))
            }
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_it_means(pattern in "[ab?*]{0,8}", name in "[ab]{0,10}") {
            let glob = Glob::new(&pattern).expect("no class in it");
            prop_assert_eq!(glob.matches(&name), means(pattern.as_bytes(), name.as_bytes()));
            prop_assert_eq!(glob.pattern(), pattern);
        }

        #[test]
        fn a_class_matches_what_lies_between_its_ends(
            [from, to, c] in [char::range('a', 'e'), char::range('a', 'e'), char::range('a', 'e')],
            negated in any::<bool>(),
        ) {
            let pattern = alloc::format!("[{}{from}-{to}]", if negated { "!" } else { "" });
            let glob = Glob::new(&pattern).expect("it is closed");
            prop_assert_eq!(glob.matches(&c.to_string()), (from..=to).contains(&c) != negated);
        }
    }
}
