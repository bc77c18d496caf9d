//! `dfs cmp LOCAL PATH`: every byte of a file in the store against a local one.

use crate::args::CompareArgs;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::paths::RemotePath;
use crate::session::Session;
use crate::transfer::{Progress, Target, download};

/// Exit 0 when they are the same, 1 when they differ; the download's own failures otherwise.
pub(super) async fn cmp(session: &Session, args: CompareArgs) -> Result<Exit, Failure> {
    let CompareArgs {
        client: _,
        local,
        path,
    } = args;
    let what = format!("cmp {} {path}", local.display());
    let from = RemotePath::parse(&path)
        .file()
        .map_err(|error| Failure::invalid_name(&what, &error))?;
    // Said before anything is asked of the store.
    match tokio::fs::metadata(&local).await {
        Ok(there) if there.is_file() => {}
        Ok(_) => return Err(Failure::usage(what, "only a regular file can be compared")),
        Err(error) => return Err(Failure::local(what, &error)),
    }
    let progress = Progress::new(&session.out, true);
    let target = Target::Compare(local);
    let same = download(session, &from, target, true, &progress).await?;
    if session.out.is_json() {
        session.out.json(&same)?;
    } else {
        let size = human::bytes(same.size);
        session
            .out
            .line(&format!("{}  {size}  the same", same.path))?;
    }
    Ok(Exit::Done)
}
