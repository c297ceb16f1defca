//! Sign-in with a browser on another device (RFC 8628): this device shows a code, and polls for the
//! result.

use crate::error::{Error, Leg};
use passavant_outbound::{Answer, Discovered, OAuthError, OutboundError};
use passavant_proto::{GRANT_DEVICE_CODE, others_text::shown, secret::Secret};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What the person has to be shown: the page to open, and the code to type there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The page to open, on any device.
    pub verification_uri: String,
    /// The code to type there.
    pub user_code: String,
}

#[derive(Deserialize)]
struct DeviceAnswer {
    device_code: String,
    user_code: String,
    verification_uri: String,
    #[serde(default, deserialize_with = "crate::obtain::lifetime")]
    expires_in: Option<i64>,
    #[serde(default, deserialize_with = "crate::obtain::lifetime")]
    interval: Option<i64>,
}

/// Longest wait for the person, in seconds.
const PATIENCE: i64 = 1800;
/// Shortest and longest interval between two polls, in seconds.
const INTERVAL: (i64, i64) = (1, 60);

/// A device code that waits for its person.
pub(crate) struct DeviceFlow {
    pub(crate) prompt: Prompt,
    device_code: Secret,
    interval: Duration,
    ends: Instant,
}

/// The device authorization endpoint.
pub(crate) fn endpoint(metadata: &Discovered) -> Result<&str, Error> {
    metadata.device_authorization_endpoint.as_deref().ok_or_else(|| {
        Error::Discovery(format!(
            "{} does not offer the device authorization grant (RFC 8628): sign in with a browser, and paste the \
             address at which it ends",
            metadata.issuer
        ))
    })
}

impl DeviceFlow {
    /// Parses the response of that endpoint.
    pub(crate) fn begin(metadata: &Discovered, leg: Leg, answer: &Answer) -> Result<Self, Error> {
        if answer.status != 200 {
            let (party, error) = (metadata.issuer.clone(), OAuthError::of(answer));
            return Err(Error::Refused { leg, party, error });
        }
        let bad = |what: String| Error::BadAnswer { leg, what };
        let read: DeviceAnswer = answer.json().map_err(|e| bad(e.to_string()))?;
        // The URL is printed for a person to open: it has to be a web page, and contain nothing
        // that a terminal would interpret.
        let page = url::Url::parse(&read.verification_uri).ok();
        let page = page.filter(|url| {
            // User information could hide where the URL leads.
            let plain = url.username().is_empty() && url.password().is_none();
            matches!(url.scheme(), "https" | "http")
                && url.has_host()
                && plain
                && url.as_str().len() <= 300
        });
        let page = page
            .ok_or_else(|| bad("its verification_uri is not the URL of a web page".to_owned()))?;
        let user_code = shown(&read.user_code, 64);
        let interval = read.interval.unwrap_or(5).clamp(INTERVAL.0, INTERVAL.1).unsigned_abs();
        let lifetime = read.expires_in.unwrap_or(600).clamp(0, PATIENCE).unsigned_abs();
        Ok(Self {
            prompt: Prompt { verification_uri: page.into(), user_code },
            device_code: Secret::new(read.device_code),
            interval: Duration::from_secs(interval),
            ends: Instant::now() + Duration::from_secs(lifetime),
        })
    }

    /// Polls until the person has answered. `ask` sends the parameters to the token endpoint and
    /// returns its response.
    pub(crate) async fn wait(
        mut self,
        leg: Leg,
        party: &str,
        ask: impl AsyncFn([(&'static str, Secret); 2]) -> Result<Answer, Error>,
    ) -> Result<Answer, Error> {
        loop {
            sleep(self.interval).await;
            if Instant::now() >= self.ends {
                return Err(Error::Callback("the code was not entered in time".to_owned()));
            }
            let form = [
                ("grant_type", Secret::new(GRANT_DEVICE_CODE)),
                ("device_code", self.device_code.clone()),
            ];
            let answer = match ask(form).await {
                // RFC 8628 section 3.5: a connection failure is no reason to give up.
                Err(Error::Outbound(OutboundError::Unreachable { .. })) => {
                    self.slow_down();
                    continue;
                }
                answer => answer?,
            };
            if answer.status == 200 {
                return Ok(answer);
            }
            let error = OAuthError::of(&answer);
            match error.error.as_str() {
                "authorization_pending" => {}
                "slow_down" => self.slow_down(),
                _ if answer.status == 429 || answer.status >= 500 => self.slow_down(),
                "access_denied" => {
                    return Err(Error::Callback(
                        "the person who entered the code denied the request".to_owned(),
                    ));
                }
                "expired_token" => {
                    return Err(Error::Callback("the code was not entered in time".to_owned()));
                }
                _ => return Err(Error::Refused { leg, party: party.to_owned(), error }),
            }
        }
    }

    fn slow_down(&mut self) {
        self.interval += Duration::from_secs(5);
    }
}
