//! `WWW-Authenticate` challenges: written by the resource, read by the client (RFC 9110 11.6.1,
//! RFC 6750 section 3, RFC 9728 section 5.1).

use std::fmt::Write;

/// A challenge to present a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenge {
    /// `Bearer` or `DPoP`.
    pub scheme: String,
    /// Parameters in order; names in lower case.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// An empty challenge for `scheme`.
    pub fn new(scheme: &str) -> Self {
        Self { scheme: scheme.to_owned(), parameters: Vec::new() }
    }

    /// Adds a parameter. Characters outside printable ASCII are dropped.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.parameters.push((name.to_owned(), value.into()));
        self
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }

    /// The header value.
    pub fn to_header(&self) -> String {
        let mut header = self.scheme.clone();
        for (i, (name, value)) in self.parameters.iter().enumerate() {
            header.push_str(if i == 0 { " " } else { ", " });
            let _ = write!(header, "{name}=\"");
            for c in value.chars().filter(|c| (' '..='~').contains(c)) {
                if c == '"' || c == '\\' {
                    header.push('\\');
                }
                header.push(c);
            }
            header.push('"');
        }
        header
    }

    /// All challenges in one or more header values; malformed parts are ignored. Never panics, and
    /// takes time linear in the input.
    pub fn parse_all<'a>(headers: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        let mut challenges: Vec<Self> = Vec::new();
        for header in headers {
            for item in split_outside_quotes(header) {
                let item = item.trim();
                // `Scheme`, `Scheme name=value` begin a challenge; `name=value` continues one.
                let (first, rest) = item.split_once(' ').unwrap_or((item, ""));
                if is_token(first) && (rest.is_empty() || parse_parameter(rest).is_some()) {
                    let parameters = parse_parameter(rest).into_iter().collect();
                    challenges.push(Self { scheme: first.to_owned(), parameters });
                } else if let (Some(parameter), Some(last)) =
                    (parse_parameter(item), challenges.last_mut())
                    && last.get(&parameter.0).is_none()
                {
                    last.parameters.push(parameter);
                }
            }
        }
        challenges
    }
}

fn is_token(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(legal)
}

fn parse_parameter(text: &str) -> Option<(String, String)> {
    let (name, value) = text.trim().split_once('=')?;
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
    if !is_token(&name) {
        return None;
    }
    let Some(quoted) = value.strip_prefix('"') else {
        return is_token(value).then(|| (name, value.to_owned()));
    };
    let mut out = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return chars.as_str().trim().is_empty().then_some((name, out)),
            '\\' => out.push(chars.next()?),
            c => out.push(c),
        }
    }
    None
}

fn split_outside_quotes(header: &str) -> Vec<&str> {
    let (mut items, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (i, b) in header.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                items.push(&header[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    items.push(&header[start..]);
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let challenge = Challenge::new("Bearer")
            .with("resource_metadata", "https://a/.well-known/x")
            .with("scope", "a \"b\" c\\");
        let read = Challenge::parse_all([challenge.to_header().as_str()]);
        assert_eq!(read, [challenge]);
    }

    #[test]
    fn several_challenges_and_quoted_commas_are_told_apart() {
        let read = Challenge::parse_all([
            "Basic realm=\"a, b\", Bearer error=invalid_token, scope=\"x y\"",
            "DPoP algs=\"ES256\"",
        ]);
        assert_eq!(read.len(), 3);
        assert_eq!(read[0].get("realm"), Some("a, b"));
        assert_eq!(read[1].get("scope"), Some("x y"));
        assert_eq!(read[1].get("error"), Some("invalid_token"));
        assert_eq!(read[2].scheme, "DPoP");
    }

    #[test]
    fn a_garbled_challenge_never_panics() {
        for text in ["", ",,,", "\"", "Bearer a=\"\\", "=", "Bearer =", "é", "Bearer a=\"b\" c"] {
            let _ = Challenge::parse_all([text]);
        }
        let good = "Basic realm=\"a, b\\\"\", Bearer error=x, scope=\"x y\", Digest abc==";
        for (at, _) in good.char_indices() {
            for odd in ["", "\"", "\\", ",", "=", " ", "\u{e9}", "\0"] {
                let text = format!("{}{odd}{}", &good[..at], &good[at + 1..]);
                let _ = Challenge::parse_all([text.as_str()]);
            }
            let _ = Challenge::parse_all([&good[at..]]);
        }
    }
}
