//! What the routes of both roles share: reading bodies, and list, show, delete, switch for any kind
//! of record.

use super::{AdminError, Problem, acting::Desk};
use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, Request},
    http::StatusCode,
    response::IntoResponse,
};
use passavant_proto::{
    event::{Act, Detail},
    formerly,
    identifier::Resource,
    jose::jwk::{Algorithm, KeySet},
    oauth::client::{
        Client, ClientAuthentication, ClientKeys, ENROLLED_CLIENT, GovernedResource, SecretHash,
        is_client_id,
    },
    oauth::redirect_uri,
    policy::Connection,
    xaa::trust::{Account, ClientHost, TrustedIssuer},
};
use passavant_store::{AuditEvent, AuditFilter, Outcome, Put, Record};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// An address that tokens may carry: accounts are found by it.
pub(super) fn check_email(email: &str) -> Result<(), AdminError> {
    let plain =
        |part: &str| !part.is_empty() && !part.chars().any(|c| c.is_control() || c.is_whitespace());
    let is_address = email.len() <= 254
        && email.rsplit_once('@').is_some_and(|(local, domain)| plain(local) && plain(domain));
    if is_address {
        return Ok(());
    }
    Err(AdminError::invalid("`email` is not an address", "for instance a@acme.example"))
}

/// A JSON body; a mistake is named with its path.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = axum::response::Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let bytes =
            Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let refused = |text: String| (StatusCode::BAD_REQUEST, Json(Problem::new(text)));
        // Stored records are read tolerantly, requests are not: what nobody would look at is a mistake.
        let mut unknown = None;
        let mut note = |path: serde_ignored::Path<'_>| {
            unknown.get_or_insert_with(|| path.to_string());
        };
        let mut track = serde_path_to_error::Track::new();
        let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
        let read = T::deserialize(serde_ignored::Deserializer::new(tracked, &mut note));
        let value =
            read.map_err(|error| refused(format!("`{}`: {error}", track.path())).into_response())?;
        if let Some(unknown) = unknown {
            return Err(refused(format!("`{unknown}`: there is no such member")).into_response());
        }
        let ended = json.end();
        ended.map_err(|error| refused(format!("after the body: {error}")).into_response())?;
        Ok(Self(value))
    }
}

impl Desk {
    /// The event of an act on a record.
    pub(super) fn event<R: Record>(&self, act: Act, id: &str) -> AuditEvent {
        self.act(act, R::KIND).with(Detail::Record, id)
    }

    /// Every record, without secrets.
    pub(super) async fn list<R: Record>(&self) -> Result<Json<Value>, AdminError> {
        let records = self.store.all::<R>().await?;
        let mut shown: Vec<Value> = records.iter().map(view).collect();
        shown.extend(self.unreadable(R::KIND));
        Ok(Json(shown.into()))
    }

    /// What this version cannot read of a kind that was just listed: it counts as not there, and can be deleted.
    pub(super) fn unreadable(&self, kind: &str) -> Vec<Value> {
        let all = self.store.unreadable().into_iter().filter(|(of, ..)| *of == kind);
        all.map(|(_, id, why)| json!({"id": id, "name": id, "cannot_be_read": why})).collect()
    }

    /// A check that all records of a kind have to pass is no check while some cannot be read.
    pub(super) async fn all_readable<R: Record>(&self) -> Result<Vec<R>, AdminError> {
        let held = self.store.held::<R>().await?;
        match held.unreadable.first() {
            None => Ok(held.records),
            Some((id, _)) => Err(AdminError::conflict(
                format!(
                    "the {} `{id}` cannot be read, so nobody knows whether it stands against this",
                    R::KIND
                ),
                "delete it, or start the version that wrote it",
            )),
        }
    }

    /// Adds a record.
    pub(super) async fn create<R: Record>(&self, record: &R) -> Result<(), AdminError> {
        self.add(record, self.event::<R>(Act::Create, &record.id())).await
    }

    /// The same, with more to say of it.
    pub(super) async fn add<R: Record>(
        &self,
        record: &R,
        event: AuditEvent,
    ) -> Result<(), AdminError> {
        self.store.put(record, Put::Create, event).await?;
        Ok(())
    }

