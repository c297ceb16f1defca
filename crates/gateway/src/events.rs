//! Server-sent events as bytes. Events that need no change are forwarded as they came, joined into
//! one piece; an event whose data has to change is written anew.

use bytes::{Bytes, BytesMut};

/// Cuts a stream into events, each with the blank line at its end. Events are inspected in the
/// buffer they arrived in, without a copy.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    held: BytesMut,
    /// Events up to this offset were inspected.
    looked: usize,
    /// Where the search for the next end continues.
    seen: usize,
}

impl Splitter {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Bytes in the buffer.
    pub(crate) fn waiting(&self) -> usize {
        self.held.len()
    }

    /// Bytes that were inspected and not taken yet.
    pub(crate) fn passed(&self) -> usize {
        self.looked
    }

    /// The next complete event that was not inspected yet.
    pub(crate) fn peek(&mut self) -> Option<&[u8]> {
        let end = self.end()?;
        Some(&self.held[self.looked..end])
    }

    /// Marks the event that was peeked at, of `len` bytes, to be forwarded unchanged.
    pub(crate) fn pass(&mut self, len: usize) {
        self.looked += len;
        self.seen = self.looked;
    }

    /// Removes the event that was peeked at, of `len` bytes. Call only when no passed event waits
    /// to be taken.
    pub(crate) fn leave_out(&mut self, len: usize) {
        let _ = self.held.split_to(len);
        self.seen = 0;
    }

    /// Everything that was passed, in one piece.
    pub(crate) fn take(&mut self) -> Bytes {
        let taken = self.held.split_to(self.looked).freeze();
        (self.looked, self.seen) = (0, 0);
        taken
    }

    /// The rest when the stream ends: not a complete event, but bytes that some reader may use.
    pub(crate) fn rest(&mut self) -> Bytes {
        (self.looked, self.seen) = (0, 0);
        std::mem::take(&mut self.held).freeze()
    }

    /// Where the next event ends: after two consecutive line ends.
    fn end(&mut self) -> Option<usize> {
        let held = &self.held;
        let mut at = self.seen;
        while at < held.len() {
            let Some(first) = line_end(held, at) else {
                at += 1;
                continue;
            };
            match line_end(held, first) {
                Some(second) => {
                    // The LF of a trailing CR may still arrive.
                    if second == held.len() && held[second - 1] == b'\r' {
                        break;
                    }
                    // If the event is peeked at again before it is passed, the search finds it at
                    // once.
                    self.seen = at;
                    return Some(second);
                }
                None if first >= held.len() => break,
                None => at = first,
            }
        }
        self.seen = at;
        None
    }
}

/// The offset after the line end that begins at `at`.
fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    match (bytes.get(at)?, bytes.get(at + 1)) {
        (b'\r', Some(b'\n')) => Some(at + 2),
        (b'\r' | b'\n', _) => Some(at + 1),
        _ => None,
    }
}

/// Characters at which some readers end a line although the format does not, and the byte order
/// mark, which some readers skip.
const ODD: [char; 9] =
    ['\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}', '\u{feff}'];

/// Whether readers may divide this event in different ways.
pub(crate) fn is_odd(event: &str) -> bool {
    event.contains(ODD)
}

/// The data of an event, if it has any.
pub(crate) fn data(text: &str) -> Option<String> {
    let mut data: Option<String> = None;
    for line in lines(text) {
        let value = match line.strip_prefix("data:") {
            Some(value) => value.strip_prefix(' ').unwrap_or(value),
            None if line == "data" => "",
            None => continue,
        };
        match &mut data {
            None => data = Some(value.to_owned()),
            Some(data) => {
                data.push('\n');
                data.push_str(value);
            }
        }
    }
    data
}

