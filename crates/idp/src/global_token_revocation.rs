//! Global Token Revocation from an upstream (Okta calls it Universal Logout): it says that a person's access
//! has ended, and what came by way of it ends here.

use crate::{sign_in::upstream::registration, state::Idp};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Path, Request, State},
    http::{Response, StatusCode},
    response::IntoResponse,
};
use passavant_authority::{
    admission::Sender,
    answer::{broken, error as refused, throttled, unauthorized},
    origin::{bearer_token, origin_of},
};
use passavant_outbound::SignInError;
use passavant_proto::{
    event::{Detail, RequestEvent},
    oauth::global_token_revocation::{PATH, RevocationRequest, SubId},
    oidc::upstream::UpstreamProvider,
    others_text::shown,
    secret::sha256,
    xaa::trust::SubjectLink,
};
use passavant_store::{AccessEnded, AuditEvent, LoggedOut, SaidOnce, UsedJti};

/// `POST /global_token_revocation/{upstream}`.
pub(super) async fn revoke(
    State(idp): State<Idp>,
    Path(name): Path<String>,
    request: Request,
) -> Response<Body> {
    let (Ok(response) | Err(response)) = revoked(&idp, &name, request).await;
    response
}

/// The path below the issuer for an upstream.
pub(super) fn path_of(upstream: &str) -> String {
    format!("{PATH}/{upstream}")
}

async fn revoked(
    idp: &Idp,
    name: &str,
    request: Request,
) -> Result<Response<Body>, Response<Body>> {
    let authority = &idp.0.authority;
    let (parts, body) = request.into_parts();
    let (request_id, address) = origin_of(&parts);
    let now = authority.now();
    let token = bearer_token(&parts.headers)
        .ok_or_else(|| unauthorized("A JWT of the upstream is missing, as a Bearer token."))?;
    let bytes = Bytes::from_request(Request::new(body), &()).await;
    let bytes = bytes.map_err(IntoResponse::into_response)?;
    let snapshot = authority.fresh().await.map_err(|e| broken(&e))?;
    let upstream = snapshot.directory.upstream(name).and_then(UpstreamProvider::open_id);
    let Some(upstream) = upstream else {
        let text = "There is no such upstream, it is switched off, or it speaks SAML.";
        return Err(refused(StatusCode::NOT_FOUND, "not_found", text));
    };
    let registration = registration(idp, upstream);
    let mut event = AuditEvent::granted(RequestEvent::AccessEnded, now)
        .with(Detail::Issuer, upstream.open_id.issuer.as_str())
        .with(Detail::RequestId, request_id.as_str())
        .with(Detail::Address, address.as_str());
    let endpoint = idp.issuer().endpoint(&path_of(name));
    let relying_party = &authority.context.relying_party;
    let proof = match relying_party.revocation(&registration, token.expose(), &endpoint).await {
        Ok(proof) => proof,
        Err(SignInError::IdToken { error, .. }) => {
            // Right ones are not counted: hundreds may come at once. Keys are fetched once in a while,
            // however many JWTs ask for them.
            let sender = Sender::Unproven(address);
            idp.0.admission.refusal(&sender).map_err(|busy| throttled(busy.0))?;
            let event = event
                .with(Detail::More, shown(&error.to_string(), 300))
                .refused("access_ended.token");
            authority.store.note(event, now).await.map_err(|e| broken(&e))?;
            return Err(unauthorized(&format!("The JWT is refused: {error}.")));
        }
        Err(error) => {
            tracing::warn!(upstream = name, %error, "a revocation cannot be verified just now");
            return Err(refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "The keys of the JWT's issuer cannot be fetched just now; try again.",
            ));
        }
    };
    let request = RevocationRequest::parse(&bytes).map_err(|error| {
        refused(StatusCode::BAD_REQUEST, "invalid_request", &format!("Not a revocation: {error}."))
    })?;
    let issuer = upstream.issuer();
    let link = match request.subject {
        SubId::IssSub { iss, .. }
            if iss != issuer.as_str() && Some(&iss) != registration.other_spelling.as_ref() =>
        {
            let text = "`iss` of `sub_id` is not the issuer of the JWT, which speaks for its own people alone.";
            return Err(refused(StatusCode::FORBIDDEN, "access_denied", text));
        }
        SubId::IssSub { sub: subject, .. } | SubId::Opaque(subject) => {
            Some(SubjectLink { issuer, tenant: None, subject })
        }
        SubId::Email(email) => {
            let linked = authority.store.person_by_email(name, &email).await;
            linked.map_err(|e| broken(&e))?
        }
    };
    let unknown = || {
        let text = "Nobody who signed in by way of this upstream is called that.";
        refused(StatusCode::NOT_FOUND, "not_found", text)
    };
    let Some(link) = link else {
        let sender = Sender::Proven(format!("upstream {name}"));
        idp.0.admission.refusal(&sender).map_err(|busy| throttled(busy.0))?;
        let event = event.refused("access_ended.unknown");
        authority.store.note(event, now).await.map_err(|e| broken(&e))?;
        return Err(unknown());
    };
    event = event.with(Detail::Subject, shown(&link.subject, 256));
    let jwt = UsedJti {
        namespace: format!("global_token_revocation {name}"),
        jti: proof.jti.unwrap_or_else(|| token.hash()),
        forget_after: proof.forget_after,
    };
    let said = SaidOnce { jwt, body: sha256(&bytes) };
    let of = LoggedOut { upstream: name, session: None, link: Some(&link), until: None };
    let done = authority.store.log_out(of, &said, event.clone(), now).await;
    match done.map_err(|e| broken(&e))? {
        AccessEnded::Now(_) | AccessEnded::Before => Ok(StatusCode::NO_CONTENT.into_response()),
        AccessEnded::Unknown => Err(unknown()),
        AccessEnded::SaidOtherwise => {
            let event = event.refused("access_ended.token_used");
            authority.store.note(event, now).await.map_err(|e| broken(&e))?;
            Err(unauthorized("The JWT came with another request before: it serves once."))
        }
    }
}
