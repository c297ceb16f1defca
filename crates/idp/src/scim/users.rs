//! People: add, show, replace, patch, remove, list.

use super::{
    Answer, Asked,
    attributes::{self, Kind},
    broken,
    discovery::listed,
    error::ScimError,
    filter::{Key, Wanted},
    is_version, never, not_made,
    patch::Patch,
    person,
};
use axum::http::StatusCode;
use passavant_authority::passwords::normal_username;
use passavant_store::{Lookup, ProvisionedPerson};
use serde_json::{Map, Value};

/// The most resources of one answer.
pub(super) const LARGEST_PAGE: i64 = 200;

/// The most members that the groups of one list have together.
const MOST_LISTED_MEMBERS: usize = 50_000;

/// The most attributes that a request names.
const MOST_NAMES: usize = 100;

/// The most resources that a filter without an index looks at.
const MOST_LOOKED_AT: i64 = 10_000;

/// What a list is asked for.
#[derive(Default)]
pub(super) struct Page {
    filter: Option<String>,
    start: i64,
    count: i64,
    pub(super) shows: Shows,
}

/// Which attributes are shown.
#[derive(Default)]
pub(super) struct Shows {
    only: Vec<String>,
    without: Vec<String>,
}

impl Shows {
    fn of(only: Option<&str>, without: Option<&str>) -> Result<Self, ScimError> {
        let names = |list: Option<&str>| -> Vec<String> {
            let names = list.unwrap_or_default().split(',');
            let bare = |name: &str| {
                let name = name.trim().to_ascii_lowercase();
                let of = |schema: &str| {
                    name.strip_prefix(&format!("{}:", schema.to_ascii_lowercase()))
                        .map(str::to_owned)
                };
                of(attributes::USER).or_else(|| of(attributes::GROUP)).unwrap_or(name)
            };
            names.map(bare).filter(|name| !name.is_empty()).collect()
        };
        let named = |list: Option<&str>| list.map_or(0, |list| list.split(',').count());
        if named(only) + named(without) > MOST_NAMES {
            return Err(ScimError::value(format!("more than {MOST_NAMES} attributes are named")));
        }
        let shows = Self { only: names(only), without: names(without) };
        if !shows.only.is_empty() && !shows.without.is_empty() {
            return Err(ScimError::syntax(
                "`attributes` and `excludedAttributes` exclude each other",
            ));
        }
        Ok(shows)
    }

    /// Whether an attribute with this name is shown at all.
    pub(super) fn has(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let names = |held: &String| {
            *held == name
                || held.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['.', ':']))
        };
        if self.only.is_empty() {
            !self.without.contains(&name)
        } else {
            self.only.iter().any(names)
        }
    }

    /// A resource with those attributes alone. `id`, `schemas` and what says where it is stay.
    pub(super) fn of_resource(&self, mut resource: Value) -> Value {
        if self.only.is_empty() && self.without.is_empty() {
            return resource;
        }
        if let Value::Object(members) = &mut resource {
            members.retain(|name, _| matches!(name.as_str(), "id" | "schemas") || self.has(name));
            for (name, value) in members.iter_mut() {
                let lower = name.to_ascii_lowercase();
                let separator = if lower.contains(':') { ':' } else { '.' };
                let parts = |list: &[String]| -> Vec<String> {
                    let part = |held: &String| {
                        held.strip_prefix(&lower)?.strip_prefix(separator).map(str::to_owned)
                    };
                    list.iter().filter_map(part).collect()
                };
                let (only, without) = (parts(&self.only), parts(&self.without));
                let keeps = |part: &str| {
                    let part = part.to_ascii_lowercase();
                    if self.only.contains(&lower) || only.is_empty() {
                        !without.contains(&part)
                    } else {
                        only.contains(&part)
                    }
                };
                let trim = |value: &mut Value| {
                    if let Value::Object(parts) = value {
                        parts.retain(|part, _| keeps(part));
                    }
                };
                match value {
                    Value::Array(values) => values.iter_mut().for_each(trim),
                    value => trim(value),
                }
            }
        }
        resource
    }
}

