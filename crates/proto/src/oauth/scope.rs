//! OAuth scopes as sets (RFC 6749 section 3.3).

use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// Maximum number of scope tokens, more than any request needs; a longer value is rejected.
const MOST: usize = 100;

/// A set of scope tokens. Its text form is sorted and separated by single spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Scopes(BTreeSet<String>);

/// An element of a list is not a valid scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a valid scope: printable ASCII without spaces, quotes and backslashes, 256 characters at most"
)]
pub struct NotScope(String);

impl TryFrom<Vec<String>> for Scopes {
    type Error = NotScope;

    fn try_from(list: Vec<String>) -> Result<Self, NotScope> {
        // As on the wire: an element that contains a space is two scopes.
        let tokens =
            list.iter().flat_map(|scope| scope.split(' ')).filter(|token| !token.is_empty());
        let tokens: BTreeSet<String> = tokens.map(str::to_owned).collect();
        match tokens.iter().find(|token| !is_scope(token)) {
            Some(bad) => Err(NotScope(crate::others_text::shown(bad, 100))),
            None => Ok(Self(tokens)),
        }
    }
}

impl From<Scopes> for Vec<String> {
    fn from(scopes: Scopes) -> Self {
        scopes.0.into_iter().collect()
    }
}

fn is_scope(token: &str) -> bool {
    let legal = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    !token.is_empty() && token.len() <= 256 && token.bytes().all(legal)
}

impl Scopes {
    /// Parses a space-separated scope value; `None` if a token has a character that RFC 6749
    /// forbids, or there are more than 100 tokens. An empty value is an empty set.
    pub fn parse(text: &str) -> Option<Self> {
        let tokens: BTreeSet<String> =
            text.split(' ').filter(|t| !t.is_empty()).map(str::to_owned).collect();
        (tokens.len() <= MOST && tokens.iter().all(|token| is_scope(token))).then_some(Self(tokens))
    }

    /// The tokens that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).cloned().collect())
    }

    /// The tokens that are in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }

    /// Whether every token of `other` is here.
    pub fn contains_all(&self, other: &Self) -> bool {
        other.0.is_subset(&self.0)
    }

    /// Whether `token` is here.
    pub fn contains(&self, token: &str) -> bool {
        self.0.contains(token)
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tokens in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, token) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(token)?;
        }
        Ok(())
    }
}

impl<S: Into<String>> FromIterator<S> for Scopes {
    fn from_iter<I: IntoIterator<Item = S>>(iter: I) -> Self {
        Self(iter.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_value_is_a_set_with_a_sorted_text_form() {
        let scopes = Scopes::parse("write read  read").unwrap();
        assert_eq!(scopes.to_string(), "read write");
        assert!(Scopes::parse("").unwrap().is_empty());
        assert_eq!(Scopes::parse("a\"b"), None);
        assert_eq!(Scopes::parse("a\\b"), None);
        assert_eq!(Scopes::parse("tab\tbed"), None);
    }
}
