//! Who acts, on which server, and with which rights.

use super::ActError;
use crate::servers::Deps;
use passavant_proto::{
    event::{Act, Detail, Event},
    time::Timestamp,
};
use passavant_store::{
    AdminRole, AuditEvent, Expects, Generation, Once, Put, Record, RestsOn, StoreError, Terms,
};
use std::ops::Deref;

/// The name in audit rows of whoever uses the secret of the config.
pub(crate) const BY_SECRET: &str = "the config's secret";
/// The name in audit rows of whoever uses the socket in the config's folder.
pub(crate) const BY_SOCKET: &str = "the local owner";

/// The administrator behind a request.
#[derive(Clone, Debug)]
pub struct By {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) request_id: String,
    /// `None` for whoever uses the secret of the config, or its socket.
    pub(crate) rests_on: Option<RestsOn>,
    /// The idempotency key of the request, if it has one.
    pub(crate) once: Option<Once>,
}

impl By {
    /// Their name, or the kind of access they used.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The event of one of their acts.
    pub fn act(&self, act: Act, kind: &'static str, now: Timestamp) -> AuditEvent {
        let mut event = AuditEvent::granted(Event::Admin(act, kind), now)
            .with(Detail::By, self.name.as_str())
            .with(Detail::Address, self.address.as_str())
            .with(Detail::RequestId, self.request_id.as_str());
        event.rests_on.clone_from(&self.rests_on);
        if let Some(once) = &self.once {
            event.terms = Some(Box::new(Terms { once: Some(once.clone()), ..Terms::default() }));
        }
        event
    }
}

/// The rights that an act requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    Read,
    CutOff,
    Change,
    Appoint,
}

impl Need {
    /// The lowest role that has them.
    pub(crate) const fn least(self) -> AdminRole {
        match self {
            Self::Read => AdminRole::Auditor,
            Self::CutOff => AdminRole::Helpdesk,
            Self::Change => AdminRole::Admin,
            Self::Appoint => AdminRole::Owner,
        }
    }
}

/// The dependencies of an act, together with the administrator: events can only be made with one.
pub(crate) struct ActContext {
    pub(crate) deps: Deps,
    pub(crate) by: By,
    /// The ETag that the record still has to have.
    pub(crate) expects: Option<String>,
    /// The generation of the policy that the act was checked against, if it was.
    pub(crate) policy: Option<Generation>,
}

impl Deref for ActContext {
    type Target = Deps;

    fn deref(&self) -> &Deps {
        &self.deps
    }
}

impl ActContext {
    /// The event of an act that does not concern a record of the directory.
    pub(crate) fn act(&self, act: Act, kind: &'static str) -> AuditEvent {
        self.by.act(act, kind, self.now())
    }

    /// The event of an act on a record.
    pub(crate) fn event<R: Record>(&self, act: Act, id: &str) -> AuditEvent {
        let mut event = self.act(act, R::KIND).with(Detail::Record, id);
        // Disabling is not checked against other records, so it never conflicts with a concurrent
        // change.
        if let Some(policy) = self.policy.filter(|_| act != Act::Disable) {
            event.terms.get_or_insert_default().policy = Some(policy);
        }
        if let Some(tag) = &self.expects {
            let expects = Expects { kind: R::KIND, id: id.to_owned(), tag: tag.clone() };
            event.terms.get_or_insert_default().expects = Some(expects);
        }
        event
    }

    /// All records of a kind, for checks that concern all of them. It fails if one cannot be read.
    pub(crate) async fn all_readable<R: Record>(&self) -> Result<Vec<R>, ActError> {
        let readings = self.store.readings::<R>().await?;
        match readings.unreadable.first() {
            None => Ok(readings.records),
            Some((id, _)) => Err(ActError::conflict(
                format!(
                    "the stored {} `{id}` cannot be read, so it is unknown whether it conflicts \
                     with this change",
                    R::KIND
                ),
                "delete it, or use the version of Passavant that wrote it",
            )),
        }
    }

    /// Adds a record.
    pub(crate) async fn create<R: Record>(&self, record: &R) -> Result<(), ActError> {
        self.add(record, self.event::<R>(Act::Create, &record.id())).await
    }

    /// Like [`Self::create`], with more details in the event.
    pub(crate) async fn add<R: Record>(
        &self,
        record: &R,
        event: AuditEvent,
    ) -> Result<(), ActError> {
        self.store.put(record, Put::Create, event).await?;
        Ok(())
    }

    /// One record by id.
    pub(crate) async fn find<R: Record>(&self, noun: &str, id: &str) -> Result<R, ActError> {
        self.store.by_id(id).await?.ok_or_else(|| ActError::missing(noun, id))
    }

    /// Changes an existing record.
    pub(crate) async fn change<R: Record>(
        &self,
        (noun, id): (&str, &str),
        act: Act,
        change: impl FnOnce(&mut R) + Send,
    ) -> Result<R, ActError> {
        let event = self.event::<R>(act, id);
        let changed = self.store.update(id, change, event).await?;
        changed.ok_or_else(|| ActError::missing(noun, id))
    }
}

impl From<StoreError> for ActError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NameTaken { .. } => Self::conflict(
                error.to_string(),
                "change the existing record, or choose another name for this one",
            ),
            StoreError::LastOwner(_) => Self::conflict(
                error.to_string(),
                "appoint another owner first, or use the administration secret of the config",
            ),
            StoreError::NoAdministrator => Self::Gone,
            StoreError::Changed => Self::Changed,
            StoreError::Stale => Self::Stale,
            StoreError::DoneBefore => Self::DoneBefore,
            StoreError::Document(..) => Self::conflict(
                error.to_string(),
                "use the version of Passavant that wrote it, or delete it; until then it is \
                 treated as absent",
            ),
            error => Self::Broken(error),
        }
    }
}