    /// One record by id.
    pub(super) async fn find<R: Record>(&self, id: &str) -> Result<R, AdminError> {
        self.store.by_id(id).await?.ok_or_else(|| AdminError::missing(R::KIND, id))
    }

    /// Takes a record away.
    pub(super) async fn delete<R: Record>(&self, id: &str) -> Result<StatusCode, AdminError> {
        let event = self.event::<R>(Act::Delete, id);
        if self.store.delete::<R>(id, event).await? {
            Ok(StatusCode::NO_CONTENT)
        } else {
            Err(AdminError::missing(R::KIND, id))
        }
    }

    /// Changes a record that is there.
    pub(super) async fn change<R: Record>(
        &self,
        id: &str,
        act: Act,
        change: impl FnOnce(&mut R) + Send,
    ) -> Result<Json<Value>, AdminError> {
        Ok(Json(view(&self.change_record(id, act, change).await?)))
    }

    /// The same, for whoever shows it in another way.
    pub(super) async fn change_record<R: Record>(
        &self,
        id: &str,
        act: Act,
        change: impl FnOnce(&mut R) + Send,
    ) -> Result<R, AdminError> {
        let event = self.event::<R>(act, id);
        let changed = self.store.update(id, change, event).await?;
        changed.ok_or_else(|| AdminError::missing(R::KIND, id))
    }

    /// The audit trail.
    pub(super) async fn audit(&self, query: AuditQuery) -> Result<Json<Value>, AdminError> {
        let filter = AuditFilter {
            person: query.person,
            client: query.client,
            outcome: query.outcome,
            before: query.before,
            limit: query.limit.unwrap_or(50),
        };
        let rows = self.store.audit(&filter).await?;
        Ok(Json(json!(rows)))
    }

    /// Registers a client; its secret is in the answer, and never again anywhere.
    pub(super) async fn create_client(
        &self,
        new: NewClient,
        may_be_public: bool,
    ) -> Result<Json<Value>, AdminError> {
        let id = new.id.clone().unwrap_or_else(|| self.entropy.id());
        if formerly::current(&id) == ENROLLED_CLIENT {
            return Err(AdminError::invalid(
                format!("`id`: `{id}` is the software that people enrol themselves"),
                "choose another id; connections may name `passavant` without registering it",
            ));
        }
        if !is_client_id(&id) {
            return Err(AdminError::invalid(
                format!("`id`: `{id}` cannot be a client id"),
                "use 1 to 128 letters, digits and - _ . ~",
            ));
        }
        check_uris("redirect_uris", &new.redirect_uris, new.public)?;
        check_uris("post_logout_redirect_uris", &new.post_logout_redirect_uris, false)?;
        let (authentication, secret) = self.authentication(&new, may_be_public)?;
        if new.pkce_optional && authentication == ClientAuthentication::Public {
            return Err(no_optional_pkce());
        }
        let chosen = new.id_token_signed_response_alg;
        self.check_signing_alg("id_token_signed_response_alg", chosen).await?;
        let client = Client {
            id,
            name: new.name,
            authentication,
            redirect_uris: new.redirect_uris,
            post_logout_redirect_uris: new.post_logout_redirect_uris,
            id_token_lifetime: new.id_token_lifetime,
            id_token_signed_response_alg: new.id_token_signed_response_alg,
            pkce_optional: new.pkce_optional,
            device_grant: new.device_grant,
            dpop_bound_access_tokens: new.dpop_bound_access_tokens,
            require_pushed_authorization_requests: new.require_pushed_authorization_requests,
            resources: new.resources,
            software: new.software,
            registered: None,
            disabled: false,
        };
        self.create(&client).await?;
        let mut answer = view(&client);
        if let Some(secret) = secret {
            answer["client_secret"] = secret.expose().into();
        }
        Ok(Json(answer))
    }

