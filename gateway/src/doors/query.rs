//! Query parameters: decoded strictly (names travel in them), unknown ones refused.

use std::collections::BTreeMap;

use dfs_protocol::{ErrorCode, Problem};
use http::Uri;

use crate::names::decode_once;

/// The parameters of one request. `+` means a space, as forms write it.
#[derive(Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads the query; every name must be among `known` and stand once.
    pub(super) fn read(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let mut found = BTreeMap::new();
        let parts = uri.query().unwrap_or("").split('&');
        for part in parts.filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (text(name)?, text(value)?);
            if !known.contains(&name.as_str()) {
                let shown: String = name.chars().take(40).collect();
                return Err(
                    invalid(format!("the parameter `{shown}` is not known here")).next(hint(known)),
                );
            }
            if found.insert(name.clone(), value).is_some() {
                return Err(invalid(format!("the parameter `{name}` stands twice")));
            }
        }
        Ok(Self(found))
    }

    /// A value, if the parameter is there.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether a switch is on: present, and not `0` or `false`.
    pub(super) fn is_set(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("0" | "false") => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(_) => Err(invalid(format!("the parameter `{name}` is a switch"))
                .next("leave its value out, or write 1 or 0")),
        }
    }

    /// A page's length: `default` when absent, at most `max`.
    pub(super) fn limit(&self, default: u32, max: u32) -> Result<u32, Problem> {
        let Some(text) = self.get("limit") else {
            return Ok(default);
        };
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match (digits, text.parse::<u32>()) {
            (true, Ok(0)) | (false, _) => Err(invalid("`limit` must be a number above 0".into())),
            (true, Ok(limit)) => Ok(limit.min(max)),
            // More than u32 holds is more than the largest page.
            (true, Err(_)) => Ok(max),
        }
    }
}

/// A problem of code `invalid-parameter`.
pub(super) fn invalid(detail: String) -> Problem {
    Problem::new(ErrorCode::InvalidParameter, detail)
}

fn hint(known: &[&str]) -> String {
    if known.is_empty() {
        "this route takes no parameters".to_owned()
    } else {
        format!("known here: {}", known.join(", "))
    }
}

fn text(raw: &str) -> Result<String, Problem> {
    let bytes = decode_once(&raw.replace('+', " "))
        .map_err(|_| invalid("a parameter has a `%` without two hex digits".into()))?;
    String::from_utf8(bytes).map_err(|_| invalid("a parameter is not valid UTF-8".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Query, Problem> {
        Query::read(
            &format!("/x?{query}").parse().unwrap(),
            &["limit", "list", "prefix"],
        )
    }

    #[test]
    fn bad_input_40_limits_are_numbers_above_zero_and_clamped() {
        let limit = |text: &str| read(&format!("limit={text}")).unwrap().limit(7, 100).ok();
        for bad in ["0", "-1", "x", "", "1.5", "+1", "0x1"] {
            assert_eq!(limit(bad), None, "{bad}");
        }
        assert_eq!(limit("1000000000"), Some(100));
        assert_eq!(limit("99999999999999999999"), Some(100));
        assert_eq!(limit("3"), Some(3));
        assert_eq!(read("").unwrap().limit(7, 100), Ok(7));
    }

    #[test]
    fn parameters_are_strict() {
        for bad in [
            "append",
            "list&list",
            "prefix=%ff",
            "prefix=%",
            "%00=1",
            "factor=3",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let query = read("list&prefix=a+b%2Bc").unwrap();
        assert_eq!(query.get("prefix"), Some("a b+c"));
        assert_eq!(query.is_set("list"), Ok(true));
        assert!(read("list=maybe").unwrap().is_set("list").is_err());
    }
}
