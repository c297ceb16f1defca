//! Administration of a RAS: trusted issuers, clients, resources, accounts, audit.

use super::{
    AdminError,
    records::{AuditQuery, Body, Desk, NewClient, Overlap, Switch, view},
};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, post},
};
use carnet_proto::{
    client::{Client, GovernedResource},
    client_document::is_origin,
    identifier::{Issuer, Resource},
    time::{Clock, Entropy},
    trust::{Account, ClientHost, InteractiveSignIn, TrustedIssuer},
};
use carnet_store::{Record, Store};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// Administration of one RAS.
#[derive(Clone)]
pub struct RasAdmin(Arc<RasDesk>);

struct RasDesk {
    issuer: Issuer,
    desk: Desk,
}

type Answer = Result<Json<Value>, AdminError>;

impl RasAdmin {
    /// Administration of the RAS `issuer` on `store`.
    pub fn new(issuer: Issuer, store: Store, clock: Clock, entropy: Entropy) -> Self {
        Self(Arc::new(RasDesk { issuer, desk: Desk { store, clock, entropy } }))
    }

    pub(super) fn issuer(&self) -> &Issuer {
        &self.0.issuer
    }

    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/trusted-issuers", get(list::<TrustedIssuer>).post(create_trust))
            .route("/trusted-issuers/disable", post(disable::<TrustedIssuer>))
            .route("/trusted-issuers/enable", post(enable::<TrustedIssuer>))
            .route("/trusted-issuers/delete", post(delete::<TrustedIssuer>))
            .route("/trusted-issuers/sign-in", post(set_sign_in))
            .route("/clients", get(list::<Client>).post(create_client))
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
            .route("/accounts/disable", post(disable::<Account>))
            .route("/accounts/enable", post(enable::<Account>))
            .route("/audit", get(audit))
            .with_state(self)
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

async fn list<R: Record>(State(ras): State<RasAdmin>) -> Answer {
    ras.0.desk.list::<R>().await
}

async fn disable<R: Switch>(State(ras): State<RasAdmin>, Body(named): Body<Named>) -> Answer {
    ras.0.desk.change::<R>(&named.id_of::<R>(), "disable", |record| record.switch(true)).await
}

async fn enable<R: Switch>(State(ras): State<RasAdmin>, Body(named): Body<Named>) -> Answer {
    ras.0.desk.change::<R>(&named.id_of::<R>(), "enable", |record| record.switch(false)).await
}

async fn delete<R: Record>(
    State(ras): State<RasAdmin>,
    Body(named): Body<Named>,
) -> Result<StatusCode, AdminError> {
    ras.0.desk.delete::<R>(&named.id_of::<R>()).await
}

async fn create_trust(State(ras): State<RasAdmin>, Body(trusted): Body<TrustedIssuer>) -> Answer {
    if ras.0.issuer.is_spelled(trusted.issuer.as_str()) {
        return Err(AdminError::invalid(
            "`issuer` is this authorization server's own",
            "name the company's identity provider (MCP-A4)",
        ));
    }
    check_sign_in(trusted.sign_in.as_ref(), trusted.tenant.as_deref())?;
    ras.0.desk.create(&trusted).await?;
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
    match sign_in.iter().flat_map(|s| &s.domains).find(|domain| domain.contains('@')) {
        Some(domain) => Err(AdminError::invalid(
            format!("`domains`: `{domain}` is not a domain"),
            "for instance acme.example",
        )),
        None => Ok(()),
    }
}

async fn set_sign_in(State(ras): State<RasAdmin>, Body(new): Body<NewSignIn>) -> Answer {
    let trusted = ras.0.desk.find::<TrustedIssuer>(&new.id).await?;
    check_sign_in(new.sign_in.as_ref(), trusted.tenant.as_deref())?;
    let act = if new.sign_in.is_some() { "allow sign-in at" } else { "forbid sign-in at" };
    let set = |trusted: &mut TrustedIssuer| trusted.sign_in = new.sign_in;
    ras.0.desk.change::<TrustedIssuer>(&new.id, act, set).await
}

async fn create_client(State(ras): State<RasAdmin>, Body(new): Body<NewClient>) -> Answer {
    // A public one gets nothing but what a person lets it have, where people may.
    let trusted = ras.0.desk.store.all::<TrustedIssuer>().await?;
    let people = trusted.iter().any(|trusted| trusted.sign_in.is_some());
    ras.0.desk.create_client(new, people).await
}

async fn create_client_host(State(ras): State<RasAdmin>, Body(host): Body<ClientHost>) -> Answer {
    if !is_origin(&host.origin) {
        return Err(AdminError::invalid(
            format!("`origin`: `{}` is not an origin", host.origin),
            "write https:// and the host, with the port if it is not 443, and no slash at the end",
        ));
    }
    ras.0.desk.create(&host).await?;
    Ok(Json(view(&host)))
}

async fn rotate_secret(
    State(ras): State<RasAdmin>,
    Path(id): Path<String>,
    Body(overlap): Body<Overlap>,
) -> Answer {
    ras.0.desk.rotate_secret(&id, overlap.overlap).await
}

async fn create_resource(
    State(ras): State<RasAdmin>,
    Body(resource): Body<GovernedResource>,
) -> Answer {
    if !resource.scopes.contains_all(&resource.default_scopes) {
        return Err(AdminError::invalid(
            "`default_scopes` names scopes that are not in `scopes`",
            "default scopes are some of the resource's scopes",
        ));
    }
    ras.0.desk.create(&resource).await?;
    Ok(Json(view(&resource)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAccount {
    email: String,
}

async fn create_account(State(ras): State<RasAdmin>, Body(new): Body<NewAccount>) -> Answer {
    if !new.email.contains('@') || new.email.len() > 254 {
        return Err(AdminError::invalid(
            "`email` is not an address",
            "for instance a@acme.example",
        ));
    }
    let id = ras.0.desk.entropy.id();
    let account = Account { id, email: Some(new.email), disabled: false };
    ras.0.desk.create(&account).await?;
    Ok(Json(view(&account)))
}

async fn audit(State(ras): State<RasAdmin>, Query(query): Query<AuditQuery>) -> Answer {
    ras.0.desk.audit(query).await
}