    /// Changes what a client is known by. What it proves itself with, and what it may reach, stay.
    pub(super) async fn change_client(
        &self,
        change: ClientChange,
    ) -> Result<Json<Value>, AdminError> {
        let held = self.find::<Client>(&change.id).await?;
        let public = held.authentication == ClientAuthentication::Public;
        for (field, uris, public) in [
            ("redirect_uris", &change.redirect_uris, public),
            ("post_logout_redirect_uris", &change.post_logout_redirect_uris, false),
        ] {
            check_uris(field, uris.as_deref().unwrap_or_default(), public)?;
        }
        let chosen = change.id_token_signed_response_alg;
        self.check_signing_alg("id_token_signed_response_alg", chosen).await?;
        if change.pkce_optional == Some(true) && held.authentication == ClientAuthentication::Public
        {
            return Err(no_optional_pkce());
        }
        let id = change.id.clone();
        let set = |client: &mut Client| {
            fn put<T>(place: &mut T, value: Option<T>) {
                if let Some(value) = value {
                    *place = value;
                }
            }
            put(&mut client.name, change.name);
            put(&mut client.redirect_uris, change.redirect_uris);
            put(&mut client.post_logout_redirect_uris, change.post_logout_redirect_uris);
            put(&mut client.id_token_lifetime, change.id_token_lifetime.map(Some));
            put(&mut client.id_token_signed_response_alg, chosen.map(Some));
            put(&mut client.pkce_optional, change.pkce_optional);
            put(&mut client.device_grant, change.device_grant);
            put(&mut client.dpop_bound_access_tokens, change.dpop_bound_access_tokens);
            put(
                &mut client.require_pushed_authorization_requests,
                change.require_pushed_authorization_requests,
            );
        };
        self.change::<Client>(&id, Act::Change, set).await
    }

    fn authentication(
        &self,
        new: &NewClient,
        may_be_public: bool,
    ) -> Result<(ClientAuthentication, Option<passavant_proto::secret::Secret>), AdminError> {
        let private_key_jwt = |keys| ClientAuthentication::PrivateKeyJwt {
            keys,
            algorithm: new.algorithm.unwrap_or_default(),
        };
        match (&new.jwks, &new.jwks_uri, new.public) {
            (Some(jwks), None, false) => {
                let algorithm = new.algorithm.unwrap_or_default();
                KeySet::parse(jwks.to_string().as_bytes(), algorithm).map_err(|error| {
                    AdminError::invalid(
                        format!("`jwks`: the key set {error}"),
                        "give the public keys, and `algorithm` if it is not ES256",
                    )
                })?;
                Ok((private_key_jwt(ClientKeys::Inline(jwks.clone())), None))
            }
            (None, Some(url), false) => {
                Resource::parse(url).map_err(|error| {
                    AdminError::invalid(format!("`jwks_uri`: `{url}` {error}"), "use an https URL")
                })?;
                Ok((private_key_jwt(ClientKeys::Fetched(url.clone())), None))
            }
            (None, None, true) if may_be_public => Ok((ClientAuthentication::Public, None)),
            (None, None, true) => Err(AdminError::invalid(
                "`public`: a resource authorization server takes no public clients",
                "leave it out; the client gets a secret",
            )),
            (None, None, false) => {
                let secret = self.entropy.secret();
                let hash = SecretHash { hash: secret.hash(), expires: None };
                Ok((ClientAuthentication::Secret(vec![hash]), Some(secret)))
            }
            _ => Err(AdminError::invalid(
                "`jwks`, `jwks_uri` and `public` exclude each other",
                "a client has exactly one way to authenticate",
            )),
        }
    }

    /// A new secret for a client; the old ones go on working for `overlap` seconds.
    pub(super) async fn rotate_secret(
        &self,
        id: &str,
        overlap: i64,
    ) -> Result<Json<Value>, AdminError> {
        let client = self.find::<Client>(id).await?;
        if !matches!(client.authentication, ClientAuthentication::Secret(_)) {
            return Err(AdminError::invalid(
                format!("client `{id}` has no secret"),
                "only clients that authenticate with a secret have one to rotate",
            ));
        }
        let now = self.now();
        let ends = now.plus(overlap.clamp(0, 30 * 86_400));
        let secret = self.entropy.secret();
        let fresh = SecretHash { hash: secret.hash(), expires: None };
        let rotate = |client: &mut Client| {
            if let ClientAuthentication::Secret(hashes) = &mut client.authentication {
                hashes.retain(|hash| hash.expires.is_none_or(|expires| now < expires));
                for hash in hashes.iter_mut() {
                    hash.expires = Some(hash.expires.map_or(ends, |expires| expires.min(ends)));
                }
                hashes.push(fresh);
            }
        };
        let _ = self.change(id, Act::RotateSecret, rotate).await?;
        Ok(Json(json!({"id": id, "client_secret": secret.expose()})))
    }
}

