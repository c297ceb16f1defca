//! Every reason a token endpoint refuses a request: a closed enum with one map to the wire.

use crate::{
    jose::jws::JwtError,
    oauth::form::FormError,
    policy::{Denial, DenialReason},
};
use std::borrow::Cow;

/// A request refused by a rule. It deliberately has no `Display`: the response uses
/// [`Refusal::wire`], the audit trail [`Refusal::reason`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The form cannot be parsed (RFC 6749 section 5.2).
    Form(FormError),
    /// The body is not a form.
    MediaType,
    /// A credential, assertion or token in the query (MCP Enterprise-Managed Authorization, section
    /// 7.3, RFC 6749 section 2.3.1).
    CredentialInQuery,
    /// `grant_type` is not supported.
    GrantType,
    /// No client authentication, where the client has to authenticate (RFC 6749 section 3.2.1).
    ClientAuthenticationMissing,
    /// More than one authentication method (RFC 6749 section 2.3).
    SeveralAuthenticationMethods,
    /// The `Authorization` header cannot be parsed.
    ClientCredentialsMalformed,
    /// There is no such client, or it is disabled: both get the same answer.
    ClientUnknown,
    /// The client uses another method than the one registered (RFC 7591 section 2).
    ClientMethod,
    /// The secret is wrong or expired.
    ClientSecret,
    /// The client assertion does not verify.
    ClientAssertion(JwtError),
    /// The client assertion was used before.
    ClientAssertionReplay,
    /// `client_assertion_type` is unknown (RFC 7521 section 4.2).
    ClientAssertionType,
    /// The body's `client_id` names another client than the credentials do.
    ClientIdMismatch,
    /// The client's keys cannot be fetched at the moment.
    ClientKeysUnavailable,
    /// The client has a metadata document that cannot be used, or must not be (Client ID Metadata
    /// Document draft, sections 3 and 4).
    ClientDocument(ClientDocumentRefusal),
    /// Too many metadata documents were requested recently (Client ID Metadata Document draft
    /// section 6.6).
    ClientDocumentsBusy,
    /// A public client at a grant that only confidential clients may use (MCP Enterprise-Managed
    /// Authorization, section 7.7).
    PublicClient,
    /// A client that stands for no MCP server asks to be told of ended tokens.
    NotAGuard,
    /// The DPoP proof does not verify (RFC 9449 section 5).
    DpopProof(JwtError),
    /// The DPoP proof was used before.
    DpopReplay,
    /// More than one `DPoP` header.
    DpopRepeated,
    /// The client is registered for DPoP-bound tokens, and sent no proof (RFC 9449 section 5.2).
    DpopRequired,

    /// The code is unknown, used, expired, or another client's (RFC 6749 section 5.2).
    Code,
    /// The code was used before: everything that was issued for it is revoked.
    CodeReuse,
    /// The person has not answered yet (RFC 8628 section 3.5).
    AuthorizationPending,
    /// The device polled before the interval was over (RFC 8628 section 3.5).
    SlowDown,
    /// Nobody typed the user code in time (RFC 8628 section 3.5).
    DeviceCodeExpired,
    /// The person denied the request (RFC 8628 section 3.5).
    DeviceCodeDenied,
    /// The client is not registered for the device authorization grant.
    DeviceGrant,
    /// `redirect_uri` is not the one of the authorization request.
    CodeRedirectUri,
    /// `code_verifier` does not match the challenge (RFC 7636 section 4.6).
    CodeVerifier,
    /// The refresh token is unknown, expired, revoked, or another client's.
    RefreshToken,
    /// The refresh token was used before: its family is revoked (RFC 9700 section 4.14.2).
    RefreshTokenReuse,
    /// A token request of the interactive path names a resource other than the one the person
    /// consented to, or one that does not exist any more (RFC 8707 section 2.2).
    ResourceOfGrant,
    /// The refresh token or code is bound to another DPoP key.
    DpopBinding,
    /// The request asks for more scopes than were granted.
    ScopeWidened,
    /// `scope` has a forbidden character, or too many values (RFC 6749 section 3.3, 5.2).
    ScopeMalformed,
    /// A token for a stream of signals has neither of its scopes.
    SignalScope,
    /// A refresh request at an IdP names a `resource`: tokens for MCP servers are obtained by token
    /// exchange.
    ResourceAtSignIn,
    /// The client registered itself without this grant type (RFC 7591 section 2).
    GrantNotRegistered,

    /// `requested_token_type` is not the ID-JAG's.
    RequestedTokenType,
    /// `subject_token_type` is not supported (RFC 8693 section 2.2.2).
    SubjectTokenType,
    /// An `actor_token` has no defined meaning here (ID-JAG draft section 9.8).
    ActorToken,
    /// `authorization_details` are not supported.
    AuthorizationDetails,
    /// The subject token does not verify (ID-JAG draft section 4.3.3).
    SubjectToken(JwtError),
    /// The SAML assertion does not verify, is for another client, or was used before (ID-JAG draft
    /// section 4.5).
    SubjectAssertion,
    /// The subject refresh token is unknown, expired, revoked, rotated out or another client's.
    SubjectRefreshToken,
    /// The person is disabled or gone, or the sign-in session has ended.
    SubjectNotLive,
    /// The identity provider in front, at which the person signed in, has not answered for longer
    /// than is allowed.
    UpstreamUnreachable,
    /// A `resource` is not an absolute https URL (RFC 8707 section 2).
    ResourceMalformed,
    /// Refused by policy.
    Denied(Denial),

    /// The ID-JAG does not verify (ID-JAG draft section 4.4.1).
    IdJag(JwtError),
    /// The ID-JAG's issuer is not trusted here, or is disabled.
    IssuerUntrusted,
    /// Any error of an ID-JAG that a stranger presents.
    IdJagOfStranger,
    /// The issuer's keys cannot be fetched, and no cached key has the `kid`.
    IssuerKeysUnavailable,
    /// The ID-JAG was used before (MCP Enterprise-Managed Authorization, section 7.4.2).
    IdJagReplay,
    /// The issuer has ended the person's access since it issued the ID-JAG.
    AccessEnded,
    /// A resource of the ID-JAG is not governed here (ID-JAG draft section 4.4.1).
    ResourceNotGoverned,
    /// The ID-JAG names no resource, and there is not exactly one here.
    ResourceAbsent,
    /// The ID-JAG names several resources and the request does not choose one.
    ResourceAmbiguous,
    /// `resource` of the request is not in the ID-JAG (RFC 8707 section 2).
    ResourceNotInIdJag,
    /// No scopes are left (MCP Enterprise-Managed Authorization, section 7.2.1).
    ScopeEmpty,
    /// The person has no account here, or it is disabled.
    AccountUnknown,
    /// The ID-JAG is bound to a key, and the request has no proof of it (ID-JAG draft section
    /// 9.9.1.2).
    ProofMissing,
    /// The proof is signed with another key than the ID-JAG names.
    ProofKey,
    /// The resource accepts only bound tokens, and this ID-JAG is not bound.
    BindingRequired,
}

