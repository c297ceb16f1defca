//! Times in SAML: `xs:dateTime`, always in UTC (Core 1.3.3).

use passavant_proto::time::Timestamp;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Reads a time. Fractions of a second are dropped.
pub(crate) fn read(text: &str) -> Option<Timestamp> {
    // RFC 3339 also knows offsets and lower-case letters, which SAML does not.
    let utc = text.len() <= 40 && text.ends_with('Z') && text.contains('T');
    let read = utc.then(|| OffsetDateTime::parse(text, &Rfc3339).ok())??;
    Some(Timestamp(read.unix_timestamp()))
}

/// Reads a time that is written with an offset, as some do in metadata.
pub(crate) fn read_any(text: &str) -> Option<Timestamp> {
    let read = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(Timestamp(read.unix_timestamp()))
}

/// Writes a time.
pub(crate) fn written(at: Timestamp) -> String {
    let at = OffsetDateTime::from_unix_timestamp(at.0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-30T12:00:00.123456789Z", Some(1_796_040_000)),
            ("2026-11-30T12:00:00+00:00", None),
            ("2026-11-30t12:00:00Z", None),
            ("2026-11-30 12:00:00Z", None),
            ("2026-13-30T12:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(read(text).map(|at| at.0), seconds, "{text}");
        }
        assert_eq!(written(Timestamp(1_796_040_000)), "2026-11-30T12:00:00Z");
    }
}
