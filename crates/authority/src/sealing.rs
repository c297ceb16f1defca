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
    passing: Option<(Seal, Open)>,
}

impl Sealing {
    /// Sealing by these two functions of label and value.
    pub fn new(
        seal: impl Fn(&str, &[u8]) -> Result<String, String> + Send + Sync + 'static,
        open: impl Fn(&str, &str) -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Self {
        Self { seal: Arc::new(seal), open: Arc::new(open), passing: None }
    }

    /// The same, with functions of its own for what passes through browsers: strangers cause it, and
    /// nothing of it is kept.
    #[must_use]
    pub fn passing(
        mut self,
        seal: impl Fn(&str, &[u8]) -> Result<String, String> + Send + Sync + 'static,
        open: impl Fn(&str, &str) -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Self {
        self.passing = Some((Arc::new(seal), Arc::new(open)));
        self
    }

    /// A value that a browser brings back, sealed.
    pub fn seal_passing(&self, label: &str, value: &[u8]) -> Result<String, String> {
        let seal = self.passing.as_ref().map_or(&self.seal, |(seal, _)| seal);
        seal(label, value)
    }

    /// A value that a browser brought back.
    pub fn open_passing(&self, label: &str, sealed: &str) -> Result<Vec<u8>, String> {
        let open = self.passing.as_ref().map_or(&self.open, |(_, open)| open);
        open(label, sealed)
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