/// Why a client with a metadata document is refused. It is only for the audit row; the response
/// says as little as for an unknown client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientDocumentRefusal {
    /// Its host is not listed at this authorization server: nothing was fetched.
    #[error("metadata documents of its host are not accepted here")]
    HostNotAllowed,
    /// It could not be fetched.
    #[error("its metadata document could not be fetched")]
    NotFetched,
    /// The document breaks a rule.
    #[error(transparent)]
    Invalid(#[from] crate::oauth::client_document::ClientDocumentError),
}

/// A refusal as a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireRefusal {
    /// HTTP status.
    pub status: u16,
    /// OAuth `error`.
    pub error: &'static str,
    /// `error_description`: a fixed public sentence, never text of the sender.
    pub description: Cow<'static, str>,
    /// What a stronger sign-in must reach (RFC 9470 section 3).
    pub step_up: Option<StepUp>,
}

/// The sign-in that would satisfy the policy, in the terms of RFC 9470.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepUp {
    /// At most this old, in seconds.
    MaxAge(i64),
    /// One of these classes, separated by spaces.
    AcrValues(String),
}

impl Refusal {
    /// The stable word for the audit trail.
    pub fn reason(&self) -> &'static str {
        self.row().0
    }

    /// The response to the client. Refusals that would distinguish "does not exist" from "not
    /// yours" share one row.
    pub fn wire(&self) -> WireRefusal {
        let (_, status, error, sentence) = self.row();
        let description = match self {
            Self::Form(e) => format!("{sentence}: {e}.").into(),
            Self::DpopProof(e) | Self::SubjectToken(e) | Self::IdJag(e) => {
                format!("{sentence}: {e}.").into()
            }
            Self::Denied(denial) => return denial.wire(),
            _ => sentence.into(),
        };
        WireRefusal { status, error, description, step_up: None }
    }

    #[allow(clippy::too_many_lines)] // one exhaustive map from reason to wire
    fn row(&self) -> (&'static str, u16, &'static str, &'static str) {
        const REQUEST: &str = "invalid_request";
        const CLIENT: &str = "invalid_client";
        const GRANT: &str = "invalid_grant";
        const TARGET: &str = "invalid_target";
        const WHO: &str = "Client authentication failed. Check the client id, its secret or key, and that it is sent \
             by the one method registered for this client; of a client assertion also its alg, its times, and that \
             its aud is the issuer identifier, alone, not the URL of the token endpoint.";
        const CODE: &str =
            "The authorization code is not valid: unknown, expired, used, or another client's.";
        const REFRESH: &str = "The refresh token is not valid for this client any more. Sign in \
                               again.";
        match self {
            Self::Form(_) => ("request.malformed", 400, REQUEST, "The request cannot be read"),
            Self::MediaType => (
                "request.media_type",
                400,
                REQUEST,
                "Send the request as application/x-www-form-urlencoded.",
            ),
            Self::CredentialInQuery => (
                "request.credential_in_query",
                400,
                REQUEST,
                "Credentials and tokens belong in the request body, never in the URL.",
            ),
            Self::GrantType => (
                "request.grant_type",
                400,
                "unsupported_grant_type",
                "This grant_type is not offered here; see grant_types_supported in the metadata.",
            ),
            Self::ClientAuthenticationMissing => ("client.unauthenticated", 401, CLIENT, WHO),
            Self::SeveralAuthenticationMethods => (
                "client.several_methods",
                400,
                REQUEST,
                "Use one client authentication method in a request, not several.",
            ),
            Self::ClientCredentialsMalformed => ("client.malformed", 401, CLIENT, WHO),
            Self::ClientUnknown => ("client.unknown", 401, CLIENT, WHO),
            Self::ClientMethod => ("client.method", 401, CLIENT, WHO),
            Self::ClientSecret => ("client.secret", 401, CLIENT, WHO),
            Self::ClientAssertion(_) => ("client.assertion", 401, CLIENT, WHO),
            Self::ClientAssertionReplay => (
                "client.assertion_replay",
                401,
                CLIENT,
                "The client assertion was used before; sign a new one with a fresh jti.",
            ),
            Self::ClientAssertionType => (
                "client.assertion_type",
                401,
                CLIENT,
                "client_assertion_type must be \
                 urn:ietf:params:oauth:client-assertion-type:jwt-bearer.",
            ),
            Self::ClientIdMismatch => (
                "client.id_mismatch",
                401,
                CLIENT,
                "The client_id of the body is not the client that the credentials name.",
            ),
            Self::ClientKeysUnavailable => (
                "client.keys_unavailable",
                503,
                "temporarily_unavailable",
                "The client's keys cannot be fetched just now; try again.",
            ),
            Self::ClientDocument(_) => ("client.document", 401, CLIENT, WHO),
            Self::ClientDocumentsBusy => (
                "client.documents_busy",
                429,
                "temporarily_unavailable",
                "Too many client metadata documents were asked for just now; try again.",
            ),
            Self::NotAGuard => (
                "client.not_a_guard",
                403,
                "unauthorized_client",
                "The feed of ended tokens is for clients that are registered for an MCP server.",
            ),
            Self::PublicClient => (
                "client.public",
                400,
                "unauthorized_client",
                "This grant needs an authenticated client.",
            ),
            Self::DpopProof(_) => {
                ("dpop.proof", 400, "invalid_dpop_proof", "The DPoP proof is refused")
            }
            Self::DpopReplay => (
                "dpop.replay",
                400,
                "invalid_dpop_proof",
                "The DPoP proof was used before; sign a new one with a fresh jti.",
            ),
            Self::DpopRepeated => {
                ("dpop.repeated", 400, "invalid_dpop_proof", "Send exactly one DPoP header.")
            }
            Self::DpopRequired => (
                "dpop.required",
                400,
                "invalid_dpop_proof",
                "This client is registered with dpop_bound_access_tokens: send a DPoP proof.",
            ),
            Self::Code => ("code.invalid", 400, GRANT, CODE),
            Self::CodeReuse => ("code.reuse", 400, GRANT, CODE),
            Self::AuthorizationPending => (
                "device.pending",
                400,
                "authorization_pending",
                "The person has not answered yet; ask again after the interval.",
            ),
            Self::SlowDown => (
                "device.slow_down",
                400,
                "slow_down",
                "Asked too soon; wait five seconds longer each time from now on.",
            ),
            Self::DeviceCodeExpired => (
                "device.expired",
                400,
                "expired_token",
                "The code was not entered in time; begin again.",
            ),
            Self::DeviceCodeDenied => (
                "device.denied",
                400,
                "access_denied",
                "The person who entered the code denied the request.",
            ),
            Self::DeviceGrant => (
                "device.client",
                400,
                "unauthorized_client",
                "This client is not registered for the device authorization grant.",
            ),
            Self::CodeRedirectUri => (
                "code.redirect_uri",
                400,
                GRANT,
                "redirect_uri is not the one of the authorization request.",
            ),
            Self::CodeVerifier => (
                "code.verifier",
                400,
                GRANT,
                "code_verifier does not match the code_challenge of the authorization request.",
            ),
            Self::RefreshToken => ("refresh.invalid", 400, GRANT, REFRESH),
            Self::RefreshTokenReuse => ("refresh.reuse", 400, GRANT, REFRESH),
            Self::ResourceOfGrant => (
                "grant.resource",
                400,
                "invalid_target",
                "The resource is not the one that access was granted to.",
            ),
            Self::DpopBinding => (
                "dpop.binding",
                400,
                "invalid_dpop_proof",
                "The grant is bound to another DPoP key than the proof's.",
            ),
            Self::ScopeWidened => (
                "scope.widened",
                400,
                "invalid_scope",
                "scope asks for more than was granted at sign-in.",
            ),
            Self::SignalScope => (
                "scope.signals",
                400,
                "invalid_scope",
                "A token for streams of signals has the scope ssf.read, ssf.manage, or both.",
            ),
            Self::ScopeMalformed => (
                "scope.malformed",
                400,
                "invalid_scope",
                "scope is a list of at most 100 values of printable ASCII without quotes and backslashes, \
                 separated by single spaces.",
            ),
            Self::ResourceAtSignIn => (
                "resource.at_sign_in",
                400,
                TARGET,
                "A sign-in is for no MCP server: leave resource out here, and name it in the token exchange.",
            ),
            Self::GrantNotRegistered => (
                "client.grant",
                400,
                "unauthorized_client",
                "This client is not registered for this grant.",
            ),
            Self::RequestedTokenType => (
                "exchange.requested_token_type",
                400,
                REQUEST,
                "requested_token_type must be urn:ietf:params:oauth:token-type:id-jag.",
            ),
            Self::SubjectTokenType => (
                "exchange.subject_token_type",
                400,
                REQUEST,
                "subject_token_type must be urn:ietf:params:oauth:token-type:id_token or \
                 urn:ietf:params:oauth:token-type:refresh_token.",
            ),
            Self::ActorToken => (
                "exchange.actor_token",
                400,
                REQUEST,
                "actor_token is not supported; leave actor_token and actor_token_type out.",
            ),
            Self::AuthorizationDetails => (
                "request.authorization_details",
                400,
                "invalid_authorization_details",
                "authorization_details are not supported; ask for scope.",
            ),
            Self::SubjectToken(_) => ("subject.token", 400, GRANT, "The subject token is refused"),
            Self::SubjectAssertion => (
                "subject.assertion",
                400,
                GRANT,
                "The SAML assertion does not verify, is not for this client, or was used before; \
                 get a new one.",
            ),
            Self::SubjectRefreshToken => ("subject.refresh_token", 400, GRANT, REFRESH),
            Self::SubjectNotLive => (
                "subject.not_live",
                400,
                GRANT,
                "The sign-in that the subject token belongs to has ended. Sign in again.",
            ),
            Self::UpstreamUnreachable => (
                "upstream_check.unreachable",
                503,
                "temporarily_unavailable",
                "The company's identity provider, at which this person signed in, does not answer, \
                 so it is not known whether they are still there. Try again.",
            ),
            Self::ResourceMalformed => (
                "resource.malformed",
                400,
                TARGET,
                "resource must be the MCP server's absolute https URL without fragment, as its \
                 protected-resource metadata spells it.",
            ),
            // The `reason` of a denial is the policy's own; see `Denial`.
            Self::Denied(denial) => (denial.reason.word(), 400, TARGET, ""),
            Self::IdJag(_) => ("id_jag.invalid", 400, GRANT, "The ID-JAG is refused"),
            Self::IssuerUntrusted => (
                "id_jag.issuer",
                400,
                GRANT,
                "The ID-JAG comes from an issuer that is not trusted here. The administrator of \
                 this authorization server has to add the identity provider, byte for byte as in \
                 the iss claim.",
            ),
            Self::IdJagOfStranger => (
                "id_jag.refused",
                400,
                GRANT,
                "The ID-JAG is refused: it does not verify, or comes from an issuer that is not trusted here.",
            ),
            Self::IssuerKeysUnavailable => (
                "id_jag.keys_unavailable",
                503,
                "temporarily_unavailable",
                "The keys of the ID-JAG's issuer cannot be fetched just now; the ID-JAG was not \
                 used up, try again.",
            ),
            Self::IdJagReplay => (
                "id_jag.replay",
                400,
                GRANT,
                "The ID-JAG was used before. Ask the identity provider for a fresh one.",
            ),
            Self::AccessEnded => (
                "id_jag.access_ended",
                400,
                GRANT,
                "The identity provider has ended the person's access since it issued the ID-JAG. A new sign-in is \
                 needed.",
            ),
            Self::ResourceNotGoverned => (
                "resource.not_governed",
                400,
                GRANT,
                "A resource of the ID-JAG is not governed by this authorization server. Compare it \
                 with the MCP server's protected-resource metadata; mind a trailing slash.",
            ),
            Self::ResourceAbsent => (
                "resource.absent",
                400,
                GRANT,
                "The ID-JAG has no resource claim, and this authorization server governs several \
                 MCP servers.",
            ),
            Self::ResourceAmbiguous => (
                "resource.ambiguous",
                400,
                TARGET,
                "The ID-JAG is for several MCP servers; name one of them with resource.",
            ),
            Self::ResourceNotInIdJag => (
                "resource.not_in_id_jag",
                400,
                TARGET,
                "resource is not one of those in the ID-JAG.",
            ),
            Self::ScopeEmpty => (
                "scope.empty",
                400,
                "invalid_scope",
                "None of the scopes asked for is both in the ID-JAG and known to the MCP server.",
            ),
            Self::AccountUnknown => (
                "account.unknown",
                400,
                "access_denied",
                "This person has no active account here, and none is created at the first sign-in. \
                 A new assertion gives the same answer; ask the operator of this MCP server.",
            ),
            Self::ProofMissing => (
                "dpop.missing",
                400,
                GRANT,
                "The ID-JAG is bound to a key; send a DPoP proof of it.",
            ),
            Self::ProofKey => (
                "dpop.key",
                400,
                GRANT,
                "The DPoP proof is of another key than the ID-JAG is bound to.",
            ),
            Self::BindingRequired => (
                "dpop.required",
                400,
                GRANT,
                "This MCP server accepts only DPoP-bound tokens; send a DPoP proof in the token \
                 exchange, too.",
            ),
        }
    }
}

