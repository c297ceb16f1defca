//! A sign-in request that was read and checked.

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

/// A request that was read and checked, and the pushed request it came from.
pub(super) struct Asked {
    pub(super) request: AuthorizationRequest,
    pub(super) client_name: String,
    pub(super) pushed: Option<String>,
    /// The one person whom the client acts for, if it is an installation.
    pub(super) only_for: Option<String>,
    /// The client proves nothing of itself: any page and any program can send a browser here in its name.
    pub(super) is_public: bool,
}

impl Asked {
    /// Whether a live session is not enough: nobody can tell whose the request is, so the person is asked each time
    /// (RFC 8252 8.6).
    pub(super) fn needs_a_person(&self) -> bool {
        self.is_public
    }
}

/// Reads a request with the `id_token_hint` that it may carry: an ID token of ours names the one person that is meant.
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
