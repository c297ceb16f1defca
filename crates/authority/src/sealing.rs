//! Secrets of other parties at rest: sealed under the key-encryption key, which only the binary
//! holds. A database alone opens none of them.

use passavant_proto::secret::Secret;
use std::sync::Arc;

type Seal = Arc<dyn Fn(&str, &[u8]) -> Result<String, String> + Send + Sync>;
type Open = Arc<dyn Fn(&str, &str) -> Result<Vec<u8>, String> + Send + Sync>;

/// Seals and opens. Each value is bound to a label, so that one cannot be put in place of another.
/// Cheap to clone.
#[derive(Clone)]
pub struct Sealing {
    seal: Seal,
    open: Open,
}

impl Sealing {
    /// Sealing by these two functions of label and value.
    pub fn new(
        seal: impl Fn(&str, &[u8]) -> Result<String, String> + Send + Sync + 'static,
        open: impl Fn(&str, &str) -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Self {
        Self { seal: Arc::new(seal), open: Arc::new(open) }
    }

    /// For a server that has no key-encryption key: nothing can be sealed or opened.
    pub fn none() -> Self {
        let none = || "this server has no key-encryption key".to_owned();
        Self::new(move |_, _| Err(none()), move |_, _| Err(none()))
    }

    /// The value, sealed.
    pub fn seal(&self, label: &str, value: &[u8]) -> Result<String, String> {
        (self.seal)(label, value)
    }

    /// A sealed value.
    pub fn open(&self, label: &str, sealed: &str) -> Result<Vec<u8>, String> {
        (self.open)(label, sealed)
    }

    /// A sealed text.
    pub fn open_text(&self, label: &str, sealed: &str) -> Result<Secret, String> {
        let text = String::from_utf8(self.open(label, sealed)?);
        text.map(Secret::new).map_err(|_| "it is not a text".to_owned())
    }
}