impl From<FormError> for Refusal {
    fn from(error: FormError) -> Self {
        Self::Form(error)
    }
}

impl Denial {
    /// The response to the client. What does not exist and what this person may not use get the
    /// same response, so that nobody can enumerate a company's servers.
    pub fn wire(&self) -> WireRefusal {
        let (error, description) = match &self.reason {
            DenialReason::AudienceUnknown
            | DenialReason::NotConnected
            | DenialReason::NotAssigned => (
                "access_denied",
                "This person may not reach this audience through this client by the company's \
                 policy, or there is no such audience. `audience` must be the issuer identifier \
                 of the MCP server's authorization server, not the URL of the MCP server. If both \
                 are right, ask IT for access.",
            ),
            DenialReason::ResourceNotGoverned | DenialReason::ResourceNotAllowed => (
                "access_denied",
                "This person may not reach this resource at this audience by the company's \
                 policy, or there is no such resource. `resource` must be the MCP server's URL as \
                 its protected-resource metadata spells it. If it is, ask IT for access.",
            ),
            DenialReason::ResourceRequired => (
                "invalid_target",
                "Name the MCP server with `resource`: this audience governs several.",
            ),
            DenialReason::ScopeNotAllowed => (
                "access_denied",
                "None of the scopes asked for is granted to this person by the company's policy. \
                 Ask IT for access.",
            ),
            DenialReason::AuthenticationTooOld { .. } => (
                "insufficient_user_authentication",
                "The sign-in is older than the company's policy allows for this MCP server. Sign \
                 in again.",
            ),
            DenialReason::AuthenticationTooWeak { .. } => (
                "insufficient_user_authentication",
                "The sign-in is weaker than the company's policy asks for this MCP server. Sign \
                 in again with one of acr_values.",
            ),
        };
        let step_up = match &self.reason {
            DenialReason::AuthenticationTooOld { max_age } => Some(StepUp::MaxAge(*max_age)),
            DenialReason::AuthenticationTooWeak { acr_values } => {
                Some(StepUp::AcrValues(acr_values.join(" ")))
            }
            _ => None,
        };
        WireRefusal { status: 400, error, description: description.into(), step_up }
    }
}
