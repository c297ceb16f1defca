//! Administration of the IdP: people, groups, clients, authorization servers, resources,
//! connections, audit, explain.

use super::{
    AdminError,
    acting::{Acting, Administration},
    administrators,
    ground::Ground,
    ground::MakeKey,
    keys::key_routes,
    records::{AuditQuery, Body, ClientChange, NewClient, Overlap, Switch, check_email, view},
};
use axum::{
    Json, Router,
    extract::{Path, Query},
    http::StatusCode,
    routing::{get, post},
};
use passavant_authority::passwords::{Passwords, normal_username};
use passavant_proto::{
    event::{Act, Detail},
    formerly,
    identifier::{Issuer, Resource},
    oauth::client::{Client, ClientAuthentication, ENROLLED_CLIENT},
    oauth::client_document::INSTALLATIONS,
    oauth::scope::Scopes,
    oidc::authentication::{ACR_PASSWORD, Authentication},
    policy::{
        Conditions, Connection, Person, Question, RegisteredResource, ResourceAuthorizationServer,
        Subject,
    },
    secret::Secret,
    time::{Clock, Entropy},
};
use passavant_store::{Group, Record, Store, User};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

/// Administration of one IdP.
#[derive(Clone)]
pub struct IdpAdmin(Arc<IdpDesk>);

struct IdpDesk {
    issuer: Issuer,
    ground: Ground,
    passwords: Passwords,
    /// Whether public clients may exchange, which explanations have to know.
    public_exchange: bool,
}

impl Administration for IdpAdmin {
    fn ground(&self) -> &Ground {
        &self.0.ground
    }
}

type Answer = Result<Json<Value>, AdminError>;

impl IdpAdmin {
    /// Administration of the IdP `issuer` on `store`.
    pub fn new(
        issuer: Issuer,
        store: Store,
        clock: Clock,
        entropy: Entropy,
        passwords: Passwords,
    ) -> Self {
        let ground = Ground { store, clock, entropy, make_key: None };
        Self(Arc::new(IdpDesk { issuer, ground, passwords, public_exchange: false }))
    }

    /// With keys that can be rotated.
    #[must_use]
    pub fn keys(self, make: MakeKey) -> Self {
        let ground = Ground { make_key: Some(make), ..self.0.ground.clone() };
        self.with(ground, self.0.public_exchange)
    }

    /// Of an IdP where public clients may exchange.
    #[must_use]
    pub fn public_exchange(self, allowed: bool) -> Self {
        self.with(self.0.ground.clone(), allowed)
    }

    fn with(&self, ground: Ground, public_exchange: bool) -> Self {
        let (issuer, passwords) = (self.0.issuer.clone(), self.0.passwords.clone());
        Self(Arc::new(IdpDesk { issuer, ground, passwords, public_exchange }))
    }

    pub(super) fn issuer(&self) -> &Issuer {
        &self.0.issuer
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.ground.store
    }

    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/users", get(list::<User>).post(create_user))
            .route("/users/{id}", get(show_user).delete(delete_user))
            .route("/users/{id}/disable", post(disable_user))
            .route("/users/{id}/enable", post(enable_user))
            .route("/users/{id}/password", post(set_password))
            .route("/users/{id}/groups", post(set_groups))
            .route("/groups", get(list::<Group>).post(create_group))
            .route("/groups/{id}", axum::routing::delete(delete_group))
            .route("/clients", get(list::<Client>).post(create_client))
            .route("/clients/change", post(change_client))
            .route("/clients/{id}", axum::routing::delete(delete::<Client>))
            .route("/clients/{id}/disable", post(disable::<Client>))
            .route("/clients/{id}/enable", post(enable::<Client>))
            .route("/clients/{id}/secret", post(rotate_secret))
            .route("/authorization-servers", get(list::<ResourceAuthorizationServer>))
            .route("/authorization-servers", post(create_server))
            .route(
                "/authorization-servers/delete",
                post(delete_named::<ResourceAuthorizationServer>),
            )
            .route("/resources", get(list::<RegisteredResource>).post(create_resource))
            .route("/resources/delete", post(delete_named::<RegisteredResource>))
            .route("/connections", get(list::<Connection>).post(create_connection))
            .route("/connections/{id}", axum::routing::delete(delete::<Connection>))
            .route("/connections/{id}/disable", post(disable::<Connection>))
            .route("/connections/{id}/enable", post(enable::<Connection>))
            .route("/installations", get(installations))
            .route("/installations/{id}", axum::routing::delete(revoke_installation))
            .route("/audit", get(audit))
            .route("/explain", post(explain))
            .with_state(self.clone())
            .merge(key_routes(self.0.ground.clone()))
            .merge(administrators::routes(self.0.ground.clone()))
    }
}

