//! Dates of HTTP (RFC 9110 section 5.6.7): whole seconds, GMT.

use jiff::Timestamp;
use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};

/// `Sun, 06 Nov 1994 08:49:37 GMT`; `None` for years that the form cannot hold.
pub(crate) fn format(time: Timestamp) -> Option<String> {
    DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&time)
        .ok()
}

/// Reads a date; `None` for what is not one, which a recipient must ignore.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_survives_the_header() {
        let text = "Sun, 06 Nov 1994 08:49:37 GMT";
        let time = parse(text).unwrap();
        assert_eq!(time.as_second(), 784_111_777);
        assert_eq!(format(time).as_deref(), Some(text));
        assert_eq!(parse("yesterday"), None);
    }
}
