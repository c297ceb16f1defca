//! Server-sent events, parsed as in the HTML standard: unknown and malformed parts are ignored, and
//! parsing continues.

use std::collections::VecDeque;

/// One event, with the last value of each field.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `event`. If it is missing, the standard means `message`.
    pub name: Option<String>,
    /// `data`, its lines joined.
    pub data: Option<String>,
    /// `id`.
    pub id: Option<String>,
    /// `retry`, in milliseconds.
    pub retry: Option<u64>,
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// The connection broke.
    #[error("the connection broke: {}", crate::trouble::text(.0))]
    Broken(reqwest::Error),
    /// An event is larger than allowed.
    #[error("it is larger than it may be")]
    TooLarge,
}

/// The events of a response, parsed as it arrives.
pub struct Events {
    response: reqwest::Response,
    largest: usize,
    parser: Parser,
    ready: VecDeque<Event>,
}

impl Events {
    /// Reads events of at most `largest` bytes each.
    pub fn of(response: reqwest::Response, largest: usize) -> Self {
        Self { response, largest, parser: Parser::default(), ready: VecDeque::new() }
    }

    /// The next event, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Event>, Unread> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            match self.response.chunk().await.map_err(Unread::Broken)? {
                Some(chunk) => self.parser.feed(&chunk, &mut self.ready),
                None => return Ok(None),
            }
            if self.ready.is_empty() && self.parser.size() > self.largest {
                return Err(Unread::TooLarge);
            }
        }
    }
}

/// Parses events from the chunks of a stream.
#[derive(Default)]
pub struct Parser {
    line: Vec<u8>,
    event: Event,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    /// Parsing has begun; only before may there be a byte order mark.
    begun: bool,
}

impl Parser {
    /// Bytes of the event that is being parsed.
    pub fn size(&self) -> usize {
        let fields = [&self.event.data, &self.event.name, &self.event.id];
        self.line.len() + fields.into_iter().flatten().map(String::len).sum::<usize>()
    }

    /// Parses a chunk, and adds the events that end in it to `ready`.
    pub fn feed(&mut self, chunk: &[u8], ready: &mut VecDeque<Event>) {
        let mut rest = chunk;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.line.extend_from_slice(&rest[..at]);
            let cr = rest[at] == b'\r';
            rest = &rest[at + 1..];
            if cr {
                self.after_cr = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            self.end_line(ready);
        }
        self.line.extend_from_slice(rest);
    }

    fn end_line(&mut self, ready: &mut VecDeque<Event>) {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if !self.begun {
            self.begun = true;
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if event != Event::default() {
                ready.push_back(event);
            }
            return;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match &line[..colon] {
            b"event" => self.event.name = Some(value.into_owned()),
            b"data" => match &mut self.event.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&value);
                }
                None => self.event.data = Some(value.into_owned()),
            },
            b"id" if !value.contains('\0') => self.event.id = Some(value.into_owned()),
            b"retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.event.retry = value.parse().ok();
            }
            // A comment (an empty name), or an unknown field.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: &str) -> Event {
        Event { data: Some(data.to_owned()), ..Event::default() }
    }

    #[test]
    fn every_framing_of_the_standard_reads_the_same_in_whatever_pieces_it_comes() {
        for (text, events) in [
            ("data: a\n\n", vec![event("a")]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", vec![event("a"), event("b")]),
            ("data: a\r\rdata: b\r\r", vec![event("a"), event("b")]),
            ("\u{feff}data: a\n\n", vec![event("a")]),
            ("data:a\ndata:  b\ndata\n\n", vec![event("a\n b\n")]),
            (": hello\n\n:\nfoo: bar\ndata: a\nnonsense\n\n", vec![event("a")]),
            ("retry: soon\nretry: -1\nretry:\nid: a\0b\ndata: a\n\n", vec![event("a")]),
            ("data: cut off", vec![]),
            ("data: cut off\n", vec![]),
            (
                "event: x\nevent: message\nid: 1\nid: é2\nretry: 5\nretry: 70\ndata\n\n",
                vec![Event {
                    name: Some("message".to_owned()),
                    data: Some(String::new()),
                    id: Some("é2".to_owned()),
                    retry: Some(70),
                }],
            ),
        ] {
            for size in [1, 2, 3, 1000] {
                let (mut parser, mut ready) = (Parser::default(), VecDeque::new());
                for piece in text.as_bytes().chunks(size) {
                    parser.feed(piece, &mut ready);
                }
                assert_eq!(Vec::from(ready), events, "{text:?} in pieces of {size}");
            }
        }
    }
}