async fn list<R: Record>(idp: Acting<IdpAdmin>) -> Answer {
    idp.desk.list::<R>().await
}

async fn delete<R: Record>(
    idp: Acting<IdpAdmin>,
    Path(id): Path<String>,
) -> Result<StatusCode, AdminError> {
    idp.desk.delete::<R>(&id).await
}

/// A record whose id is a URL, which does not go into a path.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    id: String,
}

async fn delete_named<R: Record>(
    idp: Acting<IdpAdmin>,
    Body(named): Body<Named>,
) -> Result<StatusCode, AdminError> {
    let id = match Resource::parse(&named.id) {
        Ok(resource) if R::KIND == RegisteredResource::KIND => resource.normalized().to_owned(),
        _ => named.id,
    };
    idp.desk.delete::<R>(&id).await
}

async fn disable<R: Switch>(idp: Acting<IdpAdmin>, Path(id): Path<String>) -> Answer {
    idp.desk.change::<R>(&id, Act::Disable, |record| record.switch(true)).await
}

async fn enable<R: Switch>(idp: Acting<IdpAdmin>, Path(id): Path<String>) -> Answer {
    idp.desk.change::<R>(&id, Act::Enable, |record| record.switch(false)).await
}

async fn create_client(idp: Acting<IdpAdmin>, Body(new): Body<NewClient>) -> Answer {
    idp.desk.create_client(new, true).await
}

async fn change_client(idp: Acting<IdpAdmin>, Body(change): Body<ClientChange>) -> Answer {
    idp.desk.change_client(change).await
}

async fn rotate_secret(
    idp: Acting<IdpAdmin>,
    Path(id): Path<String>,
    Body(overlap): Body<Overlap>,
) -> Answer {
    idp.desk.rotate_secret(&id, overlap.overlap).await
}

/// Whose installations.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    user: Option<String>,
}

async fn installations(idp: Acting<IdpAdmin>, Query(whose): Query<Whose>) -> Answer {
    let store = &idp.desk.store;
    let of = match &whose.user {
        Some(name) => Some(user_id(&idp, name).await?),
        None => None,
    };
    let mut list = Vec::new();
    for held in store.installations(of.as_deref()).await? {
        let user = store.usable::<User>(&held.user_id).await?;
        list.push(json!({
            "id": held.id,
            "user": user.map_or(held.user_id, |user| user.username),
            "device": held.device,
            "enrolled_at": held.enrolled_at,
            "used_at": held.used_at,
        }));
    }
    list.extend(idp.desk.unreadable("installation"));
    Ok(Json(list.into()))
}

async fn revoke_installation(
    idp: Acting<IdpAdmin>,
    Path(id): Path<String>,
) -> Result<StatusCode, AdminError> {
    let desk = &idp.desk;
    let client = idp.of.0.issuer.endpoint(&format!("{INSTALLATIONS}/{id}"));
    let event = desk.act(Act::Revoke, "installation").with(Detail::Record, &id);
    if desk.store.revoke_installation(&id, None, &client, event, desk.now()).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(AdminError::missing("installation", &id))
    }
}

async fn audit(idp: Acting<IdpAdmin>, Query(query): Query<AuditQuery>) -> Answer {
    idp.desk.audit(query).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    username: String,
    email: Option<String>,
    #[serde(default)]
    email_verified: bool,
    display_name: Option<String>,
    given_name: Option<String>,
    family_name: Option<String>,
    #[serde(default)]
    groups: BTreeSet<String>,
    password: Option<String>,
}

async fn create_user(idp: Acting<IdpAdmin>, Body(new): Body<NewUser>) -> Answer {
    let username = normal_username(&new.username);
    if username.is_empty() || username.len() > 256 || username.chars().any(char::is_control) {
        return Err(AdminError::invalid(
            "`username` must have 1 to 256 printable characters",
            "an e-mail address or a short name is usual",
        ));
    }
    if let Some(email) = &new.email {
        check_email(email)?;
    }
    groups_exist(&idp, &new.groups).await?;
    let password_hash = match new.password {
        None => None,
        Some(password) => Some(hash(&idp, &Secret::new(password)).await?),
    };
    let user = User {
        id: idp.desk.entropy.id(),
        username,
        email: new.email,
        email_verified: new.email_verified,
        display_name: new.display_name,
        given_name: new.given_name,
        family_name: new.family_name,
        groups: new.groups,
        password_hash,
        disabled: false,
    };
    idp.desk.create(&user).await?;
    Ok(Json(view(&user)))
}

