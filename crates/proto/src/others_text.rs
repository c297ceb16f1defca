//! Text that another party wrote, made safe for a log, the audit trail, a page or a terminal: on
//! one line, without characters that act instead of being displayed, and of limited length. All
//! such output uses this one rule.

/// `text` on one line, at most `most` characters of it. Characters that act (control characters,
/// line and paragraph separators) or are invisible (direction marks, zero-width and tag characters)
/// are escaped, so that they are visible.
pub fn shown(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most.saturating_mul(2)));
    for (count, c) in text.chars().enumerate() {
        if count == most {
            out.push('…');
            break;
        }
        if is_shown(c) {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

/// Whether a character is displayed as what it is.
pub fn is_shown(c: char) -> bool {
    !(c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'))
}

/// Whether a text is an e-mail address that tokens may contain: accounts are found by it.
pub fn is_email(text: &str) -> bool {
    let plain =
        |part: &str| !part.is_empty() && !part.chars().any(|c| c.is_control() || c.is_whitespace());
    text.chars().count() <= 254
        && text.rsplit_once('@').is_some_and(|(local, domain)| plain(local) && plain(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_obeyed_is_seen_instead() {
        assert_eq!(shown("plain text: é 漢 \"x\" \\ 'y'", 100), "plain text: é 漢 \"x\" \\ 'y'");
        for (text, seen) in [
            ("a\nb", "a\\nb"),
            ("a\r\nINFO forged", "a\\r\\nINFO forged"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}txt.exe", "\\u{202e}txt.exe"),
            ("\u{61c}\u{2028}\u{2029}\u{85}", "\\u{61c}\\u{2028}\\u{2029}\\u{85}"),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}"),
            ("\u{e0041}", "\\u{e0041}"),
            ("tab\there\0", "tab\\there\\u{0}"),
        ] {
            assert_eq!(shown(text, 100), seen, "{text:?}");
        }
        assert_eq!(shown("abcdef", 3), "abc…");
        assert_eq!(shown("abc", 3), "abc");
        assert_eq!(shown(&"\u{1b}".repeat(1_000_000), 4), "\\u{1b}\\u{1b}\\u{1b}\\u{1b}…");
    }
}
