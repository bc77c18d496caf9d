//! `dfs top`: the store live, or one frame of it.

mod draw;
mod frame;
mod model;
mod nodes;
mod screen;
mod view;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use dfs_client::ClientError;
use dfs_protocol::ErrorCode;
use jiff::Timestamp;
use ratatui::Terminal;
use ratatui::backend::Backend;
use ratatui::crossterm::event::Event;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::frame::{Room, frame};
use self::model::{Picture, Sample, Watch};
use self::screen::{Keys, Screen};
use self::view::{Next, View, action};
use crate::args::TopArgs;
use crate::exit::{Exit, Failure};
use crate::session::Session;
use crate::store::Store;

const WHAT: &str = "top";
/// A look that takes longer failed.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// The longest that a screen stays as it is: its clocks go on.
const TICK: Duration = Duration::from_secs(1);

pub(super) async fn top(session: &Session, args: &TopArgs) -> Result<Exit, Failure> {
    // The first look is a request as every other verb makes: it may be wrong about where the store is.
    let first = session.call(WHAT, || look(&session.store)).await?;
    let picture = Picture::first(first);
    let live = session.out.is_terminal() && io::stdout().is_terminal() && io::stdin().is_terminal();
    if args.once || session.out.is_json() || !live {
        tokio::time::sleep(args.interval).await;
        let second = session.call(WHAT, || look(&session.store)).await?;
        return write_once(session, picture.then(second));
    }
    let watch = Watch::new(picture, args.interval);
    let view = View::new(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    let taken = Screen::take().and_then(|screen| Ok((screen, Keys::read()?)));
    let (mut screen, mut keys) = taken.map_err(|error| terminal_failure(&error))?;
    let over = live_on(
        &mut screen.terminal,
        &mut keys.events,
        &session.store,
        watch,
        view,
        args.interval,
    );
    over.await.map_err(|error| terminal_failure(&error))
}

fn terminal_failure(error: &io::Error) -> Failure {
    Failure::local("draw on the terminal", error).next("use --once for plain text")
}

/// Three requests, together.
async fn look(store: &Store) -> Result<Sample, ClientError> {
    let (status, nodes, hot) = tokio::join!(store.status(), store.nodes(), store.hot());
    let hot = match hot {
        Ok(hot) => Some(hot),
        // A tracker of an earlier version has no such route.
        Err(error) if error.is(ErrorCode::NotFound) => None,
        Err(error) => return Err(error),
    };
    Ok(Sample {
        taken: Timestamp::now(),
        status: status?,
        nodes: nodes?,
        hot,
    })
}

fn write_once(session: &Session, picture: Picture) -> Result<Exit, Failure> {
    if session.out.is_json() {
        session.out.json(&picture)?;
        return Ok(Exit::Done);
    }
    let now = picture.sample.taken;
    let watch = Watch::new(picture, TICK);
    let rows = frame(&watch, &mut View::new(false), now, Room::ENDLESS);
    let lines: Vec<_> = rows.iter().map(|row| row.text.trim_end()).collect();
    session.out.line(&lines.join("\n"))?;
    Ok(Exit::Done)
}

/// Looks, draws and obeys keys until one ends it. A store that does not answer is asked again at each
/// interval, for as long as somebody watches.
async fn live_on<B: Backend>(
    terminal: &mut Terminal<B>,
    events: &mut mpsc::Receiver<Event>,
    store: &Store,
    mut watch: Watch,
    mut view: View,
    interval: Duration,
) -> Result<Exit, B::Error> {
    let mut looking = Box::pin(next_look(store, interval));
    loop {
        terminal.draw(|screen| {
            let area = screen.area();
            draw::draw(
                &watch,
                &mut view,
                Timestamp::now(),
                area,
                screen.buffer_mut(),
            );
        })?;
        tokio::select! {
            looked = &mut looking => {
                match looked {
                    Ok(sample) => watch.answered(sample),
                    Err(why) => watch.failed(why),
                }
                looking = Box::pin(next_look(store, interval));
            }
            event = events.recv() => {
                // The thread that reads ended: the terminal is gone.
                let Some(event) = event else { return Ok(Exit::Done) };
                let Some(action) = action(&event) else { continue };
                match view.act(action) {
                    Next::Draw => {}
                    Next::Look => looking = Box::pin(next_look(store, Duration::ZERO)),
                    Next::End => return Ok(Exit::Done),
                    Next::Interrupted => return Ok(Exit::Interrupted),
                }
            }
            () = tokio::time::sleep_until(Instant::now() + TICK) => {}
        }
    }
}

/// Waits, then looks; why not, for people.
async fn next_look(store: &Store, pause: Duration) -> Result<Sample, String> {
    tokio::time::sleep(pause).await;
    match tokio::time::timeout(LOOK_LIMIT, look(store)).await {
        Ok(looked) => looked.map_err(|error| error.to_string()),
        Err(_) => Err(format!("nothing came within {} s", LOOK_LIMIT.as_secs())),
    }
}
