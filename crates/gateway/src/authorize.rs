//! Maps method and tool to the required scopes, or to the reason of a refusal.

use crate::{
    answers::{ErrorAnswer, METHOD_NOT_FOUND, REFUSED},
    callers::TokenState,
    gateway::Route,
    trail,
};
use axum::body::Body;
use http::{Response, StatusCode};
use passavant_proto::{
    mcp::message as mcp,
    mcp::operation_policy::{CallerFacts, NotAllowed},
    time::Timestamp,
};
use serde_json::value::RawValue;

/// The operation of a request, as it is recorded.
pub(crate) struct RecordedOperation {
    pub(crate) method: String,
    pub(crate) target: String,
}

impl RecordedOperation {
    /// The operation of a request with a body. Text of the caller is cut to a maximum length.
    pub(crate) fn of(body: &mcp::Body<'_>) -> Self {
        let Self { method, target } = Self::whole(body);
        Self { method: trail::cut(&method), target: trail::cut(&target) }
    }

    fn whole(body: &mcp::Body<'_>) -> Self {
        if let [message] = body.messages.as_slice() {
            let targets = message.targets();
            let named = targets.iter().filter(|target| !matches!(target, mcp::Target::Method(_)));
            let target = named.map(mcp::Target::name).collect::<Vec<_>>().join(" ");
            let method = if message.kind == mcp::Kind::Response {
                "(answer)".to_owned()
            } else {
                message.method.clone().into_owned()
            };
            return Self { method, target };
        }
        let methods = body.messages.iter().map(|m| m.method.as_ref()).filter(|m| !m.is_empty());
        let targets = body.messages.iter().flat_map(|message| {
            let named = message.targets().into_iter();
            let named = named.filter(|target| !matches!(target, mcp::Target::Method(_)));
            named.map(|target| target.name().to_owned()).collect::<Vec<_>>()
        });
        Self {
            method: format!("(batch) {}", methods.collect::<Vec<_>>().join(" ")),
            target: targets.collect::<Vec<_>>().join(" "),
        }
    }
}

/// Judges all messages of a body at once. Returns the rules that allow it.
pub(crate) fn authorize(
    route: &Route,
    held: &TokenState,
    body: &mcp::Body<'_>,
    now: Timestamp,
) -> Result<String, NotAllowed> {
    let targets: Vec<_> = body.messages.iter().flat_map(mcp::Message::targets).collect();
    let caller = &held.caller;
    let facts =
        CallerFacts { scopes: caller.scopes(), auth_time: caller.auth_time(), acr: caller.acr() };
    route.settings.rules.decide(&targets, facts, |name| route.tool_state(name), now)
}

/// The answer to a request that the rules do not allow.
pub(crate) fn answer(
    route: &Route,
    why: &NotAllowed,
    id: Option<&RawValue>,
    stateless: bool,
) -> Response<Body> {
    let forbidden =
        |text: &str| ErrorAnswer::new(StatusCode::FORBIDDEN, REFUSED, text).to(id).respond();
    match why {
        // A method without a rule gets the same answer as a method that does not exist.
        NotAllowed::NoRule { kind: "method" } if stateless => {
            ErrorAnswer::new(StatusCode::NOT_FOUND, METHOD_NOT_FOUND, "Method not found")
                .to(id)
                .respond()
        }
        NotAllowed::NoRule { kind } => forbidden(&format!(
            "No rule of this gateway allows this {kind}. Ask its operator to add one."
        )),
        NotAllowed::Denied { .. } => {
            forbidden("A rule of this gateway denies this operation to everyone.")
        }
        NotAllowed::Changed => forbidden(
            "This tool's description changed since it was approved; it is blocked until the \
             operator of this gateway approves it.",
        ),
        NotAllowed::Scope { needed, .. } => {
            let challenge = route.guard.insufficient_scope(needed);
            let text = format!("This operation needs the scopes: {needed}");
            let answer = ErrorAnswer::new(StatusCode::FORBIDDEN, REFUSED, &text).to(id);
            ErrorAnswer { challenge: Some(&challenge), ..answer }.respond()
        }
        NotAllowed::Authentication { max_age, acr_values, .. } => {
            let challenge = route.guard.insufficient_authentication(*max_age, acr_values);
            let text = "This operation needs a fresher or stronger sign-in.";
            let answer = ErrorAnswer::new(StatusCode::UNAUTHORIZED, REFUSED, text).to(id);
            ErrorAnswer { challenge: Some(&challenge), ..answer }.respond()
        }
    }
}
