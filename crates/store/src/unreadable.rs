//! Which stored records cannot be read, and why: for whoever watches.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Longest explanation that is kept, in characters.
const LONGEST: usize = 300;

pub(crate) fn shortened(text: &str) -> String {
    passavant_proto::others_text::shown(text, LONGEST)
}

/// The rows that cannot be read, by kind and id, and why; as of the last look at each.
#[derive(Debug, Default)]
pub(crate) struct Unreadable(Mutex<BTreeMap<(&'static str, String), String>>);

impl Unreadable {
    /// Notes what a look at one row found; said in the log when it is news.
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
                        "a stored record cannot be read, and counts as not there"
                    );
                }
            }
        }
    }

    /// A row is gone.
    pub(crate) fn forget(&self, kind: &'static str, id: &str) {
        self.note(kind, id, None);
    }

    /// Forgets rows of a kind that are gone.
    pub(crate) fn retain(&self, kind: &'static str, is_there: impl Fn(&str) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(of, id), _| *of != kind || is_there(id));
    }

    /// Forgets what was said of all rows: another node may have mended or removed them.
    pub(crate) fn forget_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// All of them: kind, id and why.
    pub(crate) fn all(&self) -> Vec<(&'static str, String, String)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|((kind, id), why)| (*kind, id.clone(), why.clone())).collect()
    }
}
