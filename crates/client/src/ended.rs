//! Access that has ended: what is kept of it is dropped in every process, and the person is told who
//! ended it, when, and what to do.

use crate::{
    client::Client,
    error::Error,
    settings::Credential,
    vault::{EndedSignIn, Session},
};
use passavant_outbound::{OAuthError, Reach};
use passavant_proto::{jose::jws, others_text::shown, time::Timestamp};
use std::{fmt, sync::atomic::Ordering};

/// After this time without a renewal, and after this time since the person signed in, a sign-in may
/// have expired by itself, in seconds: nobody has to have ended it.
const IDLE: i64 = 8 * 3600;
const ABSOLUTE: i64 = 7 * 86_400;
/// Longest name of a company in a message, in characters.
const LONGEST_NAME: usize = 60;
/// Before anything was read of the vault.
pub(crate) const UNREAD: u64 = u64::MAX;

/// Access that somebody has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessEnded {
    /// What it was.
    pub what: EndedAccess,
    /// Who ended it: the company's name, or the host of the party that refuses.
    pub by: String,
    /// When this client learnt of it.
    pub at: Timestamp,
    when: String,
}

/// What has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndedAccess {
    /// The sign-in at the IdP.
    SignIn,
    /// The enrolment of this computer there, with the sign-in.
    Enrolment,
    /// The access to one MCP server: its token was revoked, and policy allows no other.
    Server {
        /// Its URL.
        url: String,
        /// Why there is no other token.
        why: String,
    },
}

impl AccessEnded {
    fn new(what: EndedAccess, by: &str, at: Timestamp, now: Timestamp) -> Self {
        Self { what, by: by.to_owned(), at, when: time_of_day(at, now) }
    }

    /// What happened, in one sentence.
    pub fn sentence(&self) -> String {
        match &self.what {
            EndedAccess::SignIn | EndedAccess::Enrolment => {
                format!("Access was ended by {} at {}.", self.by, self.when)
            }
            EndedAccess::Server { url, why } => {
                format!("Access to {url} was ended by {} at {}: {why}", self.by, self.when)
            }
        }
    }

    /// What the person can do.
    pub fn advice(&self) -> &'static str {
        match self.what {
            EndedAccess::SignIn => "run `passavant login`; if the sign-in page refuses you, ask IT",
            EndedAccess::Enrolment => {
                "run `passavant login`, which enrols this computer again; if the sign-in page \
                 refuses you, ask IT"
            }
            EndedAccess::Server { .. } => "this is the company's policy; ask IT",
        }
    }
}

impl std::error::Error for AccessEnded {}

impl fmt::Display for AccessEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nhint: {}", self.sentence(), self.advice())
    }
}

impl Client {
    /// The sign-in that the IdP has ended, until the person signs in again.
    pub async fn ended(&self) -> Result<Option<AccessEnded>, Error> {
        let session = self.0.vault.load().await?.filter(|session| self.is_ours(session));
        let now = self.0.clock.now();
        Ok(session.and_then(|session| session.ended).and_then(|ended| {
            let what = if ended.enrolment { EndedAccess::Enrolment } else { EndedAccess::SignIn };
            Some(AccessEnded::new(what, ended.by.as_deref()?, Timestamp(ended.at), now))
        }))
    }

    /// Why there is no sign-in.
    pub(crate) async fn nobody_signed_in(&self) -> Error {
        match self.ended().await {
            Ok(Some(ended)) => Error::AccessEnded(Box::new(ended)),
            Ok(None) => self.sign_in_needed(),
            Err(error) => error,
        }
    }

    /// Drops everything that came from a sign-in whose tokens the IdP refuses. The caller does not
    /// hold the lock.
    pub(crate) async fn sign_in_over(&self, refused: &Session) -> Error {
        match self.drop_sign_in(refused, false).await {
            Ok(()) => self.nobody_signed_in().await,
            Err(error) => error,
        }
    }

    /// If an error says that the IdP does not know this installation any more, and the IdP does not
    /// publish it either, drops everything that came from its sign-in.
    pub(crate) async fn unless_unenrolled(&self, error: Error) -> Error {
        let own = &self.0.settings.idp_client;
        let by_key = matches!(own.credential, Credential::Key(_)) && own.is_document();
        if !matches!(error, Error::EnrolmentEnded { .. }) || !by_key {
            return error;
        }
        // A client assertion may also be refused for a clock that is wrong.
        let reach = Reach::of_trusted_url(self.0.settings.idp.as_str());
        let published = self.0.outbound.get(&own.client_id, reach).await;
        if !published.is_ok_and(|answer| answer.status == 404) {
            return error;
        }
        let session = match self.session().await {
            Ok(Some(session)) => session,
            Ok(None) => return self.nobody_signed_in().await,
            Err(error) => return error,
        };
        match self.drop_sign_in(&session, true).await {
            Ok(()) => self.nobody_signed_in().await,
            Err(error) => error,
        }
    }

