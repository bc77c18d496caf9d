//! `Content-Disposition` (RFC 6266, RFC 8187).

use std::fmt::Write as _;

/// Bytes of an extended value that need no escape: RFC 8187's `attr-char`.
const ATTR_CHAR: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Media types that a browser would run, or render with scripts.
const ACTIVE: &[&str] = &[
    "html",
    "xml",
    "svg",
    "javascript",
    "ecmascript",
    "pdf",
    "flash",
];

/// `attachment` with a name: a quoted ASCII one for old clients and the exact one.
pub(crate) fn attachment(name: &str) -> String {
    let mut text = String::from("attachment; filename=\"");
    for c in name.chars() {
        match c {
            '"' | '\\' => {
                text.push('\\');
                text.push(c);
            }
            // `%` misleads clients that decode the fallback.
            ' '..='~' if c != '%' => text.push(c),
            _ => text.push('_'),
        }
    }
    let exact = percent_encoding::utf8_percent_encode(name, ATTR_CHAR);
    let _infallible = write!(text, "\"; filename*=UTF-8''{exact}");
    text
}

/// Whether a browser must not show a file of this type in our origin.
pub(crate) fn is_active(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or("");
    let media = media.to_ascii_lowercase();
    ACTIVE.iter().any(|word| media.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_11_a_strange_name_is_quoted_and_escaped() {
        assert_eq!(
            attachment("a\"b;\\c.txt"),
            "attachment; filename=\"a\\\"b;\\\\c.txt\"; filename*=UTF-8''a%22b%3B%5Cc.txt"
        );
        assert_eq!(
            attachment("naïve 🦀%.txt"),
            "attachment; filename=\"na_ve __.txt\"; \
             filename*=UTF-8''na%C3%AFve%20%F0%9F%A6%80%25.txt"
        );
        // Such a name cannot be stored; were it, it could not split the header.
        assert!(!attachment("a\r\nb").contains(['\r', '\n']));
    }

    #[test]
    fn bad_input_11_active_types_are_told_from_harmless_ones() {
        for active in [
            "text/html; charset=utf-8",
            "image/svg+xml",
            "Text/JavaScript",
        ] {
            assert!(is_active(active), "{active}");
        }
        for harmless in ["text/plain", "image/png", "application/octet-stream"] {
            assert!(!is_active(harmless), "{harmless}");
        }
    }
}
