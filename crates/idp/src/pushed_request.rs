//! Pushed authorization requests (RFC 9126).

use super::{asked::hinted, directory::IdpDirectory, state::Idp};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode},
};
use passavant_authority::{
    answer,
    token_endpoint::{ClientRequest, Endpoint, client_request, conclude},
};
use passavant_proto::{
    oauth::authorize::{CODE_LIFETIME, Unauthorizable},
    refusal::Refusal,
    secret::Secret,
};
use passavant_store::PushedRequest;
use serde_json::json;

/// The prefix of all our `request_uri` values.
const PREFIX: &str = "urn:ietf:params:oauth:request_uri:";

pub(super) async fn push(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let authority = &idp.0.authority;
    let url = authority.issuer.endpoint("/par");
    let request =
        match client_request(authority, &idp.0.admission, &url, Endpoint::PushedRequest, request)
            .await
        {
            Ok(request) => request,
            Err(refused) => return refused,
        };
    let now = authority.now();
    let admission = &idp.0.admission;
    // Every request costs a row, and a public client proves nothing.
    if request.client.is_public()
        && let Err(busy) = admission.push(&request.address)
    {
        return answer::throttled(busy.0);
    }
    let read = if request.form.mentions("request_uri") {
        Err(("invalid_request", "A pushed request cannot carry request_uri.".to_owned()))
    } else {
        let keys = request.snapshot.keys.verifying();
        hinted((&keys, &authority.issuer), &request.form, request.client.record()).map_err(|why| {
            match why {
                Unauthorizable::Page(error) => ("invalid_request", error.to_string()),
                Unauthorizable::Redirect { error, .. } => {
                    (error.error, error.description.to_owned())
                }
            }
        })
    };
    let mut asked = match read {
        Ok(asked) => asked,
        Err((error, description)) => return not_taken(&idp, request, error, &description).await,
    };
    if let Some(proof) = request.proof {
        // RFC 9449 section 10.1: the proof at the push binds the code, and must not contradict the
        // parameter.
        if asked.dpop_jkt.as_ref().is_some_and(|jkt| *jkt != proof.key_thumbprint) {
            let refusal = Refusal::DpopBinding.into();
            return conclude(authority, admission, &request.sender, request.event, refusal).await;
        }
        asked.dpop_jkt = Some(proof.key_thumbprint);
    }
    let id = authority.context.entropy.secret();
    let pushed = PushedRequest {
        client_id: request.client.id().to_owned(),
        request: asked,
        expires_at: now.plus(CODE_LIFETIME),
    };
    match authority.store.keep_pushed_request(&id.hash(), &pushed, request.event.clone()).await {
        Ok(()) => {
            let uri = format!("{PREFIX}{}", id.expose());
            let body = json!({"request_uri": uri, "expires_in": CODE_LIFETIME});
            answer::no_store(StatusCode::CREATED, &body)
        }
        Err(error) => {
            conclude(authority, admission, &request.sender, request.event, error.into()).await
        }
    }
}

/// Records an invalid request, and returns the error.
pub(super) async fn not_taken(
    idp: &Idp,
    request: ClientRequest<IdpDirectory>,
    error: &str,
    description: &str,
) -> Response<Body> {
    let authority = &idp.0.authority;
    if let Err(busy) = idp.0.admission.refusal(&request.sender) {
        return answer::throttled(busy.0);
    }
    let reason = format!("{}.{error}", request.event.event.word());
    if let Err(error) = authority
        .store
        .note(request.sender.noted_in(request.event.refused(reason)), authority.now())
        .await
    {
        return answer::broken(&error);
    }
    let body = json!({"error": error, "error_description": description});
    answer::no_store(StatusCode::BAD_REQUEST, &body)
}

/// The hash under which the request of a `request_uri` is stored.
pub(super) fn hash_of(request_uri: &str) -> Option<String> {
    request_uri.strip_prefix(PREFIX).map(|id| Secret::new(id).hash())
}
