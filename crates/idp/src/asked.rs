//! Parses an authorization request, whether a browser brings it or a client pushes it.

use passavant_proto::{
    identifier::Issuer,
    jose::jwk::KeySet,
    oauth::{
        authorize::{self, AuthorizationRequest, Offer, RedirectError, Unauthorizable},
        client::Client,
        form::Form,
    },
    oidc::id_token::verify_hint,
};

/// Parses a request together with its `id_token_hint`, if there is one: an ID token of this IdP
/// that names the person who has to sign in.
pub(super) fn hinted(
    (keys, issuer): (&KeySet, &Issuer),
    form: &Form,
    client: &Client,
) -> Result<AuthorizationRequest, Unauthorizable> {
    let mut request = authorize::read(form, client, Offer::SignIn)?;
    if let Some(hint) = form.optional("id_token_hint") {
        let Ok(hint) = verify_hint(hint, keys, issuer) else {
            let description = "id_token_hint is not an ID token of this identity provider.";
            let error = RedirectError { error: "invalid_request", description };
            let (redirect_uri, state) = (request.redirect_uri, request.state);
            return Err(Unauthorizable::Redirect { redirect_uri, state, error });
        };
        request.subject = Some(hint.subject);
    }
    Ok(request)
}
