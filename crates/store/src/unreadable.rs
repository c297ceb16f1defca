//! Which stored records cannot be read, and why: for monitoring.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Maximum length of a stored explanation, in characters.
const LONGEST: usize = 300;

pub(crate) fn shortened(text: &str) -> String {
    passavant_proto::others_text::shown(text, LONGEST)
}

/// The rows that could not be read when they were last looked at, by kind and id, and why.
#[derive(Debug, Default)]
pub(crate) struct Unreadable(Mutex<BTreeMap<(&'static str, String), String>>);

impl Unreadable {
    /// Notes the result of reading one row. Logs it if it is new.
    pub(crate) fn note(&self, kind: &'static str, id: &str, why: Option<&str>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (kind, id.to_owned());
        match why {
            None => {
                all.remove(&key);
            }
            Some(why) => {
                let id = shortened(id);
                if all.insert(key, why.to_owned()).as_deref() != Some(why) {
                    tracing::error!(
                        kind,
                        id,
                        why,
                        "a stored record cannot be read, and is treated as absent"
                    );
                }
            }
        }
    }

    /// Forgets a row that was deleted.
    pub(crate) fn forget(&self, kind: &'static str, id: &str) {
        self.note(kind, id, None);
    }

    /// Forgets rows of a kind that no longer exist.
    pub(crate) fn retain(&self, kind: &'static str, is_there: impl Fn(&str) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(of, id), _| *of != kind || is_there(id));
    }

    /// Forgets all rows: another node may have repaired or removed them.
    pub(crate) fn forget_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// All of them: kind, id and reason.
    pub(crate) fn all(&self) -> Vec<(&'static str, String, String)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|((kind, id), why)| (*kind, id.clone(), why.clone())).collect()
    }
}
