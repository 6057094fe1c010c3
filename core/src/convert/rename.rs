//! Rules that give tensors other names.

use crate::error::convert::RenameError;
use crate::escape::Quoted;
use alloc::borrow::{Cow, ToOwned};
use alloc::format;
use alloc::string::String;
use core::fmt;

/// Gives tensors another name: `from` is a whole name, or a name with one `*` for any characters, none and dots too; `to` is then a name with a `*`
/// for what that stood for. `model.*` to `*` takes a beginning away, `*` to `model.*` puts one there.
///
/// ```
/// use floodtide_core::convert::Rename;
///
/// let rule = Rename::new("model.*", "*")?;
/// assert_eq!(rule.apply("model.embed.weight").as_deref(), Some("embed.weight"));
/// assert_eq!(rule.apply("lm_head.weight"), None);
/// # Ok::<(), floodtide_core::convert::RenameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    from: Pattern,
    to: Pattern,
}

/// A name, or what stands on both sides of its star.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Whole(String),
    Star(String, String),
}

impl Pattern {
    /// `None` when it has more than one star.
    fn new(text: &str) -> Option<Self> {
        match text.split_once('*') {
            None => Some(Self::Whole(text.to_owned())),
            Some((_, after)) if after.contains('*') => None,
            Some((before, after)) => Some(Self::Star(before.to_owned(), after.to_owned())),
        }
    }
}

impl Rename {
    /// The rule that renames `from` to `to`.
    ///
    /// # Errors
    /// When one of them is empty, or they do not both have one star or none.
    pub fn new(from: &str, to: &str) -> Result<Self, RenameError> {
        let both = || (from.to_owned(), to.to_owned());
        if from.is_empty() || to.is_empty() {
            let (from, to) = both();
            return Err(RenameError::Empty { from, to });
        }
        match (Pattern::new(from), Pattern::new(to)) {
            (Some(from @ Pattern::Whole(_)), Some(to @ Pattern::Whole(_)))
            | (Some(from @ Pattern::Star(..)), Some(to @ Pattern::Star(..))) => Ok(Self { from, to }),
            _ => {
                let (from, to) = both();
                Err(RenameError::Stars { from, to })
            }
        }
    }

    /// What the rule makes of a name; `None` when it does not match.
    #[must_use]
    pub fn apply(&self, name: &str) -> Option<String> {
        match (&self.from, &self.to) {
            (Pattern::Star(before, after), Pattern::Star(new_before, new_after)) => {
                let stood_for = name.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?;
                Some(format!("{new_before}{stood_for}{new_after}"))
            }
            (Pattern::Whole(from), Pattern::Whole(to)) => (from == name).then(|| to.clone()),
            // `new` makes no such rule.
            _ => None,
        }
    }
}

impl fmt::Display for Rename {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.from, self.to)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(name) => Quoted(name).fmt(f),
            Self::Star(before, after) => write!(f, "{}*{}", Quoted(before), Quoted(after)),
        }
    }
}

/// The name that the first rule gives which matches, with that rule's number; else the name itself.
pub(super) fn renamed<'n>(rules: &[Rename], name: &'n str) -> (Cow<'n, str>, Option<usize>) {
    let first = rules.iter().enumerate().find_map(|(number, rule)| Some((rule.apply(name)?, number)));
    first.map_or((Cow::Borrowed(name), None), |(name, number)| (Cow::Owned(name), Some(number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_star_stands_for_the_same_on_both_sides() {
        for (from, to, name, expected) in [
            ("a.b", "c", "a.b", Some("c")),
            ("a.b", "c", "a.b.c", None),
            ("model.*", "*", "model.layers.0.w", Some("layers.0.w")),
            ("model.*", "*", "layers.0.w", None),
            ("*", "model.*", "w", Some("model.w")),
            ("*.gamma", "*.weight", "ln.gamma", Some("ln.weight")),
            ("h.*.w", "layers.*.weight", "h.7.w", Some("layers.7.weight")),
            ("h.*.w", "layers.*.weight", "h..w", Some("layers..weight")),
            // The beginning and the end may not be the same characters.
            ("ab*ba", "*", "aba", None),
            ("ab*ba", "x*", "abba", Some("x")),
        ] {
            let rule = Rename::new(from, to).expect("a rule");
            assert_eq!(rule.apply(name).as_deref(), expected, "{rule} on {name}");
        }
    }

    #[test]
    fn a_rule_has_two_sides_that_fit() {
        for (from, to) in [("", "a"), ("a", ""), ("", "")] {
            assert!(matches!(Rename::new(from, to), Err(RenameError::Empty { .. })), "{from}={to}");
        }
        for (from, to) in [("a*", "b"), ("a", "b*"), ("*a*", "*"), ("*", "*b*"), ("**", "**")] {
            let error = Rename::new(from, to).expect_err("stars do not fit");
            assert!(matches!(error, RenameError::Stars { .. }) && error.to_string().contains("old.*=new.*"), "{error}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rules =
            [("a.*", "b.*"), ("a.x", "c"), ("b.*", "d.*")].map(|(from, to)| Rename::new(from, to).expect("a rule"));
        assert_eq!(renamed(&rules, "a.x"), ("b.x".into(), Some(0)), "and no rule is applied to what another has made");
        assert_eq!(renamed(&rules, "b.x"), ("d.x".into(), Some(2)));
        assert_eq!(renamed(&rules, "x"), ("x".into(), None));
    }

    #[test]
    fn rules_are_shown_as_they_are_given_and_not_longer_than_anyone_reads() {
        assert_eq!(Rename::new("h.*.w", "l.*").expect("a rule").to_string(), "h.*.w=l.*");
        let long = "n\u{1b}".repeat(1000);
        let shown = Rename::new(&long, "a").expect("a rule").to_string();
        assert!(shown.len() < 300 && !shown.contains('\u{1b}'), "{shown}");
    }
}
