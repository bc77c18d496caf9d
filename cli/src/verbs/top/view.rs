//! How it is looked at: order, place, help. Keys change it.

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What datanodes are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SortKey {
    /// Those that need a look first.
    State,
    /// Id.
    Id,
    /// Used bytes, most first.
    Used,
    /// Free bytes, fewest first.
    Free,
    /// Chunks, most first.
    Chunks,
    /// Bytes coming in, most first.
    In,
    /// Bytes going out, most first.
    Out,
}

impl SortKey {
    /// Every order, with its key and its name.
    pub(super) const ALL: [(char, Self, &'static str); 7] = [
        ('s', Self::State, "state"),
        ('n', Self::Id, "id"),
        ('u', Self::Used, "used"),
        ('f', Self::Free, "free"),
        ('c', Self::Chunks, "chunks"),
        ('i', Self::In, "in"),
        ('o', Self::Out, "out"),
    ];

    /// For people.
    pub(super) fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(_, key, _)| *key == self);
        named.map_or("", |(_, _, name)| name)
    }
}

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Ends it.
    Quit,
    /// As Ctrl-C does elsewhere.
    Interrupt,
    /// Esc: out of the help, or out of it all.
    Back,
    /// Shows the keys, or the store again.
    Help,
    /// Another order.
    Sort(SortKey),
    /// The same order, the other way round.
    Reverse,
    /// So many lines down, or up.
    Lines(isize),
    /// So many pages down, or up.
    Pages(isize),
    /// To the first line.
    Start,
    /// To the last line.
    End,
    /// Looks at the store now.
    Refresh,
    /// Draws again, in another size.
    Redraw,
}

/// What an event of the terminal asks for.
pub(super) fn action(event: &Event) -> Option<Action> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => of_key(*key),
        Event::Resize(..) => Some(Action::Redraw),
        _ => None,
    }
}

fn of_key(key: KeyEvent) -> Option<Action> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Action::Interrupt),
            KeyCode::Char('l') => Some(Action::Redraw),
            _ => None,
        };
    }
    Some(match key.code {
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Esc => Action::Back,
        KeyCode::Char('?' | 'h') => Action::Help,
        KeyCode::Char('r') => Action::Reverse,
        KeyCode::Char(' ') => Action::Refresh,
        KeyCode::Down | KeyCode::Char('j') => Action::Lines(1),
        KeyCode::Up | KeyCode::Char('k') => Action::Lines(-1),
        KeyCode::PageDown => Action::Pages(1),
        KeyCode::PageUp => Action::Pages(-1),
        KeyCode::Home => Action::Start,
        KeyCode::End => Action::End,
        KeyCode::Char(letter) => {
            let found = SortKey::ALL.iter().find(|(key, _, _)| *key == letter);
            return found.map(|(_, key, _)| Action::Sort(*key));
        }
        _ => return None,
    })
}

/// What to do after an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Draw.
    Draw,
    /// Look at the store, then draw.
    Look,
    /// End.
    End,
    /// End as Ctrl-C does.
    Interrupted,
}

/// How it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// The order of datanodes.
    pub sort: SortKey,
    /// The other way round.
    pub reversed: bool,
    /// Datanodes above the first one that is shown.
    pub offset: usize,
    /// Datanodes that were shown at last: a page.
    pub page: usize,
    /// Datanodes that there were at last.
    pub all: usize,
    /// The keys are shown.
    pub help: bool,
    /// Colours besides bold and reverse.
    pub colours: bool,
}

impl View {
    /// As it begins.
    pub(super) fn new(colours: bool) -> Self {
        Self {
            sort: SortKey::State,
            reversed: false,
            offset: 0,
            page: 1,
            all: 0,
            help: false,
            colours,
        }
    }

    /// Does what an action asks for.
    pub(super) fn act(&mut self, action: Action) -> Next {
        let page = isize::try_from(self.page.max(1)).unwrap_or(isize::MAX);
        match action {
            Action::Quit => return Next::End,
            Action::Interrupt => return Next::Interrupted,
            Action::Back if !self.help => return Next::End,
            Action::Refresh => return Next::Look,
            Action::Back => self.help = false,
            Action::Help => self.help = !self.help,
            Action::Sort(key) => {
                self.sort = key;
                self.reversed = false;
                self.offset = 0;
            }
            Action::Reverse => self.reversed = !self.reversed,
            Action::Lines(lines) => self.offset = self.offset.saturating_add_signed(lines),
            Action::Pages(pages) => {
                self.offset = self
                    .offset
                    .saturating_add_signed(pages.saturating_mul(page));
            }
            Action::Start => self.offset = 0,
            // Drawing keeps it within what there is.
            Action::End => self.offset = usize::MAX,
            Action::Redraw => {}
        }
        Next::Draw
    }
}
