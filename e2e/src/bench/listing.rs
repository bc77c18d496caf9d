//! W6: pages of a thousand names from directories that grow; against a range of a sorted map in memory,
//! written as the same JSON. And W8: the tracker's restart over all those names.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use dfs_client::http::{empty, whole};
use serde_json::{Value, json};

use super::drive::{Done, Load, drive, fill};
use super::fleet::{Fleet, fleets};
use super::group::Cpu;
use super::lookups::FILLERS;
use super::report::{Report, Unit};
use super::rounds::{Run, Sample};
use super::settings::Settings;
use super::side::{Kind, Side, Task, measure};
use super::writes::blocking;

/// Names of one page.
const PAGE: usize = 1000;

/// A file with a chunk: the first one that is read after the restart.
const READ: &str = "read-after-the-start";

type Names = Arc<BTreeMap<String, Value>>;

/// Measures each directory and concurrency, then the restart.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    let fleets = fleets(settings).await?;
    for &names in &settings.listed {
        for (_, _, fleet) in &fleets {
            fill_directory(settings, fleet, names).await?;
        }
        let sorted = sorted(names);
        for &(streams, pages) in &settings.pages {
            let load = Load {
                streams,
                operations: pages,
                limit: settings.limit,
            };
            let sorted = &sorted;
            let mut skipped = 0;
            let local: Run<'_> = Box::new(move |_| {
                let sorted = Arc::clone(sorted);
                let from = skipped;
                skipped = (skipped + pages) % names.div_ceil(PAGE);
                Box::pin(blocking(move || {
                    format_pages(&sorted, streams, pages, from)
                }))
            });
            let mut sides = vec![Side {
                name: "range and format of a sorted map",
                kind: Kind::Baseline,
                class: "-",
                group: None,
                run: local,
            }];
            for (kind, name, fleet) in &fleets {
                // A sample goes on where the last one ended: not the same pages over and over.
                let next = Rc::new(RefCell::new(String::new()));
                let run = Box::new(move |_| {
                    Box::pin(list_pages(fleet, names, load, Rc::clone(&next)))
                        as std::pin::Pin<Box<_>>
                });
                sides.push(fleet.side(*kind, name, "-", run));
            }
            let task = Task {
                id: "W6",
                what: format!("page of {PAGE} of {names} names, c={streams}"),
                unit: Unit::Operations,
            };
            measure(settings, report, &task, sides).await?;
        }
    }
    let names: usize = settings.listed.iter().sum();
    for (_, name, mut fleet) in fleets {
        let mut session = fleet.door.session().await?;
        session.put(READ, || whole("x")).await?;
        let (ready, serving) = fleet.restart_tracker(&format!("/files/{READ}")).await?;
        let text = format!(
            "{name} tracker killed and started over {names} names of empty files: ready after {ready:.2} s, a file \
             read from its datanode after {serving:.2} s",
        );
        let figures = json!({ "files": names, "ready_s": ready, "first_read_s": serving });
        report.note("W8", &text, &figures)?;
    }
    Ok(())
}

fn directory(names: usize) -> String {
    format!("list-{names}")
}

fn key(names: usize, number: usize) -> String {
    format!("{}/file-{number:08}", directory(names))
}

async fn fill_directory(settings: &Settings, fleet: &Fleet, names: usize) -> io::Result<()> {
    let load = Load {
        streams: FILLERS.min(names),
        operations: names,
        limit: settings.fill_limit,
    };
    fill(&fleet.door, &fleet.group, load, async |session, number| {
        Ok(Done::after(session.put(&key(names, number), empty).await?))
    })
    .await
}

/// Page after page; behind the last one comes the first again.
async fn list_pages(
    fleet: &Fleet,
    names: usize,
    load: Load,
    next: Rc<RefCell<String>>,
) -> io::Result<Sample> {
    drive(&fleet.door, &fleet.group, load, async |session, _| {
        let cursor = next.borrow().clone();
        let page = session.list(&directory(names), PAGE, &cursor).await?;
        *next.borrow_mut() = cursor_of(&page)?;
        Ok(Done::ONE)
    })
    .await
}

/// Where the next page begins; empty behind the last one. Looked up in the text: the client's parsing is
/// no part of what is measured.
fn cursor_of(page: &Bytes) -> io::Result<String> {
    let tail = &page[page.len().saturating_sub(400)..];
    let tail = String::from_utf8_lossy(tail);
    if !tail.trim_end().ends_with('}') {
        return Err(io::Error::other("a page is no JSON object"));
    }
    let found = tail.rsplit_once("\"cursor\":\"");
    let value = found.and_then(|(_, rest)| rest.split('"').next());
    Ok(value.unwrap_or_default().to_owned())
}

fn sorted(names: usize) -> Names {
    let entry = |number| {
        let value = json!({
            "path": key(names, number), "size": 0, "etag": "0123456789abcdef-0123456789abcdef",
            "modified": "2026-01-01T00:00:00Z", "content_type": "application/octet-stream",
        });
        (key(names, number), value)
    };
    Arc::new((0..names).map(entry).collect())
}

/// So many pages from page `from` on, as the store has them: behind a last page that is full comes the first one, not an
/// empty one.
fn format_pages(names: &Names, streams: usize, pages: usize, from: usize) -> io::Result<Sample> {
    let each = pages.div_ceil(streams);
    let first = (from * PAGE)
        .checked_sub(1)
        .and_then(|last| names.keys().nth(last))
        .cloned()
        .unwrap_or_default();
    let cpu = Cpu::of_client();
    let started = Instant::now();
    let format_some = || -> io::Result<()> {
        let mut after = first.clone();
        for _ in 0..each {
            let range = (Bound::Excluded(after.as_str()), Bound::Unbounded);
            let mut behind = names.range::<str, _>(range);
            let page: Vec<_> = behind.by_ref().take(PAGE).collect();
            let values: Vec<&Value> = page.iter().map(|(_, value)| *value).collect();
            std::hint::black_box(serde_json::to_vec(&values)?);
            let last = page.last().filter(|_| behind.next().is_some());
            after = last.map(|(name, _)| (*name).clone()).unwrap_or_default();
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..streams).map(|_| scope.spawn(format_some)).collect();
        threads.into_iter().try_for_each(super::baseline::joined)
    })?;
    Ok(Sample {
        seconds: started.elapsed().as_secs_f64(),
        amount: (each * streams) as f64,
        cpu: Cpu::of_client().since(&cpu),
        ..Sample::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_at_the_end_of_one_and_not_behind_the_last() {
        let page = Bytes::from_static(br#"{"entries":[],"cursor":"abc-_"}"#);
        assert_eq!(cursor_of(&page).unwrap(), "abc-_");
        let last = Bytes::from_static(br#"{"entries":[]}"#);
        assert_eq!(cursor_of(&last).unwrap(), "");
    }
}
