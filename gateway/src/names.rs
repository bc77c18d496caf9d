//! From the raw URI to a name: decoded exactly once, the same way on every route
//! (contract.md section 4, rows 1-10).

use dfs_protocol::{ErrorCode, FilePath, PathPrefix, Problem};
use http::Uri;

/// The file named behind `route` (`/files/`, `/download/`).
pub(crate) fn file_path(uri: &Uri, route: &str) -> Result<FilePath, Problem> {
    Ok(FilePath::from_bytes(&decoded(uri, route)?)?)
}

/// The prefix named behind `route`; empty when nothing is.
pub(crate) fn prefix(uri: &Uri, route: &str) -> Result<PathPrefix, Problem> {
    Ok(PathPrefix::from_bytes(&decoded(uri, route)?)?)
}

fn decoded(uri: &Uri, route: &str) -> Result<Vec<u8>, Problem> {
    decode_once(uri.path().strip_prefix(route).unwrap_or(""))
}

/// Percent-decodes; a `%` that begins no escape is refused rather than guessed at.
pub(crate) fn decode_once(raw: &str) -> Result<Vec<u8>, Problem> {
    let well_formed = raw.match_indices('%').all(|(at, _)| {
        let digits = raw.as_bytes().get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if !well_formed {
        return Err(Problem::new(
            ErrorCode::InvalidName,
            "the name has a `%` that is not followed by two hex digits",
        )
        .next("write a literal `%` as `%25`"));
    }
    Ok(percent_encoding::percent_decode_str(raw).collect())
}

/// A name as it stands in a URI path: everything but unreserved characters and `/` escaped.
pub(crate) fn encode(name: &str) -> String {
    const KEEP: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~')
        .remove(b'/');
    percent_encoding::utf8_percent_encode(name, KEEP).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(raw: &str) -> Result<String, String> {
        let uri: Uri = format!("/files/{raw}").parse().unwrap();
        file_path(&uri, "/files/")
            .map(|path| path.to_string())
            .map_err(|problem| problem.code().unwrap().as_str().to_owned())
    }

    #[test]
    fn bad_input_01_and_02_dot_segments_are_refused_however_they_are_written() {
        for raw in ["..", "a/../b", "./a", "%2e%2e/x", "a%2f%2e%2e%2fb", "%2E"] {
            assert_eq!(named(raw), Err("invalid-name".into()), "{raw}");
        }
    }

    #[test]
    fn bad_input_02_an_escaped_slash_is_a_slash() {
        assert_eq!(named("a%2fb"), Ok("a/b".into()));
        assert_eq!(named("a%2Fb"), named("a/b"));
    }

    #[test]
    fn bad_input_03_a_name_is_decoded_once_only() {
        assert_eq!(named("%252e%252e"), Ok("%2e%2e".into()));
        assert_eq!(named("100%25"), Ok("100%".into()));
    }

    #[test]
    fn bad_input_04_and_05_control_bytes_and_invalid_utf8_are_refused() {
        for raw in ["a%00b", "a%0d%0ab", "%7f", "%ff", "%c0%af"] {
            assert_eq!(named(raw), Err("invalid-name".into()), "{raw}");
        }
    }

    #[test]
    fn bad_input_06_empty_segments_are_refused_and_backslashes_kept() {
        for raw in ["/a", "a//b", "a/", "%2fa"] {
            assert_eq!(named(raw), Err("invalid-name".into()), "{raw}");
        }
        assert_eq!(named("c:%5cx"), Ok("c:\\x".into()));
    }

    #[test]
    fn bad_input_07_an_empty_name_is_refused() {
        assert_eq!(named(""), Err("invalid-name".into()));
    }

    #[test]
    fn bad_input_08_too_long_names_have_a_code_of_their_own() {
        assert_eq!(named(&"x".repeat(256)), Err("key-too-long".into()));
        assert!(named(&"x".repeat(255)).is_ok());
    }

    #[test]
    fn a_percent_sign_without_digits_is_refused() {
        for raw in ["%", "%z1", "a%1"] {
            assert!(decode_once(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn bad_input_10_encoding_and_decoding_are_inverse() {
        for name in ["e\u{301}", "\u{202e}x", "🦀 a/b?c#d%", "\"q\";"] {
            let decoded = decode_once(&encode(name)).unwrap();
            assert_eq!(decoded, name.as_bytes());
        }
    }
}
