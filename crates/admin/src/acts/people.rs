//! People and groups at an IdP, their installations and sessions.

use super::{ActError, ManagedKind, Switched, check_addressable, context::ActContext, put};
use crate::{
    servers::{Administration, Deps, IdpAdmin, RasAdmin},
    types::{
        Dependent, Dependents, Fate, GroupChange, GroupView, Groups, InstallationView, Kind,
        Listed, NewGroup, NewPassword, NewRecoveryLink, NewUser, RecoveryLinkView, SessionView,
        UnreadableRecord, UserChange, UserView, Users, WhoseQuery,
    },
};
use passavant_authority::passwords::normal_username;
use passavant_proto::{
    event::{Act, Detail},
    oauth::client_document::INSTALLATIONS,
    others_text::{is_email, is_shown},
    policy::{Connection, Subject},
    secret::Secret,
    xaa::trust::Account,
};
use passavant_store::{Group, User};
use std::collections::{BTreeMap, BTreeSet};

impl Administration for IdpAdmin {
    const PERSON: &'static str = "user";

    fn deps(&self) -> &Deps {
        &self.0.deps
    }

    async fn name_of(&self, id: &str) -> Option<String> {
        let found = self.0.deps.store.usable::<User>(id).await.ok().flatten();
        found.map(|user| user.username)
    }

    async fn person(&self, named: &str) -> Option<String> {
        self.0.deps.store.id_of::<User>(named, &normal_username(named)).await.ok().flatten()
    }
}

/// Checks an email address that tokens may contain: accounts are found by it.
pub(crate) fn check_email(email: &str) -> Result<(), ActError> {
    if is_email(email) {
        return Ok(());
    }
    Err(ActError::invalid("`email` is not an address", "for instance a@acme.example"))
}

/// Most attributes of a person, and the longest value.
const MOST_ATTRIBUTES: usize = 32;
const LONGEST_ATTRIBUTE: usize = 1024;

