//! `dfs events`: the tracker's story.

use dfs_client::ClientError;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::args::EventsArgs;
use crate::exit::{Exit, Failure};
use crate::session::{AfterError, Session};
use crate::sse::SseParser;

const WHAT: &str = "events";
/// The tracker says something every 15 s; a connection that is silent for longer is dead.
const PATIENCE: std::time::Duration = std::time::Duration::from_mins(1);

/// What people are shown of an event. Kinds are text, so that a newer tracker's can be told too.
#[derive(Debug, Deserialize)]
struct Told {
    id: u64,
    at: Timestamp,
    kind: String,
    #[serde(alias = "message")]
    detail: String,
}

pub(super) async fn events(session: &Session, args: &EventsArgs) -> Result<Exit, Failure> {
    if args.follow {
        return follow(session, args.since).await;
    }
    let list = || session.store.events(args.since);
    for event in session.call(WHAT, list).await? {
        tell(session, &event)?;
    }
    Ok(Exit::Done)
}

/// Tells what happens until the tracker is gone for longer than the retries last.
async fn follow(session: &Session, mut since: Option<u64>) -> Result<Exit, Failure> {
    let mut failures = 0;
    loop {
        let body = session
            .call(WHAT, || session.store.follow_events(since))
            .await?;
        let before = since;
        let ended = read(session, body, &mut since).await?;
        if since != before {
            failures = 0;
        }
        // A tracker that restarts, a proxy that cuts long answers, a reader that fell behind: the
        // story goes on behind the last event.
        let error = ClientError::Unreachable {
            address: session.store.address().to_owned(),
            detail: ended,
        };
        if session.pause(WHAT, &error, failures).await == AfterError::GiveUp {
            return Err(Failure::request(WHAT, &error));
        }
        failures += 1;
    }
}

/// Tells events until the stream ends; gives the reason.
async fn read(
    session: &Session,
    mut body: Incoming,
    since: &mut Option<u64>,
) -> Result<String, Failure> {
    let mut parser = SseParser::default();
    loop {
        let frame = match tokio::time::timeout(PATIENCE, body.frame()).await {
            Err(_) => return Ok("nothing came for a minute".to_owned()),
            Ok(None) => return Ok("the stream ended".to_owned()),
            Ok(Some(Err(error))) => return Ok(error.to_string()),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        let events = parser.push(&piece).map_err(|error| malformed(&error))?;
        for event in events {
            let value = serde_json::from_str(&event.data).map_err(|error| malformed(&error))?;
            tell(session, &value)?;
            *since = event.id.parse().ok().or(*since);
        }
    }
}

fn tell(session: &Session, event: &serde_json::Value) -> Result<(), Failure> {
    if session.out.is_json() {
        return session.out.json(event);
    }
    let told = Told::deserialize(event).map_err(|error| malformed(&error))?;
    session.out.line(&line(&told, TimeZone::system()))
}

fn line(told: &Told, zone: TimeZone) -> String {
    let Told {
        id,
        at,
        kind,
        detail,
    } = told;
    let at = at.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string();
    format!("{at}  {kind:<20}  {detail}  ({id})")
}

fn malformed(detail: &dyn std::fmt::Display) -> Failure {
    let why = format!("the answer cannot be understood: {detail}");
    Failure::new(Exit::Failed, WHAT, why)
        .next("check that dfs and the store have compatible versions, and that --tracker names the tracker's own port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_and_unknown_kinds_and_fields_are_told_too() {
        let json = r#"{"id":7,"at":"2026-05-04T03:02:01Z","kind":"of-tomorrow","detail":"A thing.","more":1}"#;
        let told: Told = serde_json::from_str(json).unwrap();
        assert_eq!(
            line(&told, TimeZone::UTC),
            "2026-05-04 03:02:01  of-tomorrow           A thing.  (7)"
        );
    }
}