fn number(name: &str, value: Option<&str>, usual: i64) -> Result<i64, ScimError> {
    let Some(value) = value else { return Ok(usual) };
    // Beyond what fits, it is as far as it goes.
    let digits = value.strip_prefix('-').unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ScimError::value(format!("`{name}` must be a whole number")));
    }
    let most = if value.starts_with('-') { i64::MIN } else { i64::MAX };
    Ok(value.parse().unwrap_or(most))
}

/// What of a list or search is kept while it is looked for.
struct Found<'a> {
    shows: &'a Shows,
    /// How many that fit come before the page.
    skip: i64,
    count: i64,
    total: i64,
    shown: Vec<Value>,
    /// How many members were read.
    members: usize,
}

impl<'a> Found<'a> {
    fn new(page: &'a Page) -> Self {
        let (skip, count) = (page.start - 1, page.count);
        Self { shows: &page.shows, skip, count, total: 0, shown: Vec::new(), members: 0 }
    }

    fn take(&mut self, resource: Value, wanted: Option<&Wanted>) {
        if wanted.is_some_and(|wanted| !wanted.fits(&resource)) {
            return;
        }
        let shown = i64::try_from(self.shown.len()).unwrap_or(i64::MAX);
        if self.total >= self.skip && shown < self.count {
            self.shown.push(self.shows.of_resource(resource));
        }
        self.total += 1;
    }
}

impl Asked {
    pub(super) fn query_shows(&self) -> Result<Shows, ScimError> {
        Shows::of(self.parameter("attributes")?, self.parameter("excludedAttributes")?)
    }

    /// A list as the query asks for it.
    pub(super) fn query_page(&self) -> Result<Page, ScimError> {
        Ok(Page {
            filter: self.parameter("filter")?.map(str::to_owned),
            // RFC 7644, section 3.4.2.4: what is less than 1 is 1; a negative count is 0.
            start: number("startIndex", self.parameter("startIndex")?, 1)?.max(1),
            count: number("count", self.parameter("count")?, LARGEST_PAGE)?.clamp(0, LARGEST_PAGE),
            shows: self.query_shows()?,
        })
    }

    /// A list as the body of `/.search` asks for it (RFC 7644, section 3.4.3).
    pub(super) fn body_page(body: &Value) -> Result<Page, ScimError> {
        let member = |name: &str| {
            let members = body.as_object()?;
            let found = members.iter().find(|(held, _)| held.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value).filter(|value| !value.is_null())
        };
        let names = |name: &str| -> Result<Option<String>, ScimError> {
            let Some(value) = member(name) else { return Ok(None) };
            let list = value
                .as_array()
                .and_then(|all| all.iter().map(|name| name.as_str()).collect::<Option<Vec<_>>>());
            list.map(|list| Some(list.join(",")))
                .ok_or_else(|| ScimError::value(format!("`{name}` must be a list of names")))
        };
        let whole = |name: &str, usual: i64| match member(name) {
            None => Ok(usual),
            Some(value) => value
                .as_i64()
                .ok_or_else(|| ScimError::value(format!("`{name}` must be a whole number"))),
        };
        let filter = match member("filter") {
            None => None,
            Some(Value::String(filter)) => Some(filter.clone()),
            Some(_) => return Err(ScimError::filter("`filter` must be a text")),
        };
        Ok(Page {
            filter,
            start: whole("startIndex", 1)?.max(1),
            count: whole("count", LARGEST_PAGE)?.clamp(0, LARGEST_PAGE),
            shows: Shows::of(
                names("attributes")?.as_deref(),
                names("excludedAttributes")?.as_deref(),
            )?,
        })
    }

    /// A list, of people or of groups.
    pub(super) async fn list(&self, kind: Kind, page: &Page) -> Result<Answer, ScimError> {
        let wanted = page.filter.as_deref().map(|text| Wanted::parse(kind, text)).transpose()?;
        let mut found = Found::new(page);
        if wanted.is_none() {
            // The page as it is: nothing before it is looked at.
            let range = (page.start - 1, page.count);
            let with_members = kind == Kind::Group && page.shows.has(attributes::MEMBERS);
            found.skip = 0;
            let total =
                self.look(kind, (&Lookup::All, range), with_members, None, &mut found).await?;
            return Ok(Answer::ok(listed(&found.shown, total, page.start)));
        }
        self.find(kind, page, wanted.as_ref(), &mut found).await?;
        Ok(Answer::ok(listed(&found.shown, found.total, page.start)))
    }

