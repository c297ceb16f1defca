//! The events of a response that is read as it comes.

use super::post::{LARGEST, Unread};
use crate::events::{Event, Parser};
use std::collections::VecDeque;

/// The events of a response.
pub(super) struct Events {
    response: reqwest::Response,
    parser: Parser,
    ready: VecDeque<Event>,
}

impl Events {
    pub(super) fn of(response: reqwest::Response) -> Self {
        Self { response, parser: Parser::default(), ready: VecDeque::new() }
    }

    /// The next event, or `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Unread> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            match self.response.chunk().await.map_err(Unread::Broken)? {
                Some(chunk) => self.parser.feed(&chunk, &mut self.ready),
                None => return Ok(None),
            }
            if self.ready.is_empty() && self.parser.size() > LARGEST {
                return Err(Unread::TooLarge);
            }
        }
    }
}
