//! Global Token Revocation: a trusted issuer says that a person's access has ended, and what came by way
//! of it ends here.

use super::{jwt_bearer::key_source, state::Ras};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request, State},
    http::{Response, StatusCode},
    response::IntoResponse,
};
use passavant_authority::{
    admission::Sender,
    answer::{broken, error as refused, throttled, unauthorized},
    origin::{bearer_token, origin_of},
};
use passavant_proto::{
    event::{Detail, RequestEvent},
    jose::jws::JwtError,
    oauth::global_token_revocation::{
        self as revocation, RevocationRequest, RevocationToken, SubId,
    },
    others_text::shown,
    secret::sha256,
    xaa::{
        id_jag,
        trust::{SubjectLink, TrustedIssuer},
    },
};
use passavant_store::{AccessEnded, AuditEvent, EndedAccess, SaidOnce, StoreError, UsedJti};

/// POST /global_token_revocation.
pub(super) async fn revoke(State(ras): State<Ras>, request: Request) -> Response<Body> {
    let (Ok(response) | Err(response)) = revoked(&ras, request).await;
    response
}

/// Who calls: a trusted issuer, and its proof.
type Proved = (TrustedIssuer, RevocationToken);

enum Unproved {
    No(JwtError),
    Keys,
    Broken(StoreError),
}

async fn prove(ras: &Ras, token: &str, endpoint: &str) -> Result<Proved, Unproved> {
    let authority = &ras.0.authority;
    let (issuer, kid) = revocation::claimed(token).map_err(Unproved::No)?;
    let snapshot = authority.fresh().await.map_err(Unproved::Broken)?;
    let trusted = snapshot.directory.trusted(&issuer).ok_or(Unproved::No(JwtError::Issuer))?;
    let source = key_source(trusted);
    let keys = authority.context.remote_keys.keys(&source, kid.as_deref()).await;
    let keys = keys.map_err(|_| Unproved::Keys)?;
    let now = authority.now();
    let proof = revocation::verify(token, &keys, (&trusted.issuer, None), None, endpoint, now);
    Ok((trusted.clone(), proof.map_err(Unproved::No)?))
}

async fn revoked(ras: &Ras, request: Request) -> Result<Response<Body>, Response<Body>> {
    let authority = &ras.0.authority;
    let (parts, body) = request.into_parts();
    let (request_id, address) = origin_of(&parts);
    let now = authority.now();
    let token = bearer_token(&parts.headers).ok_or_else(|| {
        unauthorized("A JWT of the identity provider is missing, as a Bearer token.")
    })?;
    let bytes = Bytes::from_request(Request::new(body), &()).await;
    let bytes = bytes.map_err(IntoResponse::into_response)?;
    let endpoint = authority.issuer.endpoint(revocation::PATH);
    let mut event = AuditEvent::granted(RequestEvent::AccessEnded, now)
        .with(Detail::RequestId, request_id.as_str())
        .with(Detail::Address, address.as_str());
    let (trusted, proof) = match prove(ras, token.expose(), &endpoint).await {
        Ok(proved) => proved,
        Err(Unproved::Broken(error)) => return Err(broken(&error)),
        Err(Unproved::Keys) => {
            return Err(refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "The keys of the JWT's issuer cannot be fetched just now; try again.",
            ));
        }
        Err(Unproved::No(error)) => {
            // Right ones are not counted: hundreds may come at once. Keys are fetched once in a while,
            // however many JWTs ask for them.
            let sender = Sender::Unproven(address);
            ras.0.admission.refusal(&sender).map_err(|busy| throttled(busy.0))?;
            let event = event
                .with(Detail::More, shown(&error.to_string(), 300))
                .refused("access_ended.token");
            authority.store.note(event, now).await.map_err(|e| broken(&e))?;
            return Err(unauthorized(&format!("The JWT is refused: {error}.")));
        }
    };
    event = event.with(Detail::Issuer, trusted.issuer.as_str());
    let request = RevocationRequest::parse(&bytes).map_err(|error| {
        refused(StatusCode::BAD_REQUEST, "invalid_request", &format!("Not a revocation: {error}."))
    })?;
    let unknown = || {
        let text = "Nobody who is linked to an account here is called that by the JWT's issuer.";
        refused(StatusCode::NOT_FOUND, "not_found", text)
    };
    let subject = match request.subject.clone() {
        SubId::IssSub { iss, .. } if iss != trusted.issuer.as_str() => {
            let text = "`iss` of `sub_id` is not the issuer of the JWT, which speaks for its own people alone.";
            return Err(refused(StatusCode::FORBIDDEN, "access_denied", text));
        }
        SubId::IssSub { sub: subject, .. } | SubId::Opaque(subject) => Some(subject),
        SubId::Email(email) => {
            let linked = authority.store.linked_by_email(trusted.issuer.as_str(), &email).await;
            linked.map_err(|e| broken(&e))?.map(|link| link.subject)
        }
    };
    let Some(subject) = subject else {
        let sender = Sender::Proven(trusted.issuer.to_string());
        ras.0.admission.refusal(&sender).map_err(|busy| throttled(busy.0))?;
        let event = event.refused("access_ended.unknown");
        authority.store.note(event, now).await.map_err(|e| broken(&e))?;
        return Err(unknown());
    };
    event = event.with(Detail::Subject, shown(&subject, 256));
    let link = SubjectLink {
        issuer: trusted.issuer.clone().into(),
        tenant: trusted.tenant.clone(),
        subject,
    };
    let jwt = UsedJti {
        namespace: format!("global_token_revocation {}", trusted.issuer),
        jti: proof.jti.unwrap_or_else(|| token.hash()),
        forget_after: proof.forget_after,
    };
    let said = SaidOnce { jwt, body: sha256(&bytes) };
    let ended = EndedAccess {
        link: &link,
        all: request.all,
        id_jags: &request.id_jags,
        until: request.until(proof.issued_at),
        later_stands: request.ended_at.is_some(),
        forget_after: now.plus(id_jag::LONGEST_LIFETIME),
    };
    // An issuer waits for itself: what it ends holds up whoever redeems, and the other issuers.
    let _turn = ras.turn_of(trusted.issuer.as_str()).await;
    let done = authority.store.end_subject(&ended, &said, event.clone(), now).await;
    ras.0.feed.wake();
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
