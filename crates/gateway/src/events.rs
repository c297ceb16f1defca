//! Server-sent events as bytes: an event goes on as it came, unless its data has to be another.

/// Cuts a stream into events, each with the blank line at its end.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    held: Vec<u8>,
    /// Where in `held` looking goes on.
    seen: usize,
}

impl Splitter {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Bytes that wait for the end of their event.
    pub(crate) fn waiting(&self) -> usize {
        self.held.len()
    }

    /// The next whole event.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        let end = self.end()?;
        self.seen = 0;
        let rest = self.held.split_off(end);
        Some(std::mem::replace(&mut self.held, rest))
    }

    /// What is left when the stream ends: not an event, but somebody's bytes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.seen = 0;
        std::mem::take(&mut self.held)
    }

    /// Where the first event ends: behind two line ends in a row.
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
                    // A CR at the very end may have its LF still to come.
                    if second == held.len() && held[second - 1] == b'\r' {
                        break;
                    }
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

/// The place behind a line end that begins at `at`.
fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    match (bytes.get(at)?, bytes.get(at + 1)) {
        (b'\r', Some(b'\n')) => Some(at + 2),
        (b'\r' | b'\n', _) => Some(at + 1),
        _ => None,
    }
}

/// The data of an event, if it has any; an error where it is not UTF-8, which readers repair differently.
pub(crate) fn data(event: &[u8]) -> Result<Option<String>, std::str::Utf8Error> {
    Ok(data_of(std::str::from_utf8(event)?))
}

fn data_of(text: &str) -> Option<String> {
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

/// The same event with other data, which has no line break.
pub(crate) fn with_data(event: &[u8], data: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(event);
    let others = lines(&text)
        .filter(|line| !(line.is_empty() || line.starts_with("data:") || *line == "data"));
    let mut out = String::with_capacity(data.len() + 64);
    for line in others {
        out.push_str(line);
        out.push('\n');
    }
    out.push_str("data: ");
    out.push_str(data);
    out.push_str("\n\n");
    out.into_bytes()
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
            while let Some(event) = splitter.next() {
                events.push(String::from_utf8(event).unwrap());
            }
        }
        events.push(String::from_utf8(splitter.rest()).unwrap());
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
            assert_eq!(data(whole[1].as_bytes()).unwrap().as_deref(), Some("b"));
        }
    }

    #[test]
    fn data_is_read_and_replaced_and_the_rest_of_the_event_stays() {
        let event = b"event: message\nid: 7\ndata: {\"a\":\ndata:1}\n\n";
        assert_eq!(data(event).unwrap().as_deref(), Some("{\"a\":\n1}"));
        assert_eq!(with_data(event, "{}"), b"event: message\nid: 7\ndata: {}\n\n");
        assert_eq!(data(b": comment\n\n"), Ok(None));
        assert!(data(b"data: \xff\n\n").is_err());
        assert_eq!(data(b"data\n\n").unwrap().as_deref(), Some(""));
    }
}
