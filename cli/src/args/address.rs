//! Where a tracker, gateway or datanode listens, as people write it.

use std::fmt;
use std::str::FromStr;

/// Port of a tracker that names none.
pub const DEFAULT_TRACKER_PORT: u16 = 6000;

/// `host:port` behind a URL. Reads `http://HOST:PORT`, `HOST:PORT`, `HOST`, and the seed's
/// `http://HOST/:PORT`; a slash at the end is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address(String);

/// Text that is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// Another scheme.
    #[error(
        "`{scheme}://` is not spoken here; write http://HOST:PORT (put a proxy in front for TLS)"
    )]
    Scheme {
        /// What was read.
        scheme: String,
    },
    /// Something behind the port.
    #[error("`{text}` has a path; write http://HOST:PORT and nothing after it")]
    HasPath {
        /// What was read.
        text: String,
    },
    /// No host.
    #[error("`{text}` names no host; write http://HOST:PORT")]
    NoHost {
        /// What was read.
        text: String,
    },
    /// The port is no port.
    #[error("`{port}` is not a port; write http://HOST:PORT with a port from 1 to 65535")]
    Port {
        /// What was read.
        port: String,
    },
}

impl Address {
    /// `host:port`, as a connector takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => {
                return Err(ParseAddressError::Scheme {
                    scheme: scheme.to_owned(),
                });
            }
            None => text,
        };
        // The seed's spelling has a slash between host and port.
        let authority = rest.trim_end_matches('/').replacen("/:", ":", 1);
        if authority.contains(['/', '?', '#', '@', ' ']) {
            return Err(ParseAddressError::HasPath {
                text: text.to_owned(),
            });
        }
        let (host, port) = split_port(&authority);
        if host.is_empty() || host == "[]" {
            return Err(ParseAddressError::NoHost {
                text: text.to_owned(),
            });
        }
        let port = match port {
            None => DEFAULT_TRACKER_PORT,
            Some(port) => match port.parse::<u16>() {
                Ok(number) if number > 0 => number,
                _ => {
                    return Err(ParseAddressError::Port {
                        port: port.to_owned(),
                    });
                }
            },
        };
        Ok(Self(format!("{host}:{port}")))
    }
}

/// Splits off the port, leaving the colons of `[::1]` alone.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, ParseAddressError> {
        text.parse::<Address>().map(|address| address.to_string())
    }

    #[test]
    fn every_usual_spelling_is_read() {
        for text in [
            "http://localhost:6000",
            "http://localhost/:6000",
            "HTTP://localhost:6000/",
            "localhost:6000",
            "localhost",
            "http://localhost",
        ] {
            assert_eq!(read(text).unwrap(), "localhost:6000", "{text}");
        }
        assert_eq!(read("http://[::1]:7").unwrap(), "[::1]:7");
        assert_eq!(read("[::1]").unwrap(), "[::1]:6000");
    }

    #[test]
    fn other_spellings_say_what_is_wrong() {
        let message = |text| read(text).unwrap_err().to_string();
        assert!(message("https://localhost").contains("`https://` is not spoken"));
        assert!(message("http://localhost:6000/files").contains("has a path"));
        assert!(message("http://:6000").contains("names no host"));
        assert!(message("localhost:99999").contains("`99999` is not a port"));
        assert!(message("localhost:0").contains("`0` is not a port"));
    }
}
