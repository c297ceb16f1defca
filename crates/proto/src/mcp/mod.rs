//! MCP: messages, the headers that repeat them, rules for single operations, and whom a gateway tells of.

pub mod call_record;
pub mod caller_assertion;
pub mod headers;
pub mod message;
pub mod operation_policy;
