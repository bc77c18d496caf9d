//! Conditional requests (RFC 9110 section 13).

use dfs_protocol::file::FileRecord;
use dfs_protocol::upload::Precondition;
use dfs_protocol::{ErrorCode, Problem, VersionId};
use http::HeaderMap;
use http::header::{
    HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};
use jiff::Timestamp;

use super::{dates, single};

/// Tags in one header; more are refused.
const MAX_TAGS: usize = 64;

/// What a header with entity tags asks for. Tags that are none of ours are left out: they match
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    Any,
    These {
        strong: Vec<VersionId>,
        weak: Vec<VersionId>,
    },
}

/// How a read goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadVerdict {
    /// Send it.
    Send,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates the conditions of GET and HEAD in the RFC's order.
pub(crate) fn read_verdict(headers: &HeaderMap, file: &FileRecord) -> Result<ReadVerdict, Problem> {
    let version = file.version;
    // Both are read first: what is malformed is refused, whatever the other one says.
    let (wanted, unwanted) = (tags(headers, &IF_MATCH)?, tags(headers, &IF_NONE_MATCH)?);
    if let Some(tags) = wanted {
        let matches = match &tags {
            Tags::Any => true,
            Tags::These { strong, .. } => strong.contains(&version),
        };
        if !matches {
            return Ok(ReadVerdict::Failed);
        }
    } else if let Some(limit) = date(headers, &IF_UNMODIFIED_SINCE)
        && is_later(file.modified, limit)
    {
        return Ok(ReadVerdict::Failed);
    }
    if let Some(tags) = unwanted {
        let matches = match &tags {
            Tags::Any => true,
            Tags::These { strong, weak } => strong.contains(&version) || weak.contains(&version),
        };
        if matches {
            return Ok(ReadVerdict::NotModified);
        }
    } else if let Some(limit) = date(headers, &IF_MODIFIED_SINCE)
        && !is_later(file.modified, limit)
    {
        return Ok(ReadVerdict::NotModified);
    }
    Ok(ReadVerdict::Send)
}

/// Whether `Range` counts: `If-Range` is absent or names this version.
pub(crate) fn range_counts(headers: &HeaderMap, file: &FileRecord) -> bool {
    let Some(value) = headers.get(IF_RANGE) else {
        return true;
    };
    let text = value.to_str().unwrap_or("").trim();
    match text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
    {
        Some(tag) => tag.parse() == Ok(file.version),
        None => {
            dates::parse(text).is_some_and(|date| date.as_second() == file.modified.as_second())
        }
    }
}

/// The condition of a change, decided in the catalog. `If-Unmodified-Since` is not heeded on
/// changes: a date cannot tell two versions of one second apart.
pub(crate) fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let wanted = tags(headers, &IF_MATCH)?;
    let unwanted = tags(headers, &IF_NONE_MATCH)?;
    Ok(match (wanted, unwanted) {
        (Some(_), Some(_)) => {
            return Err(Problem::new(
                ErrorCode::BadRequest,
                "`If-Match` and `If-None-Match` stand together",
            )
            .next("send one of them"));
        }
        (Some(Tags::Any), None) => Precondition::Exists,
        // Weak tags never match here: the comparison is strong.
        (Some(Tags::These { strong, .. }), None) => Precondition::Versions(strong),
        (None, Some(Tags::Any)) => Precondition::Absent,
        (None, Some(Tags::These { strong, weak })) => {
            let all: Vec<_> = strong.into_iter().chain(weak).collect();
            if all.is_empty() {
                Precondition::None
            } else {
                Precondition::NotVersions(all)
            }
        }
        (None, None) => Precondition::None,
    })
}

/// Whether a condition holds for what lives at a path now.
pub(crate) fn holds(precondition: &Precondition, now: Option<VersionId>) -> bool {
    match precondition {
        Precondition::None => true,
        Precondition::Absent => now.is_none(),
        Precondition::Exists => now.is_some(),
        Precondition::Versions(versions) => now.is_some_and(|now| versions.contains(&now)),
        Precondition::NotVersions(versions) => now.is_none_or(|now| !versions.contains(&now)),
    }
}

/// The problem of a condition that does not hold.
pub(crate) fn failed() -> Problem {
    Problem::new(
        ErrorCode::PreconditionFailed,
        "what lives at this path is not what the condition names",
    )
    .next("read the current ETag and decide again")
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    dates::parse(headers.get(name)?.to_str().ok()?)
}

