//! The administration API of one role, asked by a program that proves its secret and does not send it.

use anyhow::{Context, Result, bail};
use passavant_admin::proof;
use passavant_host as system;
use passavant_host::plain;
use passavant_outbound::{Answer, Bounds, Outbound, Reach};
use passavant_proto::secret::Secret;
use serde_json::Value;
use url::{Position, Url};

/// Largest answer that is read, in bytes: lists of people are long.
const LARGEST: usize = 32 * 1024 * 1024;

/// The administration API of one role.
pub(super) struct Api {
    pub(super) base: String,
    pub(super) role: String,
    pub(super) secret: Secret,
    /// How the same place is named on a command line again.
    pub(super) again: String,
    pub(super) outbound: Outbound,
}

impl Api {
    /// Sends a request that proves the secret and does not carry it: whoever else holds the port learns nothing, and
    /// is not believed (the answer proves the same).
    pub(super) async fn send(
        &self,
        method: &str,
        target: &str,
        body: Option<Value>,
    ) -> Result<Answer> {
        let base = &self.base;
        let absent = || {
            format!(
                "the administration API at {base} is not there\nhint: is `passavant serve` running?"
            )
        };
        let reach = Reach::Loopback;
        let url = format!("{base}{}", proof::CHALLENGE);
        let asked = self.outbound.json("GET", &url, reach, None, None).await;
        let asked = asked.with_context(absent)?;
        let challenge = asked.json::<Value>().ok().and_then(|value| {
            let text = value.get("challenge")?.as_str()?;
            (asked.status == 200 && text.len() <= 200 && text.is_ascii()).then(|| text.to_owned())
        });
        let Some(challenge) = challenge else {
            bail!(
                "whoever answers at {base} is not the administration API (HTTP {}); the secret was not \
                 sent\nhint: does another program listen there?",
                asked.status
            );
        };
        let url = Url::parse(&format!("{base}{target}"))?;
        let target = &url[Position::BeforePath..Position::AfterQuery];
        let bytes = body.as_ref().map(Value::to_string).unwrap_or_default();
        let nonce = system::entropy().id();
        let proves = (challenge.as_str(), nonce.as_str());
        let asked = proof::Asked { method, target, body: bytes.as_bytes() };
        let bearer = proof::of_request(&self.secret, proves, asked);
        let sent = self.outbound.json_within(
            (method, url.as_str()),
            reach,
            Some(&bearer),
            body.as_ref(),
            Bounds { bytes: LARGEST, ..Bounds::default() },
        );
        let answer = sent.await.with_context(absent)?;
        let token = proof::name_in(&self.secret).is_some();
        let given = (answer.status, answer.body.as_ref());
        let shown = answer.headers.get(proof::ANSWER).and_then(|value| value.to_str().ok());
        if !shown.is_some_and(|shown| proof::is_answer(&self.secret, &bearer, given, shown)) {
            bail!(
                "whoever answers at {base} does not know {} (HTTP {}); nothing else it says is \
                 believed, and the secret was not sent\nhint: {}; or another program listens there, or a server of \
                 another version",
                if token { "this administrator's token" } else { "this administration secret" },
                answer.status,
                if token {
                    "it may have been replaced or removed (ask an owner), or be another server's (--ras NAME, --config FILE)"
                } else {
                    "is this the server's secret file?"
                }
            );
        }
        Ok(answer)
    }

    pub(super) async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let answer = self.send(method, &format!("{}{path}", self.role), body).await?;
        let value: Value = answer.json().unwrap_or(Value::Null);
        match answer.status {
            200..=299 => Ok(value),
            404 if value.is_null() => {
                bail!(
                    "this is not offered for {}\nhint: some things need --ras NAME, others must \
                       not have it",
                    if self.role == "/idp" {
                        "the identity provider"
                    } else {
                        "a \
                       resource authorization server, or there is none of this name"
                    }
                )
            }
            status => {
                let text = |name: &str| value.get(name).and_then(Value::as_str).map(plain);
                let error = text("error").unwrap_or_else(|| format!("HTTP {status}"));
                match text("hint") {
                    Some(hint) => bail!("{error}\nhint: {hint}"),
                    None => bail!("{error}"),
                }
            }
        }
    }
}
