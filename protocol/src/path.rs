//! Names of files. A name is only a key in the catalog, never a name on disk; dangerous ones are
//! refused all the same, on every route alike (contract.md section 4, rows 1-10).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

/// Longest path in bytes (S3's limit on keys).
pub const MAX_PATH_BYTES: usize = 1024;
/// Longest segment in bytes.
pub const MAX_SEGMENT_BYTES: usize = 255;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing was named.
    #[error("the name is empty")]
    Empty,
    /// `//`, a leading or a trailing slash.
    #[error("the name has an empty segment (a leading, trailing or double `/`)")]
    EmptySegment,
    /// `.` or `..`.
    #[error("the segment `{segment}` is not a name: `.` and `..` are refused, not resolved")]
    DotSegment {
        /// The offending segment.
        segment: String,
    },
    /// NUL, CR, LF and other control characters.
    #[error("the name holds the control character U+{code:04X}")]
    ControlCharacter {
        /// Its code point.
        code: u32,
    },
    /// The bytes are not UTF-8.
    #[error("the name is not valid UTF-8")]
    NotUtf8,
    /// Longer than [`MAX_PATH_BYTES`].
    #[error("the name has {bytes} bytes, the limit is {MAX_PATH_BYTES}")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// A segment longer than [`MAX_SEGMENT_BYTES`].
    #[error("a segment of the name has {bytes} bytes, the limit is {MAX_SEGMENT_BYTES}")]
    SegmentTooLong {
        /// Its length in bytes.
        bytes: usize,
    },
}

/// A file's path: UTF-8, at most 1024 bytes, segments of 1 to 255 bytes, byte-exact (no Unicode
/// normalisation). A backslash is a literal character.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FilePath(String);

impl FilePath {
    /// Checks a decoded name.
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        if name.is_empty() {
            return Err(InvalidName::Empty);
        }
        check_characters(name)?;
        for segment in name.split('/') {
            check_segment(segment)?;
        }
        Ok(Self(name.to_owned()))
    }

    /// Checks bytes that were percent-decoded exactly once.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidName> {
        Self::parse(std::str::from_utf8(bytes).map_err(|_| InvalidName::NotUtf8)?)
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment: the name that a download suggests.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Every directory that this path implies, outermost first, without trailing slashes:
    /// `a/b/c` gives `a`, `a/b`.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }

    /// The path below `prefix`, moved under `target`; `None` when it is not below `prefix`.
    pub fn rebase(
        &self,
        prefix: &PathPrefix,
        target: &PathPrefix,
    ) -> Option<Result<Self, InvalidName>> {
        let rest = self.0.strip_prefix(prefix.as_str())?;
        Some(Self::parse(&format!("{}{rest}", target.as_str())))
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for FilePath {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::parse(name)
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// The start of paths in a listing or a move: empty, or any valid path text that may end in `/`
/// or in the middle of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Default)]
#[serde(transparent)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// Checks a decoded prefix.
    pub fn parse(prefix: &str) -> Result<Self, InvalidName> {
        check_characters(prefix)?;
        let (directories, last) = prefix
            .rsplit_once('/')
            .map_or((None, prefix), |(d, l)| (Some(d), l));
        for segment in directories.into_iter().flat_map(|d| d.split('/')) {
            check_segment(segment)?;
        }
        if !last.is_empty() {
            check_length(last)?;
        }
        Ok(Self(prefix.to_owned()))
    }

    /// Checks bytes that were percent-decoded exactly once.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidName> {
        Self::parse(std::str::from_utf8(bytes).map_err(|_| InvalidName::NotUtf8)?)
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the prefix names a directory: empty or ending in `/`.
    pub fn is_directory(&self) -> bool {
        self.0.is_empty() || self.0.ends_with('/')
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PathPrefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

fn check_characters(name: &str) -> Result<(), InvalidName> {
    if name.len() > MAX_PATH_BYTES {
        return Err(InvalidName::TooLong { bytes: name.len() });
    }
    // Nearly all names are ASCII, where bytes say it: many at a time.
    if name.is_ascii() && !name.bytes().any(|byte| byte.is_ascii_control()) {
        return Ok(());
    }
    match name.chars().find(|c| c.is_control()) {
        Some(c) => Err(InvalidName::ControlCharacter { code: u32::from(c) }),
        None => Ok(()),
    }
}

fn check_segment(segment: &str) -> Result<(), InvalidName> {
    match segment {
        "" => Err(InvalidName::EmptySegment),
        "." | ".." => Err(InvalidName::DotSegment {
            segment: segment.to_owned(),
        }),
        _ => check_length(segment),
    }
}

fn check_length(segment: &str) -> Result<(), InvalidName> {
    if segment.len() > MAX_SEGMENT_BYTES {
        return Err(InvalidName::SegmentTooLong {
            bytes: segment.len(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_1_dot_segments_are_refused_by_name() {
        for name in ["..", "a/../b", "./a", "a/.", "."] {
            assert!(
                matches!(FilePath::parse(name), Err(InvalidName::DotSegment { .. })),
                "{name}"
            );
        }
    }

    #[test]
    fn bad_input_4_control_characters_are_refused() {
        for name in ["a\0b", "a\r\nb", "a\u{7f}", "a\u{85}"] {
            assert!(
                matches!(
                    FilePath::parse(name),
                    Err(InvalidName::ControlCharacter { .. })
                ),
                "{name:?}"
            );
        }
    }

    #[test]
    fn bad_input_5_invalid_utf8_and_overlong_forms_are_refused() {
        for bytes in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80"] {
            assert_eq!(FilePath::from_bytes(bytes), Err(InvalidName::NotUtf8));
        }
    }

    #[test]
    fn bad_input_6_empty_segments_are_refused_and_backslash_is_literal() {
        for name in ["/a", "a//b", "a/"] {
            assert_eq!(
                FilePath::parse(name),
                Err(InvalidName::EmptySegment),
                "{name}"
            );
        }
        assert_eq!(FilePath::parse("c:\\x").unwrap().as_str(), "c:\\x");
    }

    #[test]
    fn bad_input_8_lengths_are_counted_in_bytes_at_the_boundary() {
        let segment = "é".repeat(127) + "a";
        assert_eq!(segment.len(), 255);
        assert!(FilePath::parse(&segment).is_ok());
        assert!(FilePath::parse(&(segment + "a")).is_err());
        let path = format!(
            "{}/{}",
            vec!["x".repeat(255); 3].join("/"),
            "y".repeat(256 - 1)
        );
        assert_eq!(path.len(), 1023);
        assert!(FilePath::parse(&path).is_ok());
        let longest = format!("a/{}", vec!["x".repeat(145); 7].join("/"));
        assert_eq!(longest.len(), 1023);
        assert!(FilePath::parse(&format!("{longest}z")).is_ok());
        assert!(matches!(
            FilePath::parse(&format!("{longest}zz")),
            Err(InvalidName::TooLong { bytes: 1025 })
        ));
    }

    #[test]
    fn bad_inputs_9_and_10_odd_but_legal_names_are_kept_byte_for_byte() {
        for name in [
            "-rf",
            ".hidden",
            "CON",
            "dot.",
            "space ",
            "é",
            "e\u{301}",
            "\u{202e}x",
            "🦀",
            "\u{200b}",
        ] {
            assert_eq!(FilePath::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn parents_are_the_implied_directories() {
        let path = FilePath::parse("a/b/c").unwrap();
        assert_eq!(path.parents().collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(path.file_name(), "c");
    }
}
