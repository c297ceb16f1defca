//! Session ids are bound to the caller. The caller sees the MCP server's own id with a mark (a MAC
//! for this one caller) in front. The gateway stores nothing, a restart loses nothing, and another
//! caller's id is treated like one that does not exist.

use passavant_proto::secret::{equal_in_constant_time, mac};

/// Longest accepted id, in bytes.
const LONGEST: usize = 2048;
/// Length of the mark in front of an id.
const MARK: usize = 43;

/// The bound id for `owner`, a text that names one caller of one MCP server.
pub(crate) fn bind(key: &[u8], owner: &str, id: &str) -> Option<String> {
    // Visible ASCII, as the transport requires.
    let legal = !id.is_empty() && id.len() <= LONGEST && id.bytes().all(|b| b.is_ascii_graphic());
    legal.then(|| format!("{}.{id}", mark(key, owner, id)))
}

/// The MCP server's own id, if `bound` was made for `owner`.
pub(crate) fn unbind<'a>(key: &[u8], owner: &str, bound: &'a str) -> Option<&'a str> {
    if bound.len() > LONGEST + MARK + 1 || !bound.is_char_boundary(MARK) {
        return None;
    }
    let (held, rest) = bound.split_at(MARK.min(bound.len()));
    let id = rest.strip_prefix('.')?;
    equal_in_constant_time(held, &mark(key, owner, id)).then_some(id)
}

fn mark(key: &[u8], owner: &str, id: &str) -> String {
    // The length comes first, so that no two pairs give the same text.
    mac(key, format!("session {} {owner} {id}", owner.len()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_good_for_the_caller_it_was_given_to_and_nobody_else() {
        let bound = bind(b"key", "erin", "abc").unwrap();
        assert_eq!(unbind(b"key", "erin", &bound), Some("abc"));
        assert_eq!(unbind(b"key", "max", &bound), None);
        assert_eq!(unbind(b"other", "erin", &bound), None);
        for wrong in ["", "abc", &bound[1..], &format!("{bound}x"), &bound.replace(".abc", ".abd")]
        {
            assert_eq!(unbind(b"key", "erin", wrong), None, "{wrong}");
        }
        assert_eq!(unbind(b"key", "erin", &"é".repeat(40)), None);
        for illegal in ["", "a b", "a\r\nb", "é", &"x".repeat(3000)] {
            assert_eq!(bind(b"key", "erin", illegal), None, "{illegal:?}");
        }
        assert_ne!(mark(b"key", "a", "b c"), mark(b"key", "a b", "c"));
    }
}
