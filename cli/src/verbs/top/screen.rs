//! The terminal: taken over while the store is watched, and given back however that ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tokio::sync::mpsc;

/// How long the thread that reads keys may hold the end up.
const LOOK_UP: Duration = Duration::from_millis(100);
/// Keys that wait; more of them mean that nobody reads, and are left out.
const KEYS: usize = 64;

/// Whether the terminal is taken over: it is given back once.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal of this process. Dropping it gives the terminal back: at the end, after an error, when
/// the verb is dropped for a signal, and while a panic unwinds (whose message comes after that).
pub(super) struct Screen {
    /// To draw on.
    pub terminal: Terminal<CrosstermBackend<io::Stdout>>,
}

impl Screen {
    /// Takes the terminal over.
    pub(super) fn take() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        // From here on every way out gives it back.
        let terminal = execute!(io::stdout(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match terminal {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Nobody is left to tell when that fails.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _shown = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _cooked = disable_raw_mode();
    }
}

/// Keys and sizes, read by a thread that ends with this.
pub(super) struct Keys {
    /// What comes.
    pub events: mpsc::Receiver<Event>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keys {
    /// Begins to read.
    pub(super) fn read() -> io::Result<Self> {
        let (sender, events) = mpsc::channel(KEYS);
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let reads = move || {
            while !ends.load(Ordering::Relaxed) {
                match event::poll(LOOK_UP) {
                    Ok(false) => {}
                    Ok(true) => match event::read() {
                        Ok(event) => drop(sender.try_send(event)),
                        Err(_) => return,
                    },
                    Err(_) => return,
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("keys".to_owned())
            .spawn(reads)?;
        Ok(Self {
            events,
            over,
            thread: Some(thread),
        })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It never panics; were it to, there would be nothing to do about it here.
            let _ended = thread.join();
        }
    }
}