async fn hash(idp: &Acting<IdpAdmin>, password: &Secret) -> Result<String, AdminError> {
    idp.of.0.passwords.hash(password).await.map_err(|error| {
        AdminError::invalid(format!("`password`: {error}"), "choose a longer passphrase")
    })
}

async fn groups_exist(idp: &Acting<IdpAdmin>, groups: &BTreeSet<String>) -> Result<(), AdminError> {
    for name in groups {
        if idp.desk.store.by_id::<Group>(name).await?.is_none() {
            return Err(AdminError::invalid(
                format!("`groups`: there is no group `{name}`"),
                format!("make it with `passavant admin group add {name}`"),
            ));
        }
    }
    Ok(())
}

/// A user by id or user name.
async fn user(idp: &Acting<IdpAdmin>, id: &str) -> Result<User, AdminError> {
    let store = &idp.desk.store;
    let found = match store.by_id::<User>(id).await? {
        Some(user) => Some(user),
        None => store.by_name::<User>(&normal_username(id)).await?,
    };
    found.ok_or_else(|| AdminError::missing(User::KIND, id))
}

async fn show_user(idp: Acting<IdpAdmin>, Path(id): Path<String>) -> Answer {
    Ok(Json(view(&user(&idp, &id).await?)))
}

/// The id of a user by id or user name, whether or not their record can be read.
async fn user_id(idp: &Acting<IdpAdmin>, id: &str) -> Result<String, AdminError> {
    let found = idp.desk.store.id_of::<User>(id, &normal_username(id)).await?;
    found.ok_or_else(|| AdminError::missing(User::KIND, id))
}

/// Changes a user, and ends what they had.
async fn cut_off(
    idp: &Acting<IdpAdmin>,
    id: &str,
    act: Act,
    change: impl FnOnce(&mut User) + Send,
    new_password: bool,
) -> Answer {
    let desk = &idp.desk;
    let event = desk.event::<User>(act, id).person(id);
    let changed = desk.store.cut_off_user(id, change, new_password, event, desk.now()).await?;
    changed.map(|user| Json(view(&user))).ok_or_else(|| AdminError::missing(User::KIND, id))
}

async fn disable_user(idp: Acting<IdpAdmin>, Path(id): Path<String>) -> Answer {
    let id = user_id(&idp, &id).await?;
    cut_off(&idp, &id, Act::Disable, |user| user.disabled = true, false).await
}

async fn enable_user(idp: Acting<IdpAdmin>, Path(id): Path<String>) -> Answer {
    let id = user_id(&idp, &id).await?;
    idp.desk.change::<User>(&id, Act::Enable, |user| user.disabled = false).await
}

async fn delete_user(
    idp: Acting<IdpAdmin>,
    Path(id): Path<String>,
) -> Result<StatusCode, AdminError> {
    let id = user_id(&idp, &id).await?;
    let desk = &idp.desk;
    let event = desk.event::<User>(Act::Delete, &id).person(&id);
    if desk.store.delete_user(&id, event, desk.now()).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(AdminError::missing(User::KIND, &id))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    password: String,
}

async fn set_password(
    idp: Acting<IdpAdmin>,
    Path(id): Path<String>,
    Body(new): Body<NewPassword>,
) -> Answer {
    let id = user_id(&idp, &id).await?;
    let hash = hash(&idp, &Secret::new(new.password)).await?;
    let set = |user: &mut User| user.password_hash = Some(hash);
    cut_off(&idp, &id, Act::SetPassword, set, true).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Memberships {
    groups: BTreeSet<String>,
}

async fn set_groups(
    idp: Acting<IdpAdmin>,
    Path(id): Path<String>,
    Body(new): Body<Memberships>,
) -> Answer {
    groups_exist(&idp, &new.groups).await?;
    let id = user_id(&idp, &id).await?;
    idp.desk.change::<User>(&id, Act::SetGroups, |user| user.groups = new.groups).await
}

async fn create_group(idp: Acting<IdpAdmin>, Body(group): Body<Group>) -> Answer {
    if group.name.trim() != group.name || group.name.is_empty() || group.name.len() > 256 {
        return Err(AdminError::invalid(
            "`name` must have 1 to 256 characters, none of them a space at either end",
            "for instance: engineering",
        ));
    }
    idp.desk.create(&group).await?;
    Ok(Json(view(&group)))
}

async fn delete_group(
    idp: Acting<IdpAdmin>,
    Path(name): Path<String>,
) -> Result<StatusCode, AdminError> {
    let event = idp.desk.event::<Group>(Act::Delete, &name);
    if idp.desk.store.delete_group(&name, event).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(AdminError::missing(Group::KIND, &name))
    }
}

