//! Administration of a RAS: trusted issuers, clients, resources, accounts, audit.

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
use passavant_proto::{
    event::{Act, Detail},
    identifier::{Issuer, Resource},
    oauth::client::{Client, GovernedResource},
    oauth::client_document::is_origin,
    time::{Clock, Entropy},
    xaa::trust::{Account, ClientHost, InteractiveSignIn, SubjectLink, TrustedIssuer},
};
use passavant_store::{Record, Store};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// Administration of one RAS.
#[derive(Clone)]
pub struct RasAdmin(Arc<RasDesk>);

struct RasDesk {
    issuer: Issuer,
    ground: Ground,
}

impl Administration for RasAdmin {
    fn ground(&self) -> &Ground {
        &self.0.ground
    }
}

type Answer = Result<Json<Value>, AdminError>;

impl RasAdmin {
    /// Administration of the RAS `issuer` on `store`.
    pub fn new(issuer: Issuer, store: Store, clock: Clock, entropy: Entropy) -> Self {
        let ground = Ground { store, clock, entropy, make_key: None };
        Self(Arc::new(RasDesk { issuer, ground }))
    }

    /// With keys that can be rotated.
    #[must_use]
    pub fn keys(self, make: MakeKey) -> Self {
        let RasDesk { issuer, ground } = &*self.0;
        let ground = Ground { make_key: Some(make), ..ground.clone() };
        Self(Arc::new(RasDesk { issuer: issuer.clone(), ground }))
    }

    pub(super) fn issuer(&self) -> &Issuer {
        &self.0.issuer
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.ground.store
    }

    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/trusted-issuers", get(list::<TrustedIssuer>).post(create_trust))
            .route("/trusted-issuers/disable", post(disable::<TrustedIssuer>))
            .route("/trusted-issuers/enable", post(enable::<TrustedIssuer>))
            .route("/trusted-issuers/delete", post(delete::<TrustedIssuer>))
            .route("/trusted-issuers/sign-in", post(set_sign_in))
            .route("/clients", get(list::<Client>).post(create_client))
            .route("/clients/change", post(change_client))
            .route("/clients/disable", post(disable::<Client>))
            .route("/clients/enable", post(enable::<Client>))
            .route("/clients/delete", post(delete::<Client>))
            .route("/clients/{id}/secret", post(rotate_secret))
            .route("/client-hosts", get(list::<ClientHost>).post(create_client_host))
            .route("/client-hosts/disable", post(disable::<ClientHost>))
            .route("/client-hosts/enable", post(enable::<ClientHost>))
            .route("/client-hosts/delete", post(delete::<ClientHost>))
            .route("/resources", get(list::<GovernedResource>).post(create_resource))
            .route("/resources/disable", post(disable::<GovernedResource>))
            .route("/resources/enable", post(enable::<GovernedResource>))
            .route("/resources/delete", post(delete::<GovernedResource>))
            .route("/accounts", get(list::<Account>).post(create_account))
            .route("/accounts/delete", post(delete::<Account>))
            .route("/accounts/links", post(links))
            .route("/accounts/unlink", post(unlink))
            .route("/accounts/disable", post(disable::<Account>))
            .route("/accounts/enable", post(enable::<Account>))
            .route("/audit", get(audit))
            .with_state(self.clone())
            .merge(key_routes(self.0.ground.clone()))
            .merge(administrators::routes(self.0.ground.clone()))
    }
}

/// Records here are named in the body: most of their ids are URLs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    id: String,
}

impl Named {
    fn id_of<R: Record>(self) -> String {
        match Resource::parse(&self.id) {
            Ok(resource) if R::KIND == GovernedResource::KIND => resource.normalized().to_owned(),
            _ => self.id,
        }
    }
}

async fn list<R: Record>(ras: Acting<RasAdmin>) -> Answer {
    ras.desk.list::<R>().await
}

async fn disable<R: Switch>(ras: Acting<RasAdmin>, Body(named): Body<Named>) -> Answer {
    ras.desk.change::<R>(&named.id_of::<R>(), Act::Disable, |record| record.switch(true)).await
}

async fn enable<R: Switch>(ras: Acting<RasAdmin>, Body(named): Body<Named>) -> Answer {
    ras.desk.change::<R>(&named.id_of::<R>(), Act::Enable, |record| record.switch(false)).await
}

async fn delete<R: Record>(
    ras: Acting<RasAdmin>,
    Body(named): Body<Named>,
) -> Result<StatusCode, AdminError> {
    ras.desk.delete::<R>(&named.id_of::<R>()).await
}