    /// A search among people and groups together.
    pub(super) async fn search(&self, page: &Page) -> Result<Answer, ScimError> {
        let mut found = Found::new(page);
        for kind in [Kind::User, Kind::Group] {
            let wanted = match page.filter.as_deref().map(|text| Wanted::parse(kind, text)) {
                None => None,
                Some(Ok(wanted)) => Some(wanted),
                // An attribute that the other kind may have: nothing of this one fits.
                Some(Err(error)) if error.detail.starts_with("there is no attribute") => continue,
                Some(Err(error)) => return Err(error),
            };
            self.find(kind, page, wanted.as_ref(), &mut found).await?;
        }
        Ok(Answer::ok(listed(&found.shown, found.total, page.start)))
    }

    /// Finds what fits, some at a time: only the page is kept.
    async fn find(
        &self,
        kind: Kind,
        page: &Page,
        wanted: Option<&Wanted>,
        found: &mut Found<'_>,
    ) -> Result<(), ScimError> {
        let with_members = kind == Kind::Group
            && (page.shows.has(attributes::MEMBERS)
                || wanted.is_some_and(Wanted::asks_for_members));
        let key = wanted.and_then(Wanted::key);
        let normal;
        let lookup = match &key {
            None => Lookup::All,
            // No id and no name has it, and a database may not take it.
            Some(Key::Id(text) | Key::External(text) | Key::Name(text)) if text.contains('\0') => {
                return Ok(());
            }
            Some(Key::Id(id)) => Lookup::Id(id),
            Some(Key::External(id)) => Lookup::External(id),
            Some(Key::Name(name)) => {
                normal = normal_username(name);
                Lookup::Name(&normal)
            }
        };
        let mut offset = 0;
        loop {
            let range = (offset, LARGEST_PAGE);
            let total = self.look(kind, (&lookup, range), with_members, wanted, found).await?;
            if total > MOST_LOOKED_AT {
                return Err(ScimError::too_many(format!(
                    "this filter would look at more than {MOST_LOOKED_AT} resources: ask for `userName eq`, \
                     `externalId eq` or `id eq`, a group by `displayName eq`"
                )));
            }
            offset += LARGEST_PAGE;
            if offset >= total {
                return Ok(());
            }
        }
    }

