//! Named administrators, the same at both servers: only owners add, renew and remove them. Their
//! tokens are shown once, and stored in a form that can only verify them.

use super::{ActError, ManagedKind, context::ActContext};
use crate::{
    proof,
    servers::Administration,
    types::{
        AdministratorChange, AdministratorView, Administrators, Kind, NewAdministrator, Renewal,
    },
};
use passavant_proto::{
    event::{Act, Detail},
    secret::Secret,
};
use passavant_store::{AdminRole, Administrator, AuditEvent, Record};

/// Days that a token is valid: the default and the maximum.
const DAYS: [i64; 2] = [90, 366];

/// The public view of an administrator; it never contains what a token is verified with.
fn view(administrator: &Administrator, token: Option<&Secret>) -> AdministratorView {
    AdministratorView {
        name: administrator.name.clone(),
        role: administrator.role,
        expires_at: administrator.expires_at,
        created_at: administrator.created_at,
        added_by: administrator.added_by.clone(),
        token: token.map(|token| token.expose().to_owned()),
    }
}

/// Whether a text can be an administrator's name.
pub(crate) fn is_name(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= 64
        && bytes.first().is_some_and(|first| letter(*first))
        && bytes.iter().all(|b| letter(*b) || b"-_.@+".contains(b))
}

fn seconds(days: Option<i64>) -> Result<i64, ActError> {
    let days = days.unwrap_or(DAYS[0]);
    if (1..=DAYS[1]).contains(&days) {
        return Ok(days * 86_400);
    }
    Err(ActError::invalid(
        format!("`days`: {days} is not from 1 to {}", DAYS[1]),
        "leave it out to use the default of 90 days",
    ))
}

/// An act that removes an owner's rights must leave another owner: nobody removes the last one,
/// neither that owner nor another whose token is about to expire. Holders of the config's secret,
/// who are owners without a name, are exempt.
fn leaving_an_owner(context: &ActContext, name: &str, mut event: AuditEvent) -> AuditEvent {
    if context.by.rests_on.is_some() {
        event.terms.get_or_insert_default().leaves_an_owner_beside = Some(name.to_owned());
    }
    event
}

impl<A: Administration> ManagedKind<A> for Administrators {
    type Record = Administrator;

    async fn view(
        _: &A,
        _: &ActContext,
        held: &Administrator,
    ) -> Result<AdministratorView, ActError> {
        Ok(view(held, None))
    }

    async fn add(
        _: &A,
        context: &ActContext,
        new: NewAdministrator,
    ) -> Result<AdministratorView, ActError> {
        if !is_name(&new.name) {
            return Err(ActError::invalid(
                format!("`name`: `{}` cannot name an administrator", new.name),
                "use 1 to 64 lower-case letters, digits and - _ . @ +, beginning with a letter or \
                 digit; for instance an e-mail address",
            ));
        }
        let now = context.now();
        let token = proof::token_of(&new.name, &context.entropy.secret());
        let administrator = Administrator {
            proof: proof::stored(&token),
            name: new.name,
            role: new.role,
            expires_at: now.plus(seconds(new.days)?),
            created_at: now,
            added_by: context.by.name().to_owned(),
        };
        let event = context.event::<Administrator>(Act::Create, &administrator.id());
        let event = event
            .with(Detail::Role, administrator.role.word())
            .with(Detail::Ends, administrator.expires_at.0.to_string());
        context.add(&administrator, event).await?;
        Ok(view(&administrator, Some(&token)))
    }

    async fn change(
        _: &A,
        context: &ActContext,
        id: &str,
        change: AdministratorChange,
    ) -> Result<AdministratorView, ActError> {
        let Some(role) = change.role else {
            return Ok(view(&context.find(Administrators::NOUN, id).await?, None));
        };
        let event = context.event::<Administrator>(Act::Change, id).with(Detail::Role, role.word());
        let event =
            if role == AdminRole::Owner { event } else { leaving_an_owner(context, id, event) };
        let set = |administrator: &mut Administrator| administrator.role = role;
        let changed = context.store.update::<Administrator>(id, set, event).await?;
        let changed = changed.ok_or_else(|| ActError::missing(Administrators::NOUN, id))?;
        Ok(view(&changed, None))
    }

    async fn remove(_: &A, context: &ActContext, id: &str) -> Result<bool, ActError> {
        let event = leaving_an_owner(context, id, context.event::<Administrator>(Act::Delete, id));
        Ok(context.store.delete::<Administrator>(id, event).await?)
    }
}

/// Issues another token: the earlier one ends at once.
pub(crate) async fn renew(
    context: &ActContext,
    name: &str,
    renewal: Renewal,
) -> Result<AdministratorView, ActError> {
    let token = proof::token_of(name, &context.entropy.secret());
    let ends = context.now().plus(seconds(renewal.days)?);
    let held = proof::stored(&token);
    let set = |administrator: &mut Administrator| {
        administrator.proof = held;
        administrator.expires_at = ends;
    };
    let renewed =
        context.change::<Administrator>((Administrators::NOUN, name), Act::Renew, set).await?;
    Ok(view(&renewed, Some(&token)))
}
