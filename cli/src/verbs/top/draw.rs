//! Lines on a screen.

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::frame::{Room, Tone, frame};
use super::model::Watch;
use super::view::View;

/// Draws the picture over the whole of `area`.
pub(super) fn draw(
    watch: &Watch,
    view: &mut View,
    now: Timestamp,
    area: Rect,
    buffer: &mut Buffer,
) {
    let room = Room {
        width: usize::from(area.width),
        height: usize::from(area.height),
    };
    let rows = frame(watch, view, now, room);
    for (y, row) in (area.top()..area.bottom()).zip(rows) {
        let style = style(row.tone, view.colours);
        let line = Rect {
            y,
            height: 1,
            ..area
        };
        if row.tone == Tone::Head {
            buffer.set_style(line, style);
        }
        buffer.set_stringn(area.x, y, &row.text, room.width, style);
    }
}

/// Bold and reverse show on light and dark terminals alike. Red does too, and what it marks says so in
/// words as well.
fn style(tone: Tone, colours: bool) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Head => Style::new().add_modifier(Modifier::REVERSED),
        Tone::Alarm if colours => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        Tone::Title | Tone::Alarm => Style::new().add_modifier(Modifier::BOLD),
    }
}
