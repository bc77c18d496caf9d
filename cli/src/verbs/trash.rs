//! `dfs trash list|restore|purge`.

use dfs_protocol::TrashId;
use dfs_protocol::file::{TrashEntry, TrashReason};
use jiff::tz::TimeZone;

use crate::args::TrashCommand;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::paths::RemotePath;
use crate::session::Session;

pub(super) async fn trash(session: &Session, command: TrashCommand) -> Result<Exit, Failure> {
    match command {
        TrashCommand::List { client: _ } => list(session).await,
        TrashCommand::Restore { client: _, to, id } => restore(session, id, to).await,
        TrashCommand::Purge { client: _, ids } => purge(session, &ids).await,
    }
}

async fn list(session: &Session) -> Result<Exit, Failure> {
    let mut cursor: Option<String> = None;
    let mut any = false;
    loop {
        let request = || session.store.trash(cursor.as_deref());
        let page = session.call("trash list", request).await?;
        for entry in &page.entries {
            any = true;
            if session.out.is_json() {
                session.out.json(entry)?;
            } else {
                session.out.line(&row(entry, TimeZone::system()))?;
            }
        }
        match page.cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    if !any && !session.out.is_json() {
        session.out.line("the trash is empty")?;
    }
    Ok(Exit::Done)
}

fn row(entry: &TrashEntry, zone: TimeZone) -> String {
    let reason = match entry.reason {
        TrashReason::Deleted => "deleted",
        TrashReason::Replaced => "replaced",
    };
    format!(
        "{}  {}  {reason:<8}  {:>12}  {}",
        entry.id,
        human::moment(entry.deleted, zone),
        human::bytes(entry.file.size),
        entry.file.path,
    )
}

async fn restore(session: &Session, id: TrashId, to: Option<String>) -> Result<Exit, Failure> {
    let what = format!("restore {id}");
    let to = to
        .map(|to| RemotePath::parse(&to).file())
        .transpose()
        .map_err(|error| Failure::invalid_name(&what, &error))?;
    session
        .call(&what, || session.store.restore(id, to.as_ref()))
        .await?;
    if session.out.is_json() {
        session
            .out
            .json(&serde_json::json!({ "restored": id, "to": to }))?;
    } else {
        let place = to.map_or_else(|| "where it came from".to_owned(), |to| format!("at {to}"));
        session.out.line(&format!("restored {place}"))?;
    }
    Ok(Exit::Done)
}

async fn purge(session: &Session, ids: &[TrashId]) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for id in ids {
        let what = format!("purge {id}");
        match session.call(&what, || session.store.purge(*id)).await {
            Ok(()) if session.out.is_json() => {
                session.out.json(&serde_json::json!({ "purged": id }))?;
            }
            Ok(()) => session.out.line(&format!("purged {id}"))?,
            Err(failure) => {
                session.out.failure(&failure);
                exit = exit.and(failure.exit);
            }
        }
    }
    Ok(exit)
}