async fn create_server(
    idp: Acting<IdpAdmin>,
    Body(server): Body<ResourceAuthorizationServer>,
) -> Answer {
    if idp.of.0.issuer.is_spelled(server.issuer.as_str()) {
        return Err(AdminError::invalid(
            "`issuer` is this identity provider's own",
            "an authorization server of a resource has an issuer of its own",
        ));
    }
    for alias in &server.aliases {
        let taken = idp.of.0.issuer.is_spelled(alias)
            || idp.desk.store.by_id::<ResourceAuthorizationServer>(alias).await?.is_some();
        if taken {
            return Err(AdminError::invalid(
                format!("`aliases`: `{alias}` is another party's issuer"),
                "an alias names this authorization server alone",
            ));
        }
    }
    let chosen = server.id_jag_signing_alg;
    idp.desk.check_signing_alg("id_jag_signing_alg", chosen).await?;
    idp.desk.create(&server).await?;
    Ok(Json(view(&server)))
}

async fn create_resource(
    idp: Acting<IdpAdmin>,
    Body(resource): Body<RegisteredResource>,
) -> Answer {
    let issuer = resource.authorization_server.as_str();
    if idp.desk.store.by_id::<ResourceAuthorizationServer>(issuer).await?.is_none() {
        return Err(AdminError::invalid(
            format!("`authorization_server`: `{issuer}` is not registered here"),
            "register the authorization server first; its issuer has to match byte for byte, mind \
             a trailing slash",
        ));
    }
    idp.desk.create(&resource).await?;
    Ok(Json(view(&resource)))
}

/// A connection as an administrator writes it: people by user name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewConnection {
    id: String,
    idp_client_id: String,
    audience: Issuer,
    ras_client_id: Option<String>,
    resources: Vec<Resource>,
    #[serde(default)]
    scopes: Scopes,
    #[serde(default)]
    everyone: bool,
    #[serde(default)]
    groups: BTreeSet<String>,
    #[serde(default)]
    users: BTreeSet<String>,
    #[serde(default)]
    conditions: Conditions,
}

async fn create_connection(idp: Acting<IdpAdmin>, Body(new): Body<NewConnection>) -> Answer {
    let new =
        NewConnection { idp_client_id: formerly::current(&new.idp_client_id).to_owned(), ..new };
    let store = &idp.desk.store;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if new.id.is_empty() || new.id.len() > 128 || !new.id.bytes().all(plain) {
        return Err(AdminError::invalid(
            format!("`id`: `{}` cannot name a connection", new.id),
            "use letters, digits and - _ .",
        ));
    }
    let enrolled = new.idp_client_id == ENROLLED_CLIENT;
    if !enrolled && new.ras_client_id.is_none() {
        return Err(AdminError::invalid(
            "`ras_client_id` is missing",
            format!(
                "name the client's id at {}; only `{ENROLLED_CLIENT}` can do without, whose \
                 installations bring ids of their own",
                new.audience
            ),
        ));
    }
    if !enrolled && store.by_id::<Client>(&new.idp_client_id).await?.is_none() {
        return Err(AdminError::invalid(
            format!("`idp_client_id`: there is no client `{}` here", new.idp_client_id),
            "this is the client's id at this identity provider, not the one at the resource's \
             authorization server",
        ));
    }
    // What no sign-in here can ever meet would send people round in circles.
    if let Some(unknown) = new.conditions.acr_values.iter().find(|acr| *acr != ACR_PASSWORD) {
        return Err(AdminError::invalid(
            format!("`conditions.acr_values`: no sign-in here is of class `{unknown}`"),
            format!("the one class there is so far is `{ACR_PASSWORD}`"),
        ));
    }
    if new.resources.is_empty() {
        return Err(AdminError::invalid(
            "`resources` is empty",
            "name at least one MCP server by its resource identifier",
        ));
    }
    for resource in &new.resources {
        let found = store.by_id::<RegisteredResource>(resource.normalized()).await?;
        let governed = found.is_some_and(|r| r.authorization_server == new.audience);
        if !governed {
            return Err(AdminError::invalid(
                format!(
                    "`resources`: `{resource}` is not registered as governed by `{}`",
                    new.audience
                ),
                "`audience` is the authorization server's issuer and `resources` are MCP servers; \
                 the two are easily swapped",
            ));
        }
    }
    groups_exist(&idp, &new.groups).await?;
    let mut subjects: Vec<Subject> = new.groups.into_iter().map(Subject::Group).collect();
    for name in &new.users {
        subjects.push(Subject::User(user_id(&idp, name).await?));
    }
    if new.everyone {
        subjects.push(Subject::Everyone);
    }
    let connection = Connection {
        id: new.id,
        idp_client_id: new.idp_client_id,
        audience: new.audience,
        ras_client_id: new.ras_client_id,
        resources: new.resources,
        scopes: new.scopes,
        subjects,
        conditions: new.conditions,
        disabled: false,
    };
    idp.desk.create(&connection).await?;
    Ok(Json(view(&connection)))
}

