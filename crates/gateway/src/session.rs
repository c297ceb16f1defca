//! Session ids are bound to the caller. What a caller gets is the MCP server's own id with a mark that only
//! this gateway can make and that holds for one caller: nothing is kept, a restart forgets nothing,
//! and an id of somebody else is an id that does not exist.

use passavant_proto::secret::{equal_in_constant_time, mac};

/// Longest id that is taken, in bytes.
const LONGEST: usize = 2048;
/// Length of the mark in front of an id.
const MARK: usize = 43;

/// The id for `owner` (a text that names one caller of one MCP server).
pub(crate) fn bind(key: &[u8], owner: &str, id: &str) -> Option<String> {
    // Visible ASCII, as the transport asks.
    let legal = !id.is_empty() && id.len() <= LONGEST && id.bytes().all(|b| b.is_ascii_graphic());
    legal.then(|| format!("{}.{id}", mark(key, owner, id)))
}

/// The MCP server's own id, if `bound` is this caller's.
pub(crate) fn unbind<'a>(key: &[u8], owner: &str, bound: &'a str) -> Option<&'a str> {
    if bound.len() > LONGEST + MARK + 1 || !bound.is_char_boundary(MARK) {
        return None;
    }
    let (held, rest) = bound.split_at(MARK.min(bound.len()));
    let id = rest.strip_prefix('.')?;
    equal_in_constant_time(held, &mark(key, owner, id)).then_some(id)
}

fn mark(key: &[u8], owner: &str, id: &str) -> String {
    // Lengths first, so that no two pairs make one text.
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