    /// Looks at some resources, and keeps those that fit and are of the page. Returns how many there
    /// are to look at.
    async fn look(
        &self,
        kind: Kind,
        (lookup, range): (&Lookup<'_>, (i64, i64)),
        with_members: bool,
        wanted: Option<&Wanted>,
        found: &mut Found<'_>,
    ) -> Result<i64, ScimError> {
        let store = &self.idp.0.authority.store;
        let upstream = self.upstream.name.as_str();
        match kind {
            Kind::User => {
                let (total, people) = store
                    .provisioned_people(upstream, *lookup, range)
                    .await
                    .map_err(|error| broken(&error))?;
                for one in &people {
                    found.take(person::shown(one, &self.base), wanted);
                }
                Ok(total)
            }
            Kind::Group => {
                let (total, groups) = store
                    .provisioned_groups(upstream, *lookup, range)
                    .await
                    .map_err(|error| broken(&error))?;
                for group in &groups {
                    let members = self.members(group, with_members).await?;
                    found.members += members.as_ref().map_or(0, Vec::len);
                    found.take(person::shown_group(group, members, &self.base), wanted);
                    if found.members > MOST_LISTED_MEMBERS && !found.shown.is_empty() {
                        return Err(ScimError::too_many(format!(
                            "these groups have more than {MOST_LISTED_MEMBERS} members: add \
                             `excludedAttributes=members`, or ask for fewer groups by `count`"
                        )));
                    }
                }
                Ok(total)
            }
        }
    }

    async fn user(&self, id: &str) -> Result<ProvisionedPerson, ScimError> {
        let found = self.idp.0.authority.store.provisioned_people(
            &self.upstream.name,
            Lookup::Id(id),
            (0, 1),
        );
        let (_, mut people) = found.await.map_err(|error| broken(&error))?;
        people.pop().ok_or_else(ScimError::missing)
    }

    /// An answer with one resource, or that it is the one the provisioner has.
    pub(super) fn one(&self, status: StatusCode, resource: Value) -> Result<Answer, ScimError> {
        if let Some(held) = self.if_none_match.as_deref().filter(|_| status == StatusCode::OK)
            && self.method == axum::http::Method::GET
            && is_version(Some(held), &resource).is_ok()
        {
            return Ok(Answer::empty(StatusCode::NOT_MODIFIED));
        }
        let mut answer = Answer::with(status, resource);
        let shows = self.query_shows()?;
        answer.body = answer.body.map(|resource| shows.of_resource(resource));
        Ok(answer)
    }

    pub(super) async fn show_user(&self, id: &str) -> Result<Answer, ScimError> {
        let person = self.user(id).await?;
        self.one(StatusCode::OK, person::shown(&person, &self.base))
    }

    pub(super) async fn add_user(&self, body: &Value) -> Result<Answer, ScimError> {
        let held = attributes::read(Kind::User, body)?;
        self.query_shows()?;
        let authority = &self.idp.0.authority;
        let now = authority.now();
        let mut new = person::new(&authority.context.entropy.id());
        person::write(&held, &self.upstream, &mut new)?;
        (new.created_at, new.changed_at) = (now, now);
        let added = authority.store.add_provisioned(&self.by, &new, now).await;
        added.map_err(|error| broken(&error))?.map_err(|error| not_made(never(error)))?;
        self.one(StatusCode::CREATED, person::shown(&new, &self.base))
    }

    /// Changes a person by `change`, which gets what is kept of them.
    async fn change_user(
        &self,
        id: &str,
        if_match: Option<&str>,
        change: impl FnOnce(Map<String, Value>) -> Result<Map<String, Value>, ScimError> + Send,
    ) -> Result<Answer, ScimError> {
        let shows = self.query_shows()?;
        let authority = &self.idp.0.authority;
        let set = |person: &mut ProvisionedPerson| {
            is_version(if_match, &person::shown(person, &self.base))?;
            let held = change(person::held(person))?;
            person::write(&held, &self.upstream, person)
        };
        let changed = authority.store.change_provisioned(&self.by, id, set, authority.now()).await;
        let person = changed.map_err(|error| broken(&error))?.map_err(not_made)?;
        let mut answer = Answer::ok(person::shown(&person, &self.base));
        answer.body = answer.body.map(|resource| shows.of_resource(resource));
        Ok(answer)
    }

    pub(super) async fn replace_user(
        &self,
        id: &str,
        body: &Value,
        if_match: Option<&str>,
    ) -> Result<Answer, ScimError> {
        let new = attributes::read(Kind::User, body)?;
        self.change_user(id, if_match, |_| Ok(new)).await
    }

    pub(super) async fn patch_user(
        &self,
        id: &str,
        body: &Value,
        if_match: Option<&str>,
    ) -> Result<Answer, ScimError> {
        let patch = Patch::read(Kind::User, body)?;
        let change = |mut held: Map<String, Value>| {
            patch.apply(id, &mut held)?;
            if !held.contains_key("userName") {
                return Err(ScimError::value("`userName` cannot be removed"));
            }
            Ok(held)
        };
        self.change_user(id, if_match, change).await
    }

    pub(super) async fn remove_user(
        &self,
        id: &str,
        if_match: Option<&str>,
    ) -> Result<Answer, ScimError> {
        let authority = &self.idp.0.authority;
        let stands =
            |person: &ProvisionedPerson| is_version(if_match, &person::shown(person, &self.base));
        let removed =
            authority.store.remove_provisioned(&self.by, id, stands, authority.now()).await;
        removed.map_err(|error| broken(&error))?.map_err(not_made)?;
        Ok(Answer::empty(StatusCode::NO_CONTENT))
    }
}