fn no_optional_pkce() -> AdminError {
    AdminError::invalid(
        "`pkce_optional`: a public client has nothing but PKCE to show that a code is its own",
        "leave it out, or give the client a secret or a key",
    )
}

fn check_uris(field: &str, uris: &[String], public: bool) -> Result<(), AdminError> {
    for uri in uris {
        redirect_uri::check_for(public, uri).map_err(|error| {
            AdminError::invalid(
                format!("`{field}`: `{uri}` {error}"),
                "for a program on this machine use http://127.0.0.1/callback; the port does not matter",
            )
        })?;
    }
    Ok(())
}

/// A record that an administrator can switch off and on.
pub(super) trait Switch: Record {
    fn switch(&mut self, disabled: bool);
}
macro_rules! switch {
    ($($type:ty),*) => {
        $(impl Switch for $type {
            fn switch(&mut self, disabled: bool) {
                self.disabled = disabled;
            }
        })*
    };
}
switch!(Client, Connection, TrustedIssuer, GovernedResource, Account, ClientHost);

/// A client to register.
#[derive(Deserialize)]
#[allow(clippy::struct_excessive_bools)] // as the record has them
#[serde(deny_unknown_fields)]
pub(super) struct NewClient {
    id: Option<String>,
    name: String,
    #[serde(default)]
    redirect_uris: Vec<String>,
    #[serde(default)]
    post_logout_redirect_uris: Vec<String>,
    id_token_lifetime: Option<i64>,
    id_token_signed_response_alg: Option<Algorithm>,
    #[serde(default)]
    pkce_optional: bool,
    #[serde(default)]
    device_grant: bool,
    #[serde(default)]
    dpop_bound_access_tokens: bool,
    #[serde(default)]
    require_pushed_authorization_requests: bool,
    #[serde(default)]
    resources: Vec<Resource>,
    software: Option<String>,
    jwks: Option<Value>,
    jwks_uri: Option<String>,
    algorithm: Option<Algorithm>,
    #[serde(default)]
    public: bool,
}

/// What is to be another about a client; what is left out stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientChange {
    id: String,
    name: Option<String>,
    redirect_uris: Option<Vec<String>>,
    post_logout_redirect_uris: Option<Vec<String>>,
    id_token_lifetime: Option<i64>,
    id_token_signed_response_alg: Option<Algorithm>,
    pkce_optional: Option<bool>,
    device_grant: Option<bool>,
    dpop_bound_access_tokens: Option<bool>,
    require_pushed_authorization_requests: Option<bool>,
}

/// Which audit rows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    person: Option<String>,
    client: Option<String>,
    outcome: Option<Outcome>,
    before: Option<i64>,
    limit: Option<i64>,
}

/// Seconds that old secrets go on working.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Overlap {
    #[serde(default)]
    pub(super) overlap: i64,
}

/// A record as administrators see it: secrets and their hashes are left out.
pub(super) fn view<R: Record>(record: &R) -> Value {
    let mut value = serde_json::to_value(record).unwrap_or_default();
    if let Some(members) = value.as_object_mut() {
        members.remove("password_hash");
        if R::KIND == Client::KIND {
            let method =
                members.remove("authentication").map(|authentication| {
                    match authentication.as_object().and_then(|a| a.keys().next()) {
                        Some(key) if key == "secret" => json!("client_secret"),
                        Some(_) => json!("private_key_jwt"),
                        None => json!("none (public client)"),
                    }
                });
            members.insert("authentication".to_owned(), method.unwrap_or_default());
        }
    }
    value
}
