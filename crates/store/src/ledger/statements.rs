//! Multi-row statements of few shapes, so that each shape is prepared once.

use crate::database::StoreError;
use sqlx::{Arguments, any::AnyArguments};

/// Splits rows into chunks of a few sizes, so that few statement shapes occur.
pub(super) fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = [64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1]
            .into_iter()
            .find(|size| *size <= rows.len())?;
        let (chunk, rest) = rows.split_at(size);
        rows = rest;
        Some(chunk)
    })
}

/// Maximum number of keys that one statement looks up.
pub(super) const MOST_FOUND: usize = 64;

/// Number of placeholders for this many keys: few shapes, and one statement instead of several.
pub(super) fn padded(keys: usize) -> usize {
    keys.next_power_of_two()
}

/// The keys for `size` placeholders; the last key is repeated.
pub(super) fn filled<T>(keys: &[T], size: usize) -> impl Iterator<Item = &T> {
    keys.iter().chain(keys.last().into_iter().cycle()).take(size)
}

/// `($3,$4,$5)` for three placeholders after the first two.
pub(super) fn places(after: usize, size: usize) -> String {
    let numbers: Vec<String> = (after + 1..=after + size).map(|n| format!("${n}")).collect();
    format!("({})", numbers.join(","))
}

/// `($1,$2),($3,$4)…` for `rows` rows of `columns` columns.
pub(super) fn rows(rows: usize, columns: usize) -> String {
    let mut text = String::with_capacity(rows * columns * 5);
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ",(" });
        for column in 0..columns {
            let separator = if column == 0 { "$" } else { ",$" };
            text.push_str(separator);
            text.push_str(&(row * columns + column + 1).to_string());
        }
        text.push(')');
    }
    text
}

pub(super) fn bind(
    arguments: &mut AnyArguments,
    value: impl Into<Bound>,
) -> Result<(), StoreError> {
    let done = match value.into() {
        Bound::Text(text) => arguments.add(text),
        Bound::NoText => arguments.add(None::<String>),
        Bound::Number(number) => arguments.add(number),
        Bound::NoNumber => arguments.add(None::<i64>),
    };
    done.map_err(|e| StoreError::Database(sqlx::Error::Encode(e)))
}

pub(super) enum Bound {
    Text(String),
    NoText,
    Number(i64),
    NoNumber,
}

impl From<&str> for Bound {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Bound {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Option<String>> for Bound {
    fn from(text: Option<String>) -> Self {
        text.map_or(Self::NoText, Self::Text)
    }
}

impl From<i64> for Bound {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<Option<i64>> for Bound {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::NoNumber, Self::Number)
    }
}
