//! The catalog: which MCP servers a person may reach through the requesting client, and which ones
//! not and why. It always agrees with the exchange, because the same function decides.

use super::{bearer::Bearer, standing::Standing, state::Idp};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode, request::Parts},
};
use passavant_authority::answer::{broken, no_store};
use passavant_proto::{
    identifier::Resource,
    oauth::client::ClientAuthentication,
    oauth::form::Form,
    policy::{CatalogEntry, DenialReason, Person},
};
use serde_json::{Value, json};

/// GET, with an access token of this IdP that has `openid`.
pub(super) async fn tell(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let bearer = Bearer::admit(&idp, &parts, "/catalog", "openid").await;
    let Standing { person, client, authentication } = match bearer {
        Ok(bearer) => bearer.standing,
        Err(refused) => return refused,
    };
    let authority = &idp.0.authority;
    let snapshot = match authority.fresh().await {
        Ok(snapshot) => snapshot,
        Err(error) => return broken(&error),
    };
    let directory = &snapshot.directory;
    let may_exchange = client.record.authentication != ClientAuthentication::Public
        || idp.0.settings.allow_public_exchange;
    let person = Person { id: &person.user.id, groups: &person.user.groups };
    let now = authority.now();
    let show_refused = idp.0.settings.show_refused;
    let servers = |idp_client_id: &str, document: Option<&str>| -> Vec<Value> {
        let entries =
            directory.policy.catalog(person, idp_client_id, document, &authentication, now);
        // A public client gets no ID-JAG, whatever connections name it: the exchange would refuse.
        let entries = entries.into_iter().filter(|_| may_exchange).collect::<Vec<_>>();
        let shown = entries.iter().filter(|e| e.decision.is_ok() || show_refused);
        shown.map(|entry| describe(entry, document)).collect()
    };
    // Only installations see what other clients may reach: they write those clients' settings.
    let mut native: Vec<Value> = directory
        .native_clients()
        .filter(|_| client.document().is_some())
        .map(|(id, software)| {
            json!({"software": software, "client_id": id, "servers": servers(id, None)})
        })
        .collect();
    native.sort_by_key(|client| client["client_id"].to_string());
    let mut body = json!({
        "company": idp.0.settings.name,
        "servers": servers(client.idp_client_id(), client.document()),
        "native_clients": native,
    });
    if let Some((resource, authorization_server)) = asked_of(&parts) {
        body["company_decides"] = directory.policy.governs(&resource, &authorization_server).into();
    }
    no_store(StatusCode::OK, &body)
}

/// The MCP server that the request asks about: whether the company governs it.
fn asked_of(parts: &Parts) -> Option<(Resource, String)> {
    let form = Form::parse(parts.uri.query().unwrap_or_default().as_bytes()).ok()?;
    let resource = Resource::parse(form.optional("resource")?).ok()?;
    Some((resource, form.optional("authorization_server")?.to_owned()))
}

fn describe(entry: &CatalogEntry<'_>, document: Option<&str>) -> Value {
    let mut value = json!({
        "resource": entry.resource.resource,
        "name": entry.resource.name,
        "vendor": entry.server.name,
        "authorization_server": entry.server.issuer,
        "granted": entry.decision.is_ok(),
    });
    match &entry.decision {
        Ok(permit) => {
            value["scopes"] = permit.scopes.to_string().into();
            // Include the client's id at the RAS if it differs from its own.
            if document != Some(permit.ras_client_id.as_str()) {
                value["ras_client_id"] = permit.ras_client_id.as_str().into();
            }
        }
        Err(denial) => {
            value["reason"] = denial.reason.word().into();
            if matches!(denial.reason, DenialReason::NotAssigned | DenialReason::ResourceNotAllowed)
            {
                value["groups"] = json!(entry.groups);
            }
            value["explanation"] = entry.explanation(denial).into();
        }
    }
    value
}
