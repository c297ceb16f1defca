//! One MCP message, parsed only as far as routing needs, and serialized anew.

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeMap;

pub(super) type Members = BTreeMap<String, Box<RawValue>>;

/// A JSON-RPC message, read as far as routing needs.
#[derive(Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    pub(super) method: Option<String>,
    #[serde(borrow)]
    pub(super) params: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, &'static str> {
        if text.trim_start().starts_with('[') {
            return Err("Batches are not passed on to this MCP server; send single messages.");
        }
        let message: Self =
            serde_json::from_str(text).map_err(|_| "The message is not JSON-RPC.")?;
        let answers = message.result.is_some() || message.error.is_some();
        if message.method.is_some() == answers || (answers && message.id.is_none()) {
            return Err("The message is neither a request nor an answer.");
        }
        Ok(message)
    }

    pub(super) fn id(&self) -> Option<&'a RawValue> {
        self.id
    }

    pub(super) fn method(&self) -> Option<&str> {
        self.method.as_deref()
    }

    pub(super) fn is_request(&self) -> bool {
        self.method.is_some() && self.id.is_some()
    }

    pub(super) fn params(&self) -> Members {
        let params = self.params.and_then(|params| serde_json::from_str(params.get()).ok());
        params.unwrap_or_default()
    }
}

/// A message as it is sent: only known members.
#[derive(Serialize)]
pub(super) struct Written<'a> {
    pub(super) jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) params: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<&'a RawValue>,
}

impl Written<'_> {
    /// The message on one line, as needed for line-based streams and the data of an event.
    pub(super) fn line(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        // In JSON a line break occurs only between tokens, where a space means the same.
        text.replace(['\n', '\r'], " ")
    }
}

/// Serializes maps with string keys, strings and numbers, which cannot fail.
pub(super) fn raw(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
