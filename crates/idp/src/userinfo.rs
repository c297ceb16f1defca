//! Userinfo (OpenID Connect Core 5.3), for access tokens of this IdP with `openid`.

use super::{bearer::Bearer, state::Idp};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode},
};
use passavant_authority::answer::no_store;
use passavant_proto::oauth::access_token::AccessToken;
use passavant_store::User;
use serde_json::{Value, json};

pub(super) async fn tell(State(idp): State<Idp>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    match Bearer::admit(&idp, &parts, "/userinfo", "openid").await {
        Ok(Bearer { token, standing }) => {
            no_store(StatusCode::OK, &claims(&token, &standing.person.user))
        }
        Err(refused) => refused,
    }
}

fn claims(token: &AccessToken, user: &User) -> Value {
    let mut claims = json!({"sub": user.id});
    if token.scopes.contains("email")
        && let Some(email) = &user.email
    {
        claims["email"] = email.as_str().into();
        claims["email_verified"] = user.email_verified.into();
    }
    if token.scopes.contains("profile") {
        claims["preferred_username"] = user.username.as_str().into();
        if let Some(name) = &user.display_name {
            claims["name"] = name.as_str().into();
        }
        if let Some(name) = &user.given_name {
            claims["given_name"] = name.as_str().into();
        }
        if let Some(name) = &user.family_name {
            claims["family_name"] = name.as_str().into();
        }
    }
    if token.scopes.contains("groups") {
        claims["groups"] = user.groups.iter().cloned().collect();
    }
    claims
}