/// The same event with other data. `data` is JSON; it is written on one line, without any character
/// at which some reader ends a line.
pub(crate) fn with_data(text: &str, data: &str) -> String {
    let others = lines(text)
        .filter(|line| !(line.is_empty() || line.starts_with("data:") || *line == "data"))
        .filter(|line| !is_odd(line));
    let mut out = String::with_capacity(data.len() + 64);
    for line in others {
        out.push_str(line);
        out.push('\n');
    }
    out.push_str("data: ");
    for c in data.chars() {
        match c {
            // A line break is between tokens, since a JSON string cannot contain one.
            '\r' | '\n' => out.push(' '),
            // Such a character is inside a string, since JSON allows it nowhere else.
            _ if ODD.contains(&c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push_str("\n\n");
    out
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    // A byte order mark may stand before the first line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.split("\r\n").flat_map(|part| part.split(['\r', '\n']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&str]) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut events = Vec::new();
        for chunk in chunks {
            splitter.feed(chunk.as_bytes());
            while let Some(len) = splitter.peek().map(<[u8]>::len) {
                splitter.pass(len);
                events.push(String::from_utf8(splitter.take().to_vec()).unwrap());
            }
        }
        events.push(String::from_utf8(splitter.rest().to_vec()).unwrap());
        events
    }

    #[test]
    fn a_stream_is_cut_behind_blank_lines_however_it_arrives() {
        for text in [
            "data: a\n\nid: 1\ndata: b\n\nrest",
            "data: a\r\n\r\nid: 1\r\ndata: b\r\n\r\nrest",
            "data: a\r\rid: 1\rdata: b\r\rrest",
        ] {
            let whole = split(&[text]);
            assert_eq!(whole.len(), 3, "{text:?}");
            assert_eq!(whole.concat(), text);
            let bytes: Vec<String> = text.chars().map(String::from).collect();
            let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
            assert_eq!(split(&bytes), whole, "byte by byte: {text:?}");
            assert_eq!(data(&whole[1]).as_deref(), Some("b"));
        }
    }

    #[test]
    fn what_passes_is_one_piece_and_what_is_left_out_is_gone() {
        let mut splitter = Splitter::default();
        splitter.feed(b"data: a\n\n: b\n\ndata: c\n\ndata: d");
        for _ in 0..2 {
            let len = splitter.peek().unwrap().len();
            splitter.pass(len);
        }
        assert_eq!(splitter.peek(), Some(&b"data: c\n\n"[..]));
        assert_eq!(splitter.peek(), Some(&b"data: c\n\n"[..]), "twice is the same");
        assert_eq!(&splitter.take()[..], b"data: a\n\n: b\n\n");
        let len = splitter.peek().unwrap().len();
        splitter.leave_out(len);
        assert_eq!(splitter.peek(), None);
        assert_eq!(&splitter.rest()[..], b"data: d");
    }

    #[test]
    fn blank_lines_and_comments_cost_no_more_than_their_bytes() {
        for unit in [&b"\n\n"[..], b":\n\n", b"\r\r", b"\r\n\r\n"] {
            for piece in [64 * 1024, 512 * 1024] {
                let input = unit.repeat(1024 * 1024 / unit.len());
                let mut splitter = Splitter::default();
                let (mut out, mut pieces) = (0, 0);
                for chunk in input.chunks(piece) {
                    splitter.feed(chunk);
                    while let Some(len) = splitter.peek().map(<[u8]>::len) {
                        splitter.pass(len);
                    }
                    assert!(splitter.held.capacity() <= 4 * input.len());
                    out += splitter.take().len();
                    pieces += 1;
                }
                out += splitter.rest().len();
                assert_eq!(
                    (out, pieces),
                    (input.len(), input.len().div_ceil(piece)),
                    "one piece a chunk"
                );
            }
        }
    }

    #[test]
    fn data_is_read_and_replaced_and_the_rest_of_the_event_stays() {
        let event = "event: message\nid: 7\ndata: {\"a\":\ndata:1}\n\n";
        assert_eq!(data(event).as_deref(), Some("{\"a\":\n1}"));
        assert_eq!(with_data(event, "{}"), "event: message\nid: 7\ndata: {}\n\n");
        // Data of several lines is joined into one line.
        assert_eq!(
            with_data(event, "{\"a\":\r\n[1,\n2]}"),
            "event: message\nid: 7\ndata: {\"a\":  [1, 2]}\n\n"
        );
        assert_eq!(data(": comment\n\n"), None);
        assert_eq!(data("data\n\n").as_deref(), Some(""));
    }

    #[test]
    fn what_some_reader_takes_for_the_end_of_a_line_is_written_another_way() {
        for odd in ODD {
            let event = format!("id: 1\n: x{odd}data: evil\ndata: {{\"a\":\"{odd}\"}}\n\n");
            assert!(is_odd(&event), "{odd:?}");
            let new = with_data(&event, &data(&event).unwrap());
            assert!(!is_odd(&new) && new.starts_with("id: 1\ndata: {"), "{new:?}");
        }
        assert!(!is_odd("data: {\"a\":\"é\"}\r\n\r\n"));
    }
}
