//! `dfs setrep`: how many replicas files should have.

use std::time::Duration;

use dfs_protocol::PathPrefix;
use dfs_protocol::factor::FactorChange;
use serde::Serialize;

use crate::args::SetrepArgs;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::paths::RemotePath;
use crate::session::Session;
use crate::store::{FactorAnswer, FileGuard};

/// Between two looks whether all replicas are there.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One path, done.
#[derive(Debug, Serialize)]
struct Done<'a> {
    path: &'a PathPrefix,
    #[serde(flatten)]
    found: &'a FactorAnswer,
}

pub(super) async fn setrep(session: &Session, args: SetrepArgs) -> Result<Exit, Failure> {
    let paths = args.paths.iter().map(|path| RemotePath::parse(path));
    let mut named = Vec::new();
    for path in paths {
        let what = format!("setrep {path}");
        let prefix = if path.is_directory() {
            path.prefix()
        } else {
            path.file()
                .and_then(|file| PathPrefix::parse(file.as_str()))
        };
        named.push(prefix.map_err(|error| Failure::invalid_name(&what, &error))?);
    }
    for path in &named {
        let set = walk(session, path, Some(args.factor)).await?;
        let found = if args.wait_reached {
            wait(session, path, &set).await?
        } else {
            set
        };
        if session.out.is_json() {
            session.out.json(&Done {
                path,
                found: &found,
            })?;
        } else {
            session.out.line(&told(path, &found))?;
        }
    }
    Ok(Exit::Done)
}

/// Every page of a path, added up.
async fn walk(
    session: &Session,
    path: &PathPrefix,
    change: Option<FactorChange>,
) -> Result<FactorAnswer, Failure> {
    let what = format!("setrep {path}");
    let mut sum = FactorAnswer::default();
    loop {
        let cursor = sum.cursor.clone();
        let request = || {
            let store = &session.store;
            store.factor(path, change, cursor.as_deref(), FileGuard::None)
        };
        sum.add(session.call(&what, request).await?);
        if sum.cursor.is_none() {
            return Ok(sum);
        }
    }
}

/// Looks until nothing is left to be copied or deleted. What cannot be reached is waited for no longer.
async fn wait(
    session: &Session,
    path: &PathPrefix,
    set: &FactorAnswer,
) -> Result<FactorAnswer, Failure> {
    loop {
        let seen = walk(session, path, None).await?;
        if seen.chunks_to_go == 0 {
            return Ok(FactorAnswer {
                changed: set.changed,
                ..seen
            });
        }
        if let Some(why) = &seen.unreachable {
            let what = format!("setrep {path}");
            return Err(Failure::new(Exit::Unavailable, what, why.clone())
                .next("the factor is set; add datanodes, or set a smaller one"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn told(path: &PathPrefix, found: &FactorAnswer) -> String {
    let shown = if path.as_str().is_empty() {
        "/"
    } else {
        path.as_str()
    };
    let mut text = format!(
        "{shown}: {} of {} changed",
        human::thousands(found.changed),
        human::count(found.files, "file"),
    );
    let chunks = human::count(found.chunks_to_go, "chunk");
    match (found.bytes_to_copy, found.bytes_to_free) {
        (0, 0) => text.push_str(", all replicas are there"),
        (copy, 0) => text = format!("{text}; {chunks}, {} to copy", human::bytes(copy)),
        (0, free) => text = format!("{text}; {chunks}, {} to free", human::bytes(free)),
        (copy, free) => {
            let (copy, free) = (human::bytes(copy), human::bytes(free));
            text = format!("{text}; {chunks}, {copy} to copy and {free} to free");
        }
    }
    if let Some(seconds) = found.eta_seconds.filter(|_| found.bytes_to_copy > 0) {
        text = format!("{text}, about {}", human::seconds(seconds));
    }
    if let Some(why) = &found.unreachable {
        text = format!("{text}; cannot be reached now: {why}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_what_changed_what_is_left_and_what_is_out_of_reach() {
        let path = PathPrefix::parse("a/").unwrap();
        let found = FactorAnswer {
            files: 12,
            changed: 10,
            ..FactorAnswer::default()
        };
        assert_eq!(
            told(&path, &found),
            "a/: 10 of 12 files changed, all replicas are there"
        );
        let found = FactorAnswer {
            chunks_to_go: 1,
            bytes_to_copy: 1 << 20,
            eta_seconds: Some(90),
            unreachable: Some("5 replicas wanted, 3 datanodes are in service".to_owned()),
            ..found
        };
        assert_eq!(
            told(&path, &found),
            format!(
                "a/: 10 of 12 files changed; 1 chunk, {} to copy, about {}; cannot be reached now: \
                 5 replicas wanted, 3 datanodes are in service",
                human::bytes(1 << 20),
                human::seconds(90)
            )
        );
    }
}
