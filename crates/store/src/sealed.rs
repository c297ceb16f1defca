//! Everything that is sealed under the key-encryption key, for sealing it anew under another one.

use crate::{
    database::{Store, StoreError, reading},
    directory::{Put, read, write},
    record::Record,
};
use passavant_proto::{
    identifier::SubjectIssuer,
    oidc::upstream::{UpstreamAuthentication, UpstreamProvider},
    xaa::trust::SubjectLink,
};
use sqlx::{AssertSqlSafe, Row};

/// Where a sealed value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedAt {
    /// A signing key, by its id.
    SigningKey(String),
    /// The secret or key that an upstream knows us by.
    Upstream(String),
    /// The refresh token that a session is checked with.
    Session(String),
    /// The refresh token that is kept with a link.
    Link(SubjectLink),
    /// The seed of a person's one-time passwords.
    Seed(String),
    /// The header that signals are posted with, by the stream's id.
    Stream(String),
}

impl SealedAt {
    /// What the value is bound to: it opens nowhere else.
    pub fn label(&self) -> String {
        match self {
            Self::SigningKey(kid) => kid.clone(),
            Self::Upstream(name) => format!("upstream {name}"),
            Self::Session(sid) => format!("upstream session {sid}"),
            Self::Link(link) => format!("upstream link {}", link.key()),
            Self::Seed(user_id) => format!("totp {user_id}"),
            Self::Stream(id) => format!("signal stream {id}"),
        }
    }
}

impl SealedAt {
    /// Whether a label is that of a secret of an upstream: there are few, and names have no spaces.
    pub fn is_of_upstream(label: &str) -> bool {
        label.strip_prefix("upstream ").is_some_and(|name| !name.contains(' '))
    }
}

/// The sealed values of an upstream's record.
fn secrets_of(upstream: &mut UpstreamProvider) -> Vec<&mut String> {
    match &mut upstream.authentication {
        UpstreamAuthentication::PrivateKeyJwt(_) => Vec::new(),
        UpstreamAuthentication::Certificate { sealed_key, next, .. } => {
            std::iter::once(sealed_key).chain(next.iter_mut().map(|(_, key)| key)).collect()
        }
        UpstreamAuthentication::SecretPost(sealed)
        | UpstreamAuthentication::SecretBasic(sealed) => vec![sealed],
    }
}

/// What of a database is sealed.
#[derive(Debug, Default)]
pub struct Sealed {
    /// Every sealed value, with where it is.
    pub values: Vec<(SealedAt, String)>,
    /// What holds sealed values, and cannot be read by this version.
    pub unreadable: Vec<String>,
}

impl Store {
    /// Every sealed value.
    pub async fn sealed_values(&self) -> Result<Sealed, StoreError> {
        let mut unreadable = Vec::new();
        let mut all = Vec::new();
        for key in self.signing_keys().await? {
            all.push((SealedAt::SigningKey(key.kid), key.sealed));
        }
        let upstreams = self.readings::<UpstreamProvider>().await?;
        unreadable.extend(upstreams.unreadable.into_iter().map(|(id, _)| format!("upstream {id}")));
        for mut upstream in upstreams.records {
            let name = upstream.name.clone();
            for sealed in secrets_of(&mut upstream) {
                all.push((SealedAt::Upstream(name.clone()), sealed.clone()));
            }
        }
        let sessions = "SELECT sid, sealed FROM upstream_sessions WHERE sealed <> ''";
        for row in &reading!(self, fetch_all, sqlx::query(sessions))? {
            all.push((SealedAt::Session(row.try_get("sid")?), row.try_get("sealed")?));
        }
        let links = "SELECT issuer, tenant, subject, sealed FROM upstream_links WHERE sealed <> ''";
        for row in &reading!(self, fetch_all, sqlx::query(links))? {
            let issuer: &str = row.try_get("issuer")?;
            let Ok(issuer) = SubjectIssuer::parse(issuer) else {
                unreadable.push(format!("a link to {issuer}"));
                continue;
            };
            let tenant: String = row.try_get("tenant")?;
            let tenant = Some(tenant).filter(|tenant| !tenant.is_empty());
            let link = SubjectLink { issuer, tenant, subject: row.try_get("subject")? };
            all.push((SealedAt::Link(link), row.try_get("sealed")?));
        }
        let seeds = "SELECT user_id, sealed FROM totp";
        for row in &reading!(self, fetch_all, sqlx::query(seeds))? {
            all.push((SealedAt::Seed(row.try_get("user_id")?), row.try_get("sealed")?));
        }
        let streams = "SELECT id, sealed FROM signal_streams WHERE sealed <> ''";
        for row in &reading!(self, fetch_all, sqlx::query(streams))? {
            all.push((SealedAt::Stream(row.try_get("id")?), row.try_get("sealed")?));
        }
        Ok(Sealed { values: all, unreadable })
    }

    /// Puts a value that was sealed anew in the place of the one that it was made of, unless somebody
    /// else did so, or wrote something else, meanwhile: `false`.
    pub async fn reseal(&self, at: &SealedAt, was: &str, is: &str) -> Result<bool, StoreError> {
        if let SealedAt::Upstream(name) = at {
            let mut transaction = self.begin_revoking().await?;
            let Some(mut held) = read::<UpstreamProvider>(&mut transaction, name).await? else {
                return Ok(false);
            };
            let mut changed = false;
            for sealed in secrets_of(&mut held).into_iter().filter(|sealed| *sealed == was) {
                is.clone_into(sealed);
                changed = true;
            }
            if changed {
                write(&mut transaction, &held, Put::Replace).await?;
                transaction.commit().await?;
            }
            return Ok(changed);
        }
        let (tables, column, key): (&[&str], &str, &str) = match at {
            SealedAt::SigningKey(kid) => (&["signing_keys", "signing_keys_beside"], "kid", kid),
            SealedAt::Session(sid) => (&["upstream_sessions"], "sid", sid),
            SealedAt::Link(link) => (&["upstream_links"], "subject", &link.subject),
            SealedAt::Seed(user_id) => (&["totp"], "user_id", user_id),
            SealedAt::Stream(id) => (&["signal_streams"], "id", id),
            SealedAt::Upstream(_) => (&[], UpstreamProvider::KIND, ""),
        };
        let mut changed = 0;
        let mut transaction = self.begin_plain().await?;
        for table in tables {
            // A sealed value occurs once: what it is compared with names the row.
            let sql = format!("UPDATE {table} SET sealed = $3 WHERE {column} = $1 AND sealed = $2");
            let done = sqlx::query(AssertSqlSafe(sql)).bind(key).bind(was).bind(is);
            changed += done.execute(&mut *transaction).await?.rows_affected();
        }
        transaction.commit().await?;
        Ok(changed > 0)
    }
}
