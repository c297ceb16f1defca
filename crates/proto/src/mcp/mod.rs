//! MCP: messages, the headers that repeat them, rules for operations, caller assertions and call
//! records.

pub mod call_record;
pub mod caller_assertion;
pub mod headers;
pub mod message;
pub mod operation_policy;