/// Would this person, through this client, get these scopes on that MCP server?
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Explain {
    user: String,
    client: String,
    resource: Resource,
    scopes: Option<Scopes>,
    /// How long ago the person signed in, in seconds.
    #[serde(default)]
    signed_in_ago: i64,
}

async fn explain(idp: Acting<IdpAdmin>, Body(asked): Body<Explain>) -> Answer {
    let desk = &idp.desk;
    let store = &desk.store;
    let user = user(&idp, &asked.user).await?;
    // An installation is whatever `passavant` is.
    let installations = idp.of.0.issuer.endpoint(INSTALLATIONS);
    let enrolled =
        asked.client == ENROLLED_CLIENT || asked.client.starts_with(&format!("{installations}/"));
    let client =
        if enrolled { Client::enrolment() } else { desk.find::<Client>(&asked.client).await? };
    let registered = store.by_id::<RegisteredResource>(asked.resource.normalized()).await?;
    let Some(registered) = registered else {
        return Err(AdminError::missing("resource", asked.resource.as_str()));
    };
    let refused = |reason: &str, rule: &str| {
        let text = format!("refused: {reason}");
        Json(json!({"granted": false, "reason": reason, "rule": rule, "text": text}))
    };
    if user.disabled {
        return Ok(refused("subject.not_live", "the person is switched off"));
    }
    if client.disabled {
        return Ok(refused("client.unknown", "the client is switched off"));
    }
    let is_public = client.authentication == ClientAuthentication::Public;
    if is_public && !enrolled && !idp.of.0.public_exchange {
        return Ok(refused("client.public", "public clients get no ID-JAG here"));
    }
    if let Some(id) = asked.client.strip_prefix(&format!("{installations}/")) {
        // One installation, which is one person's and may be gone.
        match store.installation(id).await? {
            None => {
                return Ok(refused(
                    "client.unknown",
                    "there is no such installation, or it was revoked",
                ));
            }
            Some((held, _)) if held.user_id != user.id => {
                return Ok(refused("subject.not_live", "the installation is another person's"));
            }
            Some(_) => {}
        }
    }
    let policy = store.policy(&idp.of.0.issuer).await?;
    let now = desk.now();
    let authentication = Authentication {
        auth_time: now.plus(-asked.signed_in_ago.max(0)),
        acr: ACR_PASSWORD.to_owned(),
        amr: vec!["pwd".to_owned()],
        issuer: None,
    };
    let resources = [asked.resource];
    let question = Question {
        person: Person { id: &user.id, groups: &user.groups },
        idp_client_id: &client.id,
        document: enrolled.then_some("(the installation's own)"),
        authentication: &authentication,
        audience: registered.authorization_server.as_str(),
        resources: &resources,
        scopes: asked.scopes.as_ref(),
        now,
    };
    Ok(match policy.decide(&question) {
        Ok(permit) => {
            let wanted = asked.scopes.iter().flat_map(Scopes::iter);
            let missing: Scopes = wanted.filter(|scope| !permit.scopes.contains(scope)).collect();
            let mut text = format!("granted by {}: {}", permit.rules.join(", "), permit.scopes);
            if !missing.is_empty() {
                text.push_str(&format!("; not granted: {missing}"));
            }
            Json(json!({
                "granted": true,
                "audience": permit.audience,
                "ras_client_id": permit.ras_client_id,
                "scopes": permit.scopes,
                "not_granted": missing,
                "rule": permit.rules.join(", "),
                "text": text,
            }))
        }
        Err(denial) => {
            // What the person is told, if the catalog tells them anything.
            let (document, person) = (question.document, question.person);
            let entries = policy.catalog(person, &client.id, document, &authentication, now);
            let entry = entries.iter().find(|e| e.resource.resource == resources[0]);
            let why = entry.filter(|e| e.decision.is_err()).map(|e| e.explanation(&denial));
            let reason = denial.reason.word();
            match why {
                Some(why) => {
                    let text = format!("refused: {why} ({reason})");
                    Json(
                        json!({"granted": false, "reason": reason, "rule": denial.rule, "text": text}),
                    )
                }
                None => refused(reason, &denial.rule),
            }
        }
    })
}
