//! Administrators with names, the same at both servers: added, renewed and removed by owners alone. Their tokens are
//! shown once and stored as what checks them.

use super::{
    AdminError,
    acting::{Acting, Administration, Desk},
    ground::Ground,
    proof,
    records::Body,
};
use axum::{
    Json, Router,
    http::StatusCode,
    routing::{get, post},
};
use passavant_proto::event::{Act, Detail};
use passavant_proto::secret::Secret;
use passavant_store::{AdminRole, Administrator, Record};
use serde::Deserialize;
use serde_json::{Value, json};

/// Days that a token is good for unless something else is asked for, and at most.
const DAYS: [i64; 2] = [90, 366];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAdministrator {
    name: String,
    role: AdminRole,
    days: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Renewal {
    name: String,
    days: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

impl Administration for Ground {
    fn ground(&self) -> &Ground {
        self
    }
}

/// Routes of administrators.
pub(super) fn routes(ground: Ground) -> Router {
    async fn list(acting: Acting<Ground>) -> Result<Json<Value>, AdminError> {
        let all = acting.desk.store.all::<Administrator>().await?;
        let mut shown: Vec<Value> = all.iter().map(view).collect();
        shown.extend(acting.desk.unreadable(Administrator::KIND));
        Ok(Json(shown.into()))
    }
    async fn add(
        acting: Acting<Ground>,
        Body(new): Body<NewAdministrator>,
    ) -> Result<Json<Value>, AdminError> {
        acting.desk.add_administrator(new).await
    }
    async fn renew(
        acting: Acting<Ground>,
        Body(renewal): Body<Renewal>,
    ) -> Result<Json<Value>, AdminError> {
        acting.desk.renew_administrator(renewal).await
    }
    async fn remove(
        acting: Acting<Ground>,
        Body(named): Body<Named>,
    ) -> Result<StatusCode, AdminError> {
        acting.desk.delete::<Administrator>(&named.name).await
    }
    Router::new()
        .route("/administrators", get(list).post(add))
        .route("/administrators/renew", post(renew))
        .route("/administrators/delete", post(remove))
        .with_state(ground)
}

/// What is shown of an administrator: never what a token is checked by.
fn view(administrator: &Administrator) -> Value {
    let Administrator { name, role, expires_at, created_at, added_by, proof: _ } = administrator;
    json!({"name": name, "role": role, "expires_at": expires_at, "created_at": created_at,
           "added_by": added_by})
}

/// With the token itself, which is shown this once.
fn view_with(administrator: &Administrator, token: &Secret) -> Json<Value> {
    let mut shown = view(administrator);
    shown["token"] = token.expose().into();
    Json(shown)
}

/// Whether this can be an administrator's name.
pub(super) fn is_name(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= 64
        && bytes.first().is_some_and(|first| letter(*first))
        && bytes.iter().all(|b| letter(*b) || b"-_.@+".contains(b))
}

fn seconds(days: Option<i64>) -> Result<i64, AdminError> {
    let days = days.unwrap_or(DAYS[0]);
    if (1..=DAYS[1]).contains(&days) {
        return Ok(days * 86_400);
    }
    Err(AdminError::invalid(
        format!("`days`: {days} is not from 1 to {}", DAYS[1]),
        "leave it out for 90 days",
    ))
}

impl Desk {
    async fn add_administrator(&self, new: NewAdministrator) -> Result<Json<Value>, AdminError> {
        if !is_name(&new.name) {
            return Err(AdminError::invalid(
                format!("`name`: `{}` cannot name an administrator", new.name),
                "use 1 to 64 lower-case letters, digits and - _ . @ +, a letter or digit first: an e-mail address, say",
            ));
        }
        let now = self.now();
        let token = proof::token_of(&new.name, &self.entropy.secret());
        let administrator = Administrator {
            proof: proof::stored(&token),
            name: new.name,
            role: new.role,
            expires_at: now.plus(seconds(new.days)?),
            created_at: now,
            added_by: self.by.name().to_owned(),
        };
        let event = self.event::<Administrator>(Act::Create, &administrator.id());
        let event = event
            .with(Detail::Role, administrator.role.word())
            .with(Detail::Ends, administrator.expires_at.0.to_string());
        self.add(&administrator, event).await?;
        Ok(view_with(&administrator, &token))
    }

    /// Another token: the one before ends at once.
    async fn renew_administrator(&self, renewal: Renewal) -> Result<Json<Value>, AdminError> {
        let token = proof::token_of(&renewal.name, &self.entropy.secret());
        let ends = self.now().plus(seconds(renewal.days)?);
        let held = proof::stored(&token);
        let renewed = self
            .change_record::<Administrator>(&renewal.name, Act::Renew, |administrator| {
                administrator.proof = held;
                administrator.expires_at = ends;
            })
            .await?;
        Ok(view_with(&renewed, &token))
    }
}
