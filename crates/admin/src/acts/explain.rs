//! Explains what the exchange would decide, and why.

use super::{ActError, ManagedKind as _, context::ActContext};
use crate::{
    servers::IdpAdmin,
    types::{Clients, ExplainQuestion, Explanation, Kind as _, Resources, Users},
};
use passavant_proto::{
    oauth::client::{Client, ClientAuthentication, ENROLLED_CLIENT},
    oauth::client_document::INSTALLATIONS,
    oauth::scope::Scopes,
    oidc::authentication::{ACR_PASSWORD, Authentication},
    policy::{Person, Question, RegisteredResource},
};
use passavant_store::User;

fn refused(reason: &str, rule: &str) -> Explanation {
    Explanation {
        reason: Some(reason.to_owned()),
        rule: rule.to_owned(),
        text: format!("refused: {reason}"),
        ..Explanation::default()
    }
}

/// Whether this person, through this client, would get these scopes for that MCP server.
pub(crate) async fn explain(
    idp: &IdpAdmin,
    context: &ActContext,
    asked: ExplainQuestion,
) -> Result<Explanation, ActError> {
    let store = &context.store;
    let id = Users::id_of(idp, context, &asked.user).await?;
    let user = context.find::<User>(Users::NOUN, &id).await?;
    // An installation has the policy of the client `passavant`.
    let installations = idp.0.issuer.endpoint(INSTALLATIONS);
    let enrolled =
        asked.client == ENROLLED_CLIENT || asked.client.starts_with(&format!("{installations}/"));
    let client = if enrolled {
        Client::enrolment()
    } else {
        context.find::<Client>(Clients::NOUN, &asked.client).await?
    };
    let registered = store.by_id::<RegisteredResource>(asked.resource.normalized()).await?;
    let Some(registered) = registered else {
        return Err(ActError::missing(Resources::NOUN, asked.resource.as_str()));
    };
    if user.is_off() {
        return Ok(refused("subject.not_live", "the person is switched off"));
    }
    if client.disabled {
        return Ok(refused("client.unknown", "the client is switched off"));
    }
    let is_public = client.authentication == ClientAuthentication::Public;
    if is_public && !enrolled && !idp.0.public_exchange {
        return Ok(refused("client.public", "public clients get no ID-JAG here"));
    }
    if let Some(id) = asked.client.strip_prefix(&format!("{installations}/")) {
        // One installation, which belongs to one person and may be gone.
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
    let policy = store.policy(&idp.0.issuer).await?;
    let now = context.now();
    let authentication = Authentication {
        auth_time: now.plus(-asked.signed_in_ago.max(0)),
        acr: asked.acr.unwrap_or_else(|| ACR_PASSWORD.to_owned()),
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
            Explanation {
                granted: true,
                reason: None,
                rule: permit.rules.join(", "),
                text,
                audience: Some(permit.audience.to_string()),
                ras_client_id: Some(permit.ras_client_id.clone()),
                scopes: Some(permit.scopes.clone()),
                not_granted: Some(missing),
            }
        }
        Err(denial) => {
            // What the person sees of it, if the catalog shows it.
            let (document, person) = (question.document, question.person);
            let entries = policy.catalog(person, &client.id, document, &authentication, now);
            let entry = entries.iter().find(|e| e.resource.resource == resources[0]);
            let why = entry.filter(|e| e.decision.is_err()).map(|e| e.explanation(&denial));
            let reason = denial.reason.word();
            match why {
                Some(why) => Explanation {
                    text: format!("refused: {why} ({reason})"),
                    ..refused(reason, &denial.rule)
                },
                None => refused(reason, &denial.rule),
            }
        }
    })
}
