//! Groups: add, show, replace, patch, remove.

use super::{
    Answer, Asked,
    attributes::{self, Kind},
    broken,
    error::ScimError,
    is_match, never, not_made,
    patch::{MOST_MEMBERS, Patch, ids},
    person,
};
use axum::http::StatusCode;
use passavant_authority::passwords::normal_username;
use passavant_store::{Lookup, MemberChange, ProvisionedGroup};
use serde_json::{Map, Value};

/// A group's name, as groups here may be called.
fn name_of(held: &Map<String, Value>) -> Result<String, ScimError> {
    let name = held.get("displayName").and_then(Value::as_str).unwrap_or_default().trim();
    if name.is_empty() || name.chars().count() > 256 || matches!(name, "." | "..") {
        return Err(ScimError::value("`displayName` must have 1 to 256 printable characters"));
    }
    Ok(name.to_owned())
}

fn external_of(held: &Map<String, Value>) -> Result<Option<String>, ScimError> {
    let external = held.get("externalId").and_then(Value::as_str);
    if external.is_some_and(|external| external.len() > 255) {
        return Err(ScimError::value("`externalId` is longer than 255 bytes"));
    }
    Ok(external.map(str::to_owned))
}

/// The members that a whole group names.
fn members_of(held: &Map<String, Value>) -> Result<MemberChange, ScimError> {
    let named = match held.get(attributes::MEMBERS) {
        Some(members) => ids(members)?,
        None => Vec::new(),
    };
    if named.len() > MOST_MEMBERS {
        return Err(ScimError::too_many(format!(
            "more than {MOST_MEMBERS} members in one request"
        )));
    }
    let mut members = MemberChange::default();
    members.replace(named);
    Ok(members)
}

impl Asked {
    /// The members of a group, if they are asked for.
    pub(super) async fn members(
        &self,
        group: &ProvisionedGroup,
        wanted: bool,
    ) -> Result<Option<Vec<String>>, ScimError> {
        if !wanted {
            return Ok(None);
        }
        let store = &self.idp.0.authority.store;
        let members = store.provisioned_members(&self.upstream.name, &group.group).await;
        members.map(Some).map_err(|error| broken(&error))
    }

    async fn shown(
        &self,
        status: StatusCode,
        group: &ProvisionedGroup,
    ) -> Result<Answer, ScimError> {
        let shows = self.query_shows()?;
        let members = self.members(group, shows.has("members")).await?;
        self.one(status, person::shown_group(group, members, &self.base))
    }

    pub(super) async fn show_group(&self, id: &str) -> Result<Answer, ScimError> {
        let store = &self.idp.0.authority.store;
        let found = store.provisioned_groups(&self.upstream.name, Lookup::Id(id), (0, 1)).await;
        let (_, mut groups) = found.map_err(|error| broken(&error))?;
        let group = groups.pop().ok_or_else(ScimError::missing)?;
        self.shown(StatusCode::OK, &group).await
    }

    pub(super) async fn add_group(&self, body: &Value) -> Result<Answer, ScimError> {
        let held = attributes::read(Kind::Group, body)?;
        self.query_shows()?;
        let members = members_of(&held)?;
        let authority = &self.idp.0.authority;
        let now = authority.now();
        let mut group = ProvisionedGroup {
            id: authority.context.entropy.id(),
            normal_name: normal_username(&name_of(&held)?),
            display_name: name_of(&held)?,
            external_id: external_of(&held)?,
            group: String::new(),
            version: 1,
            created_at: now,
            changed_at: now,
        };
        let added = authority.store.add_provisioned_group(&self.by, &mut group, now);
        added.await.map_err(|error| broken(&error))?.map_err(|error| not_made(never(error)))?;
        if members.named() > 0 {
            let id = group.id.clone();
            group = self.change_group(&id, None, |_| Ok((None, members))).await?;
        }
        self.shown(StatusCode::CREATED, &group).await
    }

    /// Changes a group. `change` gets what is kept of it besides its members, and says what it is to
    /// be and which members move.
    async fn change_group(
        &self,
        id: &str,
        if_match: Option<&str>,
        change: impl FnOnce(
            Map<String, Value>,
        ) -> Result<(Option<Map<String, Value>>, MemberChange), ScimError>
        + Send,
    ) -> Result<ProvisionedGroup, ScimError> {
        let authority = &self.idp.0.authority;
        let set = |group: &mut ProvisionedGroup| {
            is_match(if_match, &person::version_of(group))?;
            let mut held = Map::new();
            held.insert("displayName".to_owned(), group.display_name.as_str().into());
            if let Some(external) = &group.external_id {
                held.insert("externalId".to_owned(), external.as_str().into());
            }
            let (held, members) = change(held)?;
            if let Some(held) = held {
                group.display_name = name_of(&held)?;
                group.normal_name = normal_username(&group.display_name);
                group.external_id = external_of(&held)?;
            }
            Ok(members)
        };
        let changed =
            authority.store.change_provisioned_group(&self.by, id, set, authority.now()).await;
        changed.map_err(|error| broken(&error))?.map_err(not_made)
    }

    pub(super) async fn replace_group(
        &self,
        id: &str,
        body: &Value,
        if_match: Option<&str>,
    ) -> Result<Answer, ScimError> {
        let new = attributes::read(Kind::Group, body)?;
        let members = members_of(&new)?;
        let group = self.change_group(id, if_match, |_| Ok((Some(new), members))).await?;
        self.shown(StatusCode::OK, &group).await
    }

    pub(super) async fn patch_group(
        &self,
        id: &str,
        body: &Value,
        if_match: Option<&str>,
    ) -> Result<Answer, ScimError> {
        let patch = Patch::read(Kind::Group, body)?;
        let change = |mut held: Map<String, Value>| {
            let members = patch.apply(id, &mut held)?;
            Ok((Some(held), members))
        };
        let group = self.change_group(id, if_match, change).await?;
        // Members may be thousands: they are answered to whoever asks for them.
        if self.parameter("attributes")?.is_none() {
            return Ok(Answer::empty(StatusCode::NO_CONTENT));
        }
        self.shown(StatusCode::OK, &group).await
    }

    pub(super) async fn remove_group(
        &self,
        id: &str,
        if_match: Option<&str>,
    ) -> Result<Answer, ScimError> {
        let authority = &self.idp.0.authority;
        let now = authority.now();
        let stands = |group: &ProvisionedGroup| is_match(if_match, &person::version_of(group));
        let removed = authority.store.remove_provisioned_group(&self.by, id, stands, now).await;
        removed.map_err(|error| broken(&error))?.map_err(not_made)?;
        Ok(Answer::empty(StatusCode::NO_CONTENT))
    }
}