async fn create_trust(ras: Acting<RasAdmin>, Body(trusted): Body<TrustedIssuer>) -> Answer {
    if ras.of.0.issuer.is_spelled(trusted.issuer.as_str()) {
        return Err(AdminError::invalid(
            "`issuer` is this authorization server's own",
            "name the company's identity provider",
        ));
    }
    check_sign_in(trusted.sign_in.as_ref(), trusted.tenant.as_deref())?;
    check_domains(&ras, trusted.issuer.as_str(), trusted.sign_in.as_ref()).await?;
    if let Some(uri) = &trusted.jwks_uri {
        Resource::parse(uri).map_err(|error| {
            AdminError::invalid(format!("`jwks_uri`: `{uri}` {error}"), "use an https URL")
        })?;
    }
    ras.desk.create(&trusted).await?;
    Ok(Json(view(&trusted)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewSignIn {
    id: String,
    sign_in: Option<InteractiveSignIn>,
}

fn check_sign_in(
    sign_in: Option<&InteractiveSignIn>,
    tenant: Option<&str>,
) -> Result<(), AdminError> {
    if sign_in.is_some() && tenant.is_some() {
        return Err(AdminError::invalid(
            "people of one tenant of a multi-tenant issuer cannot be told apart at sign-in",
            "leave them to cross-app access",
        ));
    }
    let is_domain = |domain: &str| {
        let label = |label: &str| {
            let legal = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            !label.is_empty() && label.len() <= 63 && legal
        };
        domain.len() <= 253 && domain.split('.').all(label)
    };
    match sign_in.iter().flat_map(|s| &s.domains).find(|domain| !is_domain(domain)) {
        Some(domain) => Err(AdminError::invalid(
            format!("`domains`: `{domain}` is not a domain"),
            "for instance acme.example",
        )),
        None => Ok(()),
    }
}

/// Two issuers for one domain: whose people are they?
async fn check_domains(
    ras: &Acting<RasAdmin>,
    issuer: &str,
    sign_in: Option<&InteractiveSignIn>,
) -> Result<(), AdminError> {
    let domains = sign_in.iter().flat_map(|sign_in| &sign_in.domains);
    if domains.count() == 0 {
        return Ok(());
    }
    let others = ras.desk.all_readable::<TrustedIssuer>().await?;
    for other in others.iter().filter(|other| other.issuer.as_str() != issuer) {
        let theirs = other.sign_in.iter().flat_map(|sign_in| &sign_in.domains);
        for domain in theirs {
            let mine = sign_in.iter().flat_map(|sign_in| &sign_in.domains);
            if mine.into_iter().any(|own| own.eq_ignore_ascii_case(domain)) {
                return Err(AdminError::invalid(
                    format!(
                        "`domains`: people of `{domain}` sign in at `{}` already",
                        other.issuer
                    ),
                    "a domain belongs to one issuer; take it from the other first",
                ));
            }
        }
    }
    Ok(())
}

async fn set_sign_in(ras: Acting<RasAdmin>, Body(new): Body<NewSignIn>) -> Answer {
    let trusted = ras.desk.find::<TrustedIssuer>(&new.id).await?;
    check_sign_in(new.sign_in.as_ref(), trusted.tenant.as_deref())?;
    check_domains(&ras, &new.id, new.sign_in.as_ref()).await?;
    let act = if new.sign_in.is_some() { Act::AllowSignIn } else { Act::ForbidSignIn };
    let set = |trusted: &mut TrustedIssuer| trusted.sign_in = new.sign_in;
    ras.desk.change::<TrustedIssuer>(&new.id, act, set).await
}

async fn create_client(ras: Acting<RasAdmin>, Body(new): Body<NewClient>) -> Answer {
    // A public one gets nothing but what a person lets it have, where people may.
    let trusted = ras.desk.store.all::<TrustedIssuer>().await?;
    let people = trusted.iter().any(|trusted| trusted.sign_in.is_some());
    ras.desk.create_client(new, people).await
}

async fn change_client(ras: Acting<RasAdmin>, Body(change): Body<ClientChange>) -> Answer {
    ras.desk.change_client(change).await
}

async fn create_client_host(ras: Acting<RasAdmin>, Body(host): Body<ClientHost>) -> Answer {
    if !is_origin(&host.origin) {
        return Err(AdminError::invalid(
            format!("`origin`: `{}` is not an origin", host.origin),
            "write https:// and the host, with the port if it is not 443, and no slash at the end",
        ));
    }
    ras.desk.create(&host).await?;
    Ok(Json(view(&host)))
}

async fn rotate_secret(
    ras: Acting<RasAdmin>,
    Path(id): Path<String>,
    Body(overlap): Body<Overlap>,
) -> Answer {
    ras.desk.rotate_secret(&id, overlap.overlap).await
}

async fn create_resource(ras: Acting<RasAdmin>, Body(resource): Body<GovernedResource>) -> Answer {
    if !resource.scopes.contains_all(&resource.default_scopes) {
        return Err(AdminError::invalid(
            "`default_scopes` names scopes that are not in `scopes`",
            "default scopes are some of the resource's scopes",
        ));
    }
    let chosen = resource.access_token_signing_alg;
    ras.desk.check_signing_alg("access_token_signing_alg", chosen).await?;
    ras.desk.create(&resource).await?;
    Ok(Json(view(&resource)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAccount {
    email: String,
}

async fn create_account(ras: Acting<RasAdmin>, Body(new): Body<NewAccount>) -> Answer {
    check_email(&new.email)?;
    let id = ras.desk.entropy.id();
    let account = Account { id, email: Some(new.email), disabled: false };
    ras.desk.create(&account).await?;
    Ok(Json(view(&account)))
}

/// The people of trusted issuers that an account is linked to.
async fn links(ras: Acting<RasAdmin>, Body(named): Body<Named>) -> Answer {
    let desk = &ras.desk;
    let account = desk.find::<Account>(&named.id).await?;
    Ok(Json(serde_json::json!(desk.store.links(&account.id).await?)))
}

/// Takes an account away from somebody it was linked to by mistake.
async fn unlink(
    ras: Acting<RasAdmin>,
    Body(link): Body<SubjectLink>,
) -> Result<StatusCode, AdminError> {
    let desk = &ras.desk;
    let event = desk
        .act(Act::Unlink, "account")
        .with(Detail::Issuer, link.issuer.as_str())
        .with(Detail::Subject, link.subject.as_str());
    if desk.store.unlink(&link, event).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(AdminError::invalid(
        format!("nobody named `{}` by {} is linked to an account", link.subject, link.issuer),
        "`passavant admin --ras NAME account links ACCOUNT` lists who is",
    ))
}

async fn audit(ras: Acting<RasAdmin>, Query(query): Query<AuditQuery>) -> Answer {
    ras.desk.audit(query).await
}