    async fn drop_sign_in(&self, refused: &Session, enrolment: bool) -> Result<(), Error> {
        let by = self.company_name().await;
        let vault = &self.0.vault;
        let _lock = vault.lock().await?;
        // The person may have signed in again meanwhile.
        if self.session().await?.is_none_or(|held| held.id_token != refused.id_token) {
            return Ok(());
        }
        let now = self.0.clock.now().0;
        let id_token = jws::peek(&refused.id_token).ok();
        let signed_in = id_token
            .as_ref()
            .and_then(|(_, claims)| claims.optional_time("auth_time").ok().flatten());
        let is_old =
            now - refused.renewed_at >= IDLE || signed_in.is_some_and(|at| now - at.0 >= ABSOLUTE);
        let may_have_expired = !enrolment && refused.id_token_expires <= now && is_old;
        let ended = EndedSignIn {
            at: now,
            by: (!may_have_expired).then_some(by),
            subject: crate::sign_in::subject_of(&refused.id_token),
            enrolment,
        };
        let left = Session {
            issuer: refused.issuer.clone(),
            idp_client_id: refused.idp_client_id.clone(),
            name: refused.name.clone(),
            id_token: String::new(),
            id_token_expires: 0,
            refresh_token: None,
            renewed_at: 0,
            access_token: None,
            access_token_expires: 0,
            ended: Some(ended),
        };
        vault.store(Some(&left)).await?;
        self.forget_granted().await
    }

    /// An error about an MCP server that had accepted a token, which it refuses now before its time:
    /// the company has ended the access, if its policy allows no other token.
    pub(crate) async fn server_ended(&self, url: &str, error: Error) -> Error {
        let Error::RefusedByPolicy { party, error } = error else { return error };
        let at_idp = party == self.0.settings.idp.as_str();
        let by = if at_idp { self.company_name().await } else { host_of(&party) };
        let why = match self.refusal(url).await.filter(|_| at_idp) {
            Some(why) => why,
            None => said(&party, &error),
        };
        let now = self.0.clock.now();
        let what = EndedAccess::Server { url: url.to_owned(), why };
        Error::AccessEnded(Box::new(AccessEnded::new(what, &by, now, now)))
    }

    /// The company's name as its IdP announces it, or else the IdP's host.
    async fn company_name(&self) -> String {
        let metadata = self.idp_metadata().await.ok();
        let name = metadata.as_ref().and_then(|found| found.organization_name.as_deref());
        let name = name.map(|name| shown(name, LONGEST_NAME)).filter(|name| !name.is_empty());
        name.unwrap_or_else(|| host_of(self.0.settings.idp.as_str()))
    }

    /// Forgets what this process holds in memory, if a process has ended the sign-in since.
    pub(crate) async fn follow_vault(&self) -> Result<(), Error> {
        let now = self.0.vault.generation().await?;
        let before = self.0.generation.swap(now, Ordering::Relaxed);
        if before != now && before != UNREAD {
            self.forget_in_memory();
        }
        Ok(())
    }
}

fn said(party: &str, error: &OAuthError) -> String {
    format!("{party} refused: {error}")
}

fn host_of(url: &str) -> String {
    url.split('/').nth(2).unwrap_or(url).to_owned()
}

/// "14:03 UTC", with the date if that is not today's.
fn time_of_day(at: Timestamp, now: Timestamp) -> String {
    const DAY: i64 = 86_400;
    let (days, seconds) = (at.0.div_euclid(DAY), at.0.rem_euclid(DAY));
    let time = format!("{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60);
    if days == now.0.div_euclid(DAY) {
        return time;
    }
    // The civil date of a day since 1970, in years that begin in March.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {time}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_of_another_day_has_its_date() {
        let at = |seconds| time_of_day(Timestamp(seconds), Timestamp(1_709_216_999));
        assert_eq!(at(1_709_215_380), "14:03 UTC");
        assert_eq!(at(1_709_164_799), "2024-02-28 23:59 UTC");
        assert_eq!(at(1_709_251_200), "2024-03-01 00:00 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(at(0), "1970-01-01 00:00 UTC");
    }
}