fn check_attributes(attributes: &BTreeMap<String, String>) -> Result<(), ActError> {
    let name = |name: &str| {
        (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let value =
        |value: &str| (1..=LONGEST_ATTRIBUTE).contains(&value.len()) && value.chars().all(is_shown);
    if attributes.len() <= MOST_ATTRIBUTES && attributes.iter().all(|(k, v)| name(k) && value(v)) {
        return Ok(());
    }
    Err(ActError::conflict(
        format!(
            "`attributes` must have at most {MOST_ATTRIBUTES} names of letters and digits, each with \
             1 to {LONGEST_ATTRIBUTE} printable characters"
        ),
        "for instance {\"employeeNumber\": \"0042\"}",
    ))
}

fn username(typed: &str) -> Result<String, ActError> {
    let username = normal_username(typed);
    let control = typed.chars().any(char::is_control);
    if username.is_empty() || typed.chars().count() > 256 || control {
        return Err(ActError::invalid(
            "`username` must have 1 to 256 printable characters",
            "an e-mail address or a short name is usual",
        ));
    }
    check_addressable("username", &username)?;
    Ok(username)
}

async fn hash(idp: &IdpAdmin, password: &Secret) -> Result<String, ActError> {
    idp.0.passwords.hash(password).await.map_err(|error| {
        ActError::invalid(format!("`password`: {error}"), "choose a longer passphrase")
    })
}

pub(crate) async fn groups_exist(
    context: &ActContext,
    groups: &BTreeSet<String>,
) -> Result<(), ActError> {
    for name in groups {
        if context.store.by_id::<Group>(name).await?.is_none() {
            return Err(ActError::conflict(
                format!("`groups`: there is no group `{name}`"),
                format!("make it with `passavant admin group add {name}`"),
            ));
        }
    }
    Ok(())
}

fn view(user: &User) -> UserView {
    UserView {
        id: user.id.clone(),
        username: user.username.clone(),
        email: user.email.clone(),
        email_verified: user.email_verified,
        display_name: user.display_name.clone(),
        given_name: user.given_name.clone(),
        family_name: user.family_name.clone(),
        groups: user.groups.clone(),
        has_password: user.password_hash.is_some(),
        attributes: user.attributes.clone(),
        disabled: user.disabled_here,
        inactive_there: user.inactive_there,
    }
}

/// Changes a user, and ends their sessions and tokens.
async fn cut_off(
    context: &ActContext,
    id: &str,
    act: Act,
    change: impl FnOnce(&mut User) + Send,
    new_password: bool,
) -> Result<UserView, ActError> {
    let event = context.event::<User>(act, id).person(id);
    // The time of the row: what the act has ended is found by it.
    let now = event.at;
    let changed = context.store.cut_off_user(id, change, new_password, event, now).await?;
    changed.map(|user| view(&user)).ok_or_else(|| ActError::missing(Users::NOUN, id))
}

impl ManagedKind<IdpAdmin> for Users {
    type Record = User;

    /// The id for an id or user name, even if the record cannot be read.
    async fn id_of(_: &IdpAdmin, context: &ActContext, named: &str) -> Result<String, ActError> {
        let found = context.store.id_of::<User>(named, &normal_username(named)).await?;
        found.ok_or_else(|| ActError::missing(Users::NOUN, named))
    }

    async fn view(_: &IdpAdmin, _: &ActContext, user: &User) -> Result<UserView, ActError> {
        Ok(view(user))
    }

    async fn add(idp: &IdpAdmin, context: &ActContext, new: NewUser) -> Result<UserView, ActError> {
        let username = username(&new.username)?;
        new.email.as_deref().map_or(Ok(()), check_email)?;
        check_attributes(&new.attributes)?;
        groups_exist(context, &new.groups).await?;
        let password_hash = match new.password {
            None => None,
            Some(password) => Some(hash(idp, &Secret::new(password)).await?),
        };
        let user = User {
            id: context.entropy.id(),
            username,
            email: new.email,
            email_verified: new.email_verified,
            display_name: new.display_name,
            given_name: new.given_name,
            family_name: new.family_name,
            groups: new.groups,
            password_hash,
            attributes: new.attributes,
            saml_subject: None,
            disabled_here: false,
            inactive_there: false,
        };
        context.create(&user).await?;
        Ok(view(&user))
    }

    async fn change(
        _: &IdpAdmin,
        context: &ActContext,
        id: &str,
        change: UserChange,
    ) -> Result<UserView, ActError> {
        let name = change.username.as_deref().map(username).transpose()?;
        change.email.as_ref().and_then(Option::as_deref).map_or(Ok(()), check_email)?;
        if let Some(groups) = &change.groups {
            groups_exist(context, groups).await?;
        }
        change.attributes.as_ref().map_or(Ok(()), check_attributes)?;
        let UserChange { email, email_verified, display_name, given_name, family_name, .. } =
            change;
        let others = name.is_some()
            || email.is_some()
            || email_verified.is_some()
            || display_name.is_some()
            || given_name.is_some()
            || family_name.is_some()
            || change.attributes.is_some();
        let act = if change.groups.is_some() && !others { Act::SetGroups } else { Act::Change };
        let set = |user: &mut User| {
            put(&mut user.username, name);
            // The new address is not verified.
            if email.as_ref().is_some_and(|email| *email != user.email) {
                user.email_verified = false;
            }
            put(&mut user.email, email);
            put(&mut user.email_verified, email_verified);
            put(&mut user.display_name, display_name);
            put(&mut user.given_name, given_name);
            put(&mut user.family_name, family_name);
            put(&mut user.groups, change.groups);
            put(&mut user.attributes, change.attributes);
        };
        Ok(view(&context.change::<User>((Users::NOUN, id), act, set).await?))
    }

    async fn dependents(
        _: &IdpAdmin,
        context: &ActContext,
        id: &str,
    ) -> Result<Dependents, ActError> {
        let mut records = Vec::new();
        for held in context.store.installations(Some(id)).await? {
            records.push(dependent("installation", held.device, Fate::Ended));
        }
        for session in context.store.sessions(Some(id), context.now()).await? {
            records.push(dependent("session", session.sid, Fate::Ended));
        }
        let of_them = Subject::User(id.to_owned());
        for connection in context.store.all::<Connection>().await? {
            if connection.subjects.contains(&of_them) {
                records.push(dependent("connection", connection.id, Fate::Changed));
            }
        }
        Ok(Dependents { records })
    }

    async fn remove(_: &IdpAdmin, context: &ActContext, id: &str) -> Result<bool, ActError> {
        let event = context.event::<User>(Act::Delete, id).person(id);
        Ok(context.store.delete_user(id, event, context.now()).await?)
    }
}

pub(crate) fn dependent(kind: &str, name: impl Into<String>, then: Fate) -> Dependent {
    Dependent { kind: kind.to_owned(), name: name.into(), then }
}

impl Switched<IdpAdmin> for Users {
    fn set(user: &mut User, disabled: bool) {
        user.disabled_here = disabled;
    }

    async fn switch(
        _: &IdpAdmin,
        context: &ActContext,
        id: &str,
        disabled: bool,
    ) -> Result<UserView, ActError> {
        if disabled {
            return cut_off(context, id, Act::Disable, |user| user.disabled_here = true, false)
                .await;
        }
        let directory = context.store.provisioned_by(id).await?;
        let theirs = directory.is_some();
        let mut was_off_here = false;
        let enable = |user: &mut User| {
            was_off_here = std::mem::take(&mut user.disabled_here);
            // The word of a directory that is gone holds no longer.
            user.inactive_there &= theirs;
        };
        let user = context.change::<User>((Users::NOUN, id), Act::Enable, enable).await?;
        match directory {
            Some(upstream) if user.inactive_there && !was_off_here => Err(ActError::conflict(
                format!("`{}` is switched off by the upstream `{upstream}`", user.username),
                "switch them on there: `active` comes from its provisioning",
            )),
            _ => Ok(view(&user)),
        }
    }
}

/// Sets another password, and signs the person out everywhere.
pub(crate) async fn set_password(
    idp: &IdpAdmin,
    context: &ActContext,
    named: &str,
    new: NewPassword,
) -> Result<UserView, ActError> {
    let id = Users::id_of(idp, context, named).await?;
    let hash = hash(idp, &Secret::new(new.password)).await?;
    let set = |user: &mut User| user.password_hash = Some(hash);
    cut_off(context, &id, Act::SetPassword, set, true).await
}

/// Makes a link by which a person who has lost every way to sign in gets in once.
pub(crate) async fn recovery_link(
    idp: &IdpAdmin,
    context: &ActContext,
    named: &str,
    new: NewRecoveryLink,
) -> Result<RecoveryLinkView, ActError> {
    let hours = new.hours.unwrap_or(24);
    if !(1..=168).contains(&hours) {
        return Err(ActError::invalid(
            format!("`hours`: {hours} is not from 1 to 168"),
            "leave it out for a day",
        ));
    }
    let id = Users::id_of(idp, context, named).await?;
    if !context.store.person_links(Some(&id), None).await?.is_empty() {
        return Err(ActError::conflict(
            "they sign in at an upstream, and what they need for that is decided there",
            "`passavant admin upstream links` says where",
        ));
    }
    let code = context.entropy.secret();
    let expires_at = context.now().plus(hours * 3600);
    let event = context
        .event::<User>(Act::Recover, &id)
        .person(&id)
        .with(Detail::Ends, expires_at.0.to_string());
    let link = (code.hash(), expires_at);
    let link = (link.0.as_str(), link.1);
    if !context.store.put_recovery_link(&id, link, new.forget_factors, event).await? {
        return Err(ActError::missing(Users::NOUN, named));
    }
    // Behind `#`: no server sees it before the person sends the form.
    let link = format!("{}#{}", idp.issuer().endpoint("/recover"), code.expose());
    Ok(RecoveryLinkView { link: Some(link), expires_at })
}

impl ManagedKind<IdpAdmin> for Groups {
    type Record = Group;

    async fn view(_: &IdpAdmin, _: &ActContext, group: &Group) -> Result<GroupView, ActError> {
        Ok(GroupView { name: group.name.clone(), description: group.description.clone() })
    }

    async fn add(
        idp: &IdpAdmin,
        context: &ActContext,
        new: NewGroup,
    ) -> Result<GroupView, ActError> {
        let NewGroup { name, description } = new;
        if name.trim() != name || name.is_empty() || name.chars().count() > 256 {
            return Err(ActError::invalid(
                "`name` must have 1 to 256 characters, none of them a space at either end",
                "for instance: engineering",
            ));
        }
        check_addressable("name", &name)?;
        let group = Group { name, description };
        context.create(&group).await?;
        Self::view(idp, context, &group).await
    }

    async fn change(
        idp: &IdpAdmin,
        context: &ActContext,
        id: &str,
        change: GroupChange,
    ) -> Result<GroupView, ActError> {
        let set = |group: &mut Group| put(&mut group.description, change.description);
        let group = context.change::<Group>((Groups::NOUN, id), Act::Change, set).await?;
        Self::view(idp, context, &group).await
    }

    async fn dependents(
        _: &IdpAdmin,
        context: &ActContext,
        id: &str,
    ) -> Result<Dependents, ActError> {
        let mut records = Vec::new();
        for name in context.store.members(id).await? {
            records.push(dependent("user", name, Fate::Changed));
        }
        let of_it = Subject::Group(id.to_owned());
        for connection in context.store.all::<Connection>().await? {
            if connection.subjects.contains(&of_it) {
                records.push(dependent("connection", connection.id, Fate::Changed));
            }
        }
        Ok(Dependents { records })
    }

    async fn remove(_: &IdpAdmin, context: &ActContext, id: &str) -> Result<bool, ActError> {
        let event = context.event::<Group>(Act::Delete, id);
        Ok(context.store.delete_group(id, event).await?)
    }
}

/// Installations of people, the last used first, 1000 at most.
pub(crate) async fn installations(
    idp: &IdpAdmin,
    context: &ActContext,
    whose: WhoseQuery,
) -> Result<Listed<InstallationView>, ActError> {
    let of = match &whose.user {
        Some(name) => Some(Users::id_of(idp, context, name).await?),
        None => None,
    };
    let mut items = Vec::new();
    for held in context.store.installations(of.as_deref()).await? {
        let user = idp.name_of(&held.user_id).await.unwrap_or(held.user_id);
        items.push(InstallationView {
            id: held.id,
            user,
            device: held.device,
            enrolled_at: held.enrolled_at,
            used_at: held.used_at,
        });
    }
    Ok(Listed { items, unreadable: unreadable(context, "installation"), next: None })
}

/// The records of a kind that could not be parsed when they were last read.
fn unreadable(context: &ActContext, kind: &str) -> Vec<UnreadableRecord> {
    let all = context.store.unreadable().into_iter().filter(|(of, ..)| *of == kind);
    all.map(|(_, id, why)| UnreadableRecord { id, cannot_be_read: why }).collect()
}

/// Revokes an installation.
pub(crate) async fn revoke_installation(
    idp: &IdpAdmin,
    context: &ActContext,
    id: &str,
) -> Result<(), ActError> {
    let client = idp.0.issuer.endpoint(&format!("{INSTALLATIONS}/{id}"));
    let event = context.act(Act::Revoke, "installation").with(Detail::Record, id);
    let now = event.at;
    if context.store.revoke_installation(id, None, &client, event, now).await? {
        return Ok(());
    }
    Err(ActError::missing("installation", id))
}

/// Sessions that are live.
pub(crate) async fn sessions<A: Administration>(
    of: &A,
    context: &ActContext,
    whose: WhoseQuery,
) -> Result<Listed<SessionView>, ActError> {
    let person = match &whose.user {
        Some(named) => {
            Some(of.person(named).await.ok_or_else(|| ActError::missing(A::PERSON, named))?)
        }
        None => None,
    };
    let mut items = Vec::new();
    for session in context.store.sessions(person.as_deref(), context.now()).await? {
        let user = of.name_of(&session.user_id).await.unwrap_or(session.user_id);
        items.push(SessionView {
            id: session.sid,
            user,
            signed_in_at: Some(session.authentication.auth_time).filter(|time| time.0 > 0),
            acr: session.authentication.acr,
            amr: session.authentication.amr,
            expires_at: session.expires_at,
        });
    }
    Ok(Listed { items, unreadable: unreadable(context, "session"), next: None })
}

/// Ends a session, and revokes its tokens.
pub(crate) async fn end_session(context: &ActContext, id: &str) -> Result<(), ActError> {
    let event = context.act(Act::Revoke, "session").with(Detail::Record, id);
    if context.store.end_session(id, event, context.now()).await? {
        return Ok(());
    }
    Err(ActError::missing("session", id))
}

impl Administration for RasAdmin {
    const PERSON: &'static str = "account";

    fn deps(&self) -> &Deps {
        &self.0.deps
    }

    async fn name_of(&self, id: &str) -> Option<String> {
        self.0.deps.store.usable::<Account>(id).await.ok().flatten()?.email
    }

    async fn person(&self, named: &str) -> Option<String> {
        self.0.deps.store.id_of::<Account>(named, &named.to_lowercase()).await.ok().flatten()
    }
}
