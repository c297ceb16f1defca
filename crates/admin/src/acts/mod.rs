//! The acts of administrators: each is a function from a typed request to a typed view, and records
//! who did it. Nothing here depends on HTTP.

pub(crate) mod administrators;
pub(crate) mod audit;
pub(crate) mod clients;
pub(crate) mod configured;
pub(crate) mod context;
pub(crate) mod cut_off;
pub(crate) mod explain;
pub(crate) mod keys;
pub(crate) mod people;
pub(crate) mod policy;
pub(crate) mod provisioning;
pub(crate) mod signals;
pub(crate) mod trust;
pub(crate) mod upstreams;

use crate::types::{Dependents, Kind, ListQuery, Listed, UnreadableRecord};
use context::ActContext;
use passavant_proto::{event::Act, others_text::is_shown};
use passavant_store::{Record, StoreError, Wanted};
use std::future::Future;

/// Why an act failed.
#[derive(Debug)]
pub(crate) enum ActError {
    /// Something in the request is invalid.
    Invalid(String, String),
    /// Something that the request names does not exist.
    Missing(String, String),
    /// The current state conflicts with the request.
    Conflict(String, String),
    /// The record changed since the caller read it.
    Changed,
    /// Records that the request was checked against have changed: check it again.
    Stale,
    /// It was done before, with the same idempotency key.
    DoneBefore,
    /// The caller is not an administrator any more.
    Gone,
    /// A failure on our side.
    Broken(StoreError),
}

impl ActError {
    pub(crate) fn invalid(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid(error.into(), hint.into())
    }

    pub(crate) fn conflict(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Conflict(error.into(), hint.into())
    }

    /// `noun` is the name of the kind in `passavant admin`.
    pub(crate) fn missing(noun: &str, id: &str) -> Self {
        let hint = format!(
            "`passavant admin {noun} list` lists them; add `--ras NAME` for an authorization \
             server"
        );
        Self::Missing(format!("there is no {noun} `{id}`"), hint)
    }
}

/// A kind of record as one server (`A`) manages it.
pub(crate) trait ManagedKind<A: Sync + 'static>: Kind {
    type Record: Record;

    /// The id of the record that somebody names by its id or by its name.
    fn id_of(
        _of: &A,
        _context: &ActContext,
        named: &str,
    ) -> impl Future<Output = Result<String, ActError>> + Send {
        std::future::ready(Ok(named.to_owned()))
    }

    fn view(
        of: &A,
        context: &ActContext,
        record: &Self::Record,
    ) -> impl Future<Output = Result<Self::View, ActError>> + Send;

    fn add(
        of: &A,
        context: &ActContext,
        new: Self::New,
    ) -> impl Future<Output = Result<Self::View, ActError>> + Send;

    fn change(
        of: &A,
        context: &ActContext,
        id: &str,
        change: Self::Change,
    ) -> impl Future<Output = Result<Self::View, ActError>> + Send;

    /// The records that refer to it.
    fn dependents(
        _of: &A,
        _context: &ActContext,
        _id: &str,
    ) -> impl Future<Output = Result<Dependents, ActError>> + Send {
        std::future::ready(Ok(Dependents::default()))
    }

    /// Deletes it, with the records that refer to it. Returns whether it existed.
    fn remove(
        _of: &A,
        context: &ActContext,
        id: &str,
    ) -> impl Future<Output = Result<bool, ActError>> + Send {
        async move {
            let event = context.event::<Self::Record>(Act::Delete, id);
            Ok(context.store.delete::<Self::Record>(id, event).await?)
        }
    }
}

/// A kind of record that can be disabled and enabled.
pub(crate) trait Switched<A: Sync + 'static>: ManagedKind<A> {
    fn set(record: &mut Self::Record, disabled: bool);

    fn switch(
        of: &A,
        context: &ActContext,
        id: &str,
        disabled: bool,
    ) -> impl Future<Output = Result<Self::View, ActError>> + Send {
        async move {
            let act = if disabled { Act::Disable } else { Act::Enable };
            let set = |record: &mut Self::Record| Self::set(record, disabled);
            let changed = context.change::<Self::Record>((Self::NOUN, id), act, set).await?;
            Self::view(of, context, &changed).await
        }
    }
}

/// Rejects a name or an id that no path can carry: `.` and `..` are steps of a path, however they
/// are encoded, so that nobody could show or delete the record. Control characters would be
/// commands to a terminal, and with invisible ones two names look the same.
pub(crate) fn check_addressable(member: &str, name: &str) -> Result<(), ActError> {
    if matches!(name, "." | "..") {
        return Err(ActError::invalid(
            format!("`{member}`: `{name}` is a step of a path and cannot be a name"),
            "use a name with a letter or a digit in it",
        ));
    }
    if let Some(hidden) = name.chars().find(|c| !is_shown(*c)) {
        return Err(ActError::invalid(
            format!("`{member}` contains the invisible character U+{:04X}", u32::from(hidden)),
            "use printable characters",
        ));
    }
    Ok(())
}

/// Default number of records in a response.
const USUAL: i64 = 100;

pub(crate) async fn list<A: Sync + 'static, K: ManagedKind<A>>(
    of: &A,
    context: &ActContext,
    query: ListQuery,
) -> Result<Listed<K::View>, ActError> {
    let limit = query.limit.unwrap_or(USUAL);
    check_limit(limit)?;
    let wanted = Wanted {
        after: query.after.unwrap_or_default(),
        search: query.search.unwrap_or_default(),
        limit,
    };
    let page = context.store.page::<K::Record>(&wanted).await?;
    let mut items = Vec::with_capacity(page.records.len());
    for record in &page.records {
        items.push(K::view(of, context, record).await?);
    }
    let unreadable = page.unreadable.into_iter();
    let unreadable =
        unreadable.map(|(id, why)| UnreadableRecord { id, cannot_be_read: why }).collect();
    Ok(Listed { items, unreadable, next: page.next })
}

pub(crate) fn check_limit(limit: i64) -> Result<(), ActError> {
    if (1..=1000).contains(&limit) {
        return Ok(());
    }
    Err(ActError::invalid(
        format!("`limit`: {limit} is not from 1 to 1000"),
        "leave it out to use the default",
    ))
}

/// One record, and its current ETag.
pub(crate) async fn show<A: Sync + 'static, K: ManagedKind<A>>(
    of: &A,
    context: &ActContext,
    named: &str,
) -> Result<(K::View, String), ActError> {
    let id = K::id_of(of, context, named).await?;
    let found = context.store.tagged::<K::Record>(&id).await?;
    let (record, tag) = found.ok_or_else(|| ActError::missing(K::NOUN, named))?;
    Ok((K::view(of, context, &record).await?, tag))
}

pub(crate) async fn delete<A: Sync + 'static, K: ManagedKind<A>>(
    of: &A,
    context: &ActContext,
    named: &str,
) -> Result<(), ActError> {
    let id = K::id_of(of, context, named).await?;
    if K::remove(of, context, &id).await? { Ok(()) } else { Err(ActError::missing(K::NOUN, named)) }
}

/// Replaces a value, if there is a new one.
pub(crate) fn put<T>(place: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *place = said;
    }
}
