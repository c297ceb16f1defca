//! The headers of a request to the MCP server: those of the caller's that are on the allow-list,
//! and the identity of the caller.

use crate::{
    answers::BROKEN,
    callers::TokenState,
    gateway::{GatewayDeps, Route},
    media,
    settings::{ToolChanges, UpstreamTokenError, Who, sensitive},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use passavant_proto::{
    mcp::caller_assertion::{CallerClaims, LIFETIME},
    time::Timestamp,
};
use std::sync::PoisonError;

/// Tells an adapter of this process who calls.
pub const CALLER: HeaderName = HeaderName::from_static("passavant-caller");

/// A new assertion is made when this one is valid for less than this, in seconds.
const FRESH: i64 = 30;

/// Request headers that are forwarded, besides the `Mcp-Param-…` headers that were compared with
/// the body and those that an administrator lists. All others are dropped: a deny-list of identity
/// headers could never be complete. `Content-Type` is written here, not forwarded.
const PASSED: [HeaderName; 7] = [
    header::ACCEPT,
    header::USER_AGENT,
    header::ACCEPT_LANGUAGE,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("mcp-protocol-version"),
    HeaderName::from_static("mcp-method"),
    HeaderName::from_static("mcp-name"),
];
/// Trace context (W3C).
const TRACES: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// Why the MCP server cannot be told who calls.
#[derive(Debug)]
pub(crate) struct NoIdentity {
    pub(crate) status: StatusCode,
    pub(crate) code: i64,
    pub(crate) text: String,
    pub(crate) reason: &'static str,
}

/// The parts of a request that the forwarded headers depend on.
#[derive(Clone, Copy)]
pub(crate) struct ForwardedParts<'a> {
    /// Its headers.
    pub(crate) headers: &'a HeaderMap,
    /// The `Mcp-Param-…` headers that agree with the body.
    pub(crate) parameters: &'a [HeaderName],
    /// It has a body, which is JSON.
    pub(crate) json: bool,
}

/// The headers of the request to the MCP server. `session` is the MCP server's own session id.
pub(crate) async fn headers(
    deps: &GatewayDeps,
    route: &Route,
    held: &TokenState,
    forwarded: ForwardedParts<'_>,
    session: Option<&str>,
    now: Timestamp,
) -> Result<HeaderMap, NoIdentity> {
    let settings = &route.settings;
    let mut headers = HeaderMap::with_capacity(16);
    for (name, value) in forwarded.headers {
        // With `Block`, one caller's language must not decide how a tool's description looks to
        // everybody.
        let varies =
            *name == header::ACCEPT_LANGUAGE && settings.tool_changes == ToolChanges::Block;
        let passes = (PASSED.contains(name) && !varies)
            || forwarded.parameters.contains(name)
            || TRACES.contains(&name.as_str())
            || settings.forward_headers.contains(name);
        if passes {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.remove(header::CONTENT_TYPE);
    if forwarded.json {
        headers.insert(header::CONTENT_TYPE, media::JSON);
    }
    let bad = || NoIdentity {
        status: StatusCode::BAD_GATEWAY,
        code: BROKEN,
        text: "The caller's identity cannot be sent to the MCP server.".to_owned(),
        reason: "upstream.identity",
    };
    if let Some(session) = session {
        let value = HeaderValue::from_str(session).map_err(|_| bad())?;
        headers.insert(HeaderName::from_static(crate::era::SESSION), value);
    }
    // Identity headers are inserted last, so that they replace any header of that name from the
    // caller.
    for plain in &settings.plain_headers {
        let caller = &held.caller;
        let text = match plain.value {
            Who::Subject => caller.subject().to_owned(),
            Who::Client => caller.client().to_owned(),
            Who::Scope => caller.scopes().to_string(),
            Who::Transaction => caller.transaction().unwrap_or_default().to_owned(),
        };
        let value = HeaderValue::from_str(&text).map_err(|_| bad())?;
        headers.insert(plain.name.clone(), value);
    }
    if let Some(assertion) = &settings.assertion {
        let value = assertion_of(deps, route, held, now).ok_or_else(bad)?;
        headers.insert(assertion.header.clone(), value);
    }
    if let Some(host) = &settings.upstream_host {
        headers.insert(header::HOST, host.clone());
    }
    if let Some((name, value)) = &settings.adapter {
        headers.insert(name.clone(), sensitive(value.expose()).ok_or_else(bad)?);
        // An adapter binds sessions, processes and their requests to one caller.
        headers.insert(CALLER, sensitive(&held.owner).ok_or_else(bad)?);
    }
    if let Some((name, value)) = &settings.credential {
        headers.insert(name.clone(), sensitive(value.expose()).ok_or_else(bad)?);
    }
    if settings.upstream_tokens.is_some() {
        let value = upstream_token(route, held, now).await?;
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(headers)
}

/// The signed assertion, reused for some time.
fn assertion_of(
    deps: &GatewayDeps,
    route: &Route,
    held: &TokenState,
    now: Timestamp,
) -> Option<HeaderValue> {
    let settings = route.settings.assertion.as_ref()?;
    let kept = held.assertion.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some((value, until)) = kept
        && now < until
    {
        return Some(value);
    }
    let caller = &held.caller;
    // It never outlives the caller's own token.
    let expires = now.plus(LIFETIME).min(caller.expires());
    let claims = CallerClaims {
        iss: &route.resource,
        aud: &settings.audience,
        sub: caller.subject(),
        sub_issuer: caller.issuer(),
        client_id: caller.client(),
        scope: caller.scopes().to_string(),
        txn: caller.transaction(),
        exp: expires,
        iat: now,
        jti: deps.entropy.id(),
    };
    let value = sensitive(&format!("{}{}", settings.prefix, claims.sign(&deps.key)))?;
    let until = expires.plus(-FRESH);
    let mut kept = held.assertion.lock().unwrap_or_else(PoisonError::into_inner);
    *kept = Some((value.clone(), until));
    Some(value)
}

/// The MCP server's own token for this caller. Concurrent requests wait for one and the same.
async fn upstream_token(
    route: &Route,
    held: &TokenState,
    now: Timestamp,
) -> Result<HeaderValue, NoIdentity> {
    let mut kept = held.upstream_token.lock().await;
    if let Some((value, until)) = kept.as_ref()
        && now < *until
    {
        return Ok(value.clone());
    }
    let broken = |text: String| NoIdentity {
        status: StatusCode::BAD_GATEWAY,
        code: BROKEN,
        text,
        reason: "upstream.token",
    };
    let Some(obtain) = &route.settings.upstream_tokens else {
        return Err(broken("The gateway cannot get a token for the MCP server.".to_owned()));
    };
    let got =
        obtain(held.caller.clone(), held.token.clone()).await.map_err(|error| match error {
            UpstreamTokenError::Refused(text) => NoIdentity {
                status: StatusCode::FORBIDDEN,
                code: crate::answers::REFUSED,
                text,
                reason: "upstream.token_refused",
            },
            UpstreamTokenError::Unavailable(text) => broken(text),
        })?;
    let value = sensitive(&format!("Bearer {}", got.token.expose()))
        .ok_or_else(|| broken("The token for the MCP server cannot be sent.".to_owned()))?;
    // Bounded by the caller's own token: when the sign-in ends, this token is not used any more.
    let until = got.expires.min(held.caller.expires()).plus(-FRESH);
    *kept = Some((value.clone(), until));
    Ok(value)
}