/// Dates of HTTP have whole seconds.
fn is_later(time: Timestamp, limit: Timestamp) -> bool {
    time.as_second() > limit.as_second()
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let Some(text) = single(headers, name)? else {
        return Ok(None);
    };
    if text == "*" {
        return Ok(Some(Tags::Any));
    }
    let malformed = || {
        Problem::new(
            ErrorCode::BadRequest,
            format!("the header `{name}` is not a list of entity tags"),
        )
        .next("write tags in double quotes, as the ETag header does")
    };
    let (mut strong, mut weak) = (Vec::new(), Vec::new());
    for (count, item) in text.split(',').map(str::trim).enumerate() {
        let (is_weak, quoted) = match item.strip_prefix("W/") {
            Some(rest) => (true, rest),
            None => (false, item),
        };
        let tag = quoted
            .strip_prefix('"')
            .and_then(|tag| tag.strip_suffix('"'));
        let tag = tag.filter(|tag| !tag.contains('"') && count < MAX_TAGS);
        if let Ok(version) = tag.ok_or_else(malformed)?.parse::<VersionId>() {
            if is_weak { &mut weak } else { &mut strong }.push(version);
        }
    }
    Ok(Some(Tags::These { strong, weak }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    fn headers(pairs: &[(&HeaderName, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn bad_input_33_stale_tags_give_412_304_or_the_whole_file() {
        let file = record("a", b"hello");
        let ours = format!("\"{}\"", file.version);
        let weak = format!("W/{ours}");
        let other = "\"0000000000000000-0000000000000009\"";
        let verdict = |pairs: &[(&HeaderName, &str)]| read_verdict(&headers(pairs), &file);
        assert_eq!(verdict(&[(&IF_MATCH, &ours)]), Ok(ReadVerdict::Send));
        assert_eq!(verdict(&[(&IF_MATCH, "*")]), Ok(ReadVerdict::Send));
        assert_eq!(verdict(&[(&IF_MATCH, other)]), Ok(ReadVerdict::Failed));
        assert_eq!(verdict(&[(&IF_MATCH, &weak)]), Ok(ReadVerdict::Failed));
        assert_eq!(
            verdict(&[(&IF_NONE_MATCH, &ours)]),
            Ok(ReadVerdict::NotModified)
        );
        assert_eq!(
            verdict(&[(&IF_NONE_MATCH, &weak)]),
            Ok(ReadVerdict::NotModified)
        );
        assert_eq!(
            verdict(&[(&IF_NONE_MATCH, "*")]),
            Ok(ReadVerdict::NotModified)
        );
        assert_eq!(verdict(&[(&IF_NONE_MATCH, other)]), Ok(ReadVerdict::Send));
        let two = format!("\"x\", {ours}");
        assert_eq!(
            verdict(&[(&IF_NONE_MATCH, &two)]),
            Ok(ReadVerdict::NotModified)
        );
        assert!(range_counts(&headers(&[(&IF_RANGE, &ours)]), &file));
        assert!(!range_counts(&headers(&[(&IF_RANGE, other)]), &file));
        assert!(!range_counts(&headers(&[(&IF_RANGE, &weak)]), &file));
        assert!(range_counts(&headers(&[]), &file));
    }

    #[test]
    fn bad_input_33_dates_are_compared_in_whole_seconds_and_nonsense_is_ignored() {
        let file = record("a", b"hello");
        let at = dates::format(file.modified).unwrap();
        let before = dates::format(file.modified - jiff::SignedDuration::from_secs(1)).unwrap();
        let verdict = |name, value: &str| read_verdict(&headers(&[(name, value)]), &file);
        assert_eq!(
            verdict(&IF_MODIFIED_SINCE, &at),
            Ok(ReadVerdict::NotModified)
        );
        assert_eq!(verdict(&IF_MODIFIED_SINCE, &before), Ok(ReadVerdict::Send));
        assert_eq!(verdict(&IF_MODIFIED_SINCE, "x"), Ok(ReadVerdict::Send));
        assert_eq!(verdict(&IF_UNMODIFIED_SINCE, &at), Ok(ReadVerdict::Send));
        assert_eq!(
            verdict(&IF_UNMODIFIED_SINCE, &before),
            Ok(ReadVerdict::Failed)
        );
        assert!(range_counts(&headers(&[(&IF_RANGE, &at)]), &file));
        assert!(!range_counts(&headers(&[(&IF_RANGE, &before)]), &file));
    }

    #[test]
    fn bad_input_34_conditions_of_changes() {
        let of = |pairs: &[(&HeaderName, &str)]| precondition(&headers(pairs));
        let version = VersionId::from_u128(7);
        let ours = format!("\"{version}\"");
        assert_eq!(of(&[]), Ok(Precondition::None));
        assert_eq!(of(&[(&IF_NONE_MATCH, "*")]), Ok(Precondition::Absent));
        assert_eq!(of(&[(&IF_MATCH, "*")]), Ok(Precondition::Exists));
        assert_eq!(
            of(&[(&IF_MATCH, &ours)]),
            Ok(Precondition::Versions(vec![version]))
        );
        // A tag that is none of ours matches nothing, rather than everything.
        assert_eq!(
            of(&[(&IF_MATCH, "\"x\"")]),
            Ok(Precondition::Versions(vec![]))
        );
        assert!(!holds(&Precondition::Versions(vec![]), Some(version)));
        for bad in ["x", "\"x", "", "\"a\"b\"", "*,*"] {
            assert!(of(&[(&IF_MATCH, bad)]).is_err(), "{bad}");
        }
        assert!(of(&[(&IF_MATCH, "*"), (&IF_NONE_MATCH, "*")]).is_err());
        let many = vec!["\"x\""; 65].join(",");
        assert!(of(&[(&IF_MATCH, &many)]).is_err());
    }
}
